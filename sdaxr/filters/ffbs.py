r"""Forward filter, backward simulation: independent draws of the smoothing distribution.

A particle filter runs first. Then each trajectory is drawn backwards: :math:`x_L` from the last particles, and

.. math:: x_t \sim p(x_t | x_{t+1}, y_{1..t}) \propto p(x_{t+1} | x_t)\, p(x_t | y_{1..t})

by a choice among the particles :math:`x_t^i` with the transition density as the weight. With Gaussian noise the maximum
of this density is known, so that rejection sampling is exact: a particle drawn at random is accepted with the
probability

.. math:: \exp\left(-\tfrac{1}{2} |W (x_{t+1} - f(x_t^i))|^2\right), \qquad W^T W = Q^{-1} .

Rejection sampling evaluates few of the particles (Douc et al. 2011). Where a trajectory accepts no particle after many
trials, the weights of all particles are computed.

References
----------
.. [1] Godsill, S. J., Doucet, A. & West, M. (2004). Monte Carlo smoothing for nonlinear time series.
   doi:10.1198/016214504000000151
.. [2] Douc, R., Garivier, A., Moulines, E. & Olsson, J. (2011). Sequential Monte Carlo smoothing for general state
   space hidden Markov models. doi:10.1214/10-AAP735
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.base import Drawn
from sdaxr.filters.bpf import Filtered, ParticleMethod, particle_filter
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.systems.markov import MarkovChain

# Proposals in one round of rejection sampling for all trajectories, and in all rounds for one trajectory. At most a
# quarter of the particles are proposed to one trajectory: more proposals cost as much as the weights of all particles.
_ROUND = 2**16
_TRIALS = 2**14
# Weights below exp(-40) = 4e-18 times the largest weight are smaller than the rounding error of the sum of the weights.
_NEAR = 40.0


@dataclass(frozen=True)
class FFBS(ParticleMethod):
    r"""Forward filter, backward simulation (Godsill, Doucet & West 2004, doi:10.1198/016214504000000151).

    .. math:: x_t \sim p(x_t | x_{t+1}, y_{1..t}) \propto p(x_{t+1} | x_t)\, p(x_t | y_{1..t})

    Members are independent draws of the posterior, exact in the limit of many particles.

    Parameters
    ----------
    particles
        Number of particles, at least 2. Memory holds the particles of all times, in double precision.
    """

    name: ClassVar[str] = "ffbs"

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Trajectories drawn backwards from the particles."""
        filtered = particle_filter(model, self.particles, seed)
        return Drawn(backward_simulation(model.chain, filtered, members, seed), filtered.about)


def backward_simulation(system: MarkovChain, filtered: Filtered, members: int, seed: int) -> np.ndarray:
    """Trajectories given all observations, shape (members, time, n); independent given the filter."""
    random = np.random.default_rng([seed, 3])
    length, particles, size = filtered.particles.shape
    whiten = system.whitening()
    paths = np.empty((members, length, size))
    paths[:, -1] = filtered.particles[-1, random.integers(particles, size=members)]
    for time in reversed(range(length - 1)):
        states = filtered.particles[time]
        chosen = choose(paths[:, time + 1] @ whiten.T, system.transition_mean(states) @ whiten.T, random)
        paths[:, time] = states[chosen]
    return paths


def choose(later: np.ndarray, predicted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    r"""Choose a particle for each trajectory, with a probability :math:`\propto \exp(-|later - predicted|^2 / 2)`.

    Parameters
    ----------
    later
        Whitened next states of the trajectories, shape (members, n).
    predicted
        Whitened expected next states of the particles, shape (particles, n).

    Returns
    -------
    Indices of particles, shape (members,).
    """
    chosen = np.full(len(later), -1)
    columns = np.ascontiguousarray(predicted.T)
    waiting, trials = np.arange(len(later)), 0
    limit = min(_TRIALS, len(predicted) // 4)
    while len(waiting) and trials < limit:
        proposals = max(1, min(limit - trials, _ROUND // len(waiting)))
        proposed = random.integers(len(predicted), size=(len(waiting), proposals), dtype=np.int32)
        half_distance = _half_square(later[waiting], [column[proposed] for column in columns])
        # u < exp(-d^2 / 2) for a uniform u is the same event as e > d^2 / 2 for the standard exponential e = -log u.
        row, trial = np.nonzero(half_distance < _NEAR)
        accepted = random.standard_exponential(len(row)) > half_distance[row, trial]
        found, first = np.unique(row[accepted], return_index=True)
        chosen[waiting[found]] = proposed[found, trial[accepted][first]]
        waiting, trials = np.delete(waiting, found), trials + proposals
    for member in waiting:
        half_distance = _half_square(later[member], columns)
        half_distance -= half_distance.min()
        near = np.flatnonzero(half_distance < _NEAR)
        cumulated = np.cumsum(np.exp(-half_distance[near]))
        chosen[member] = near[np.searchsorted(cumulated, random.random() * cumulated[-1], side="right")]
    return chosen


def _half_square(later: np.ndarray, columns: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Half the squared distance of points (..., n) from other points, given as n arrays (..., count) of components."""
    total = np.zeros(())
    for j, column in enumerate(columns):
        total = total + (column - later[..., j, None]) ** 2
    return total / 2
