r"""Forward filter, backward simulation: independent draws of the smoothing distribution.

After a particle filter, a trajectory is drawn from its end: :math:`x_L` from the last particles, and then, backwards,

.. math:: x_t \sim p(x_t | x_{t+1}, y_{1..t}) \propto p(x_{t+1} | x_t)\, p(x_t | y_{1..t}),

a choice among the particles of time t with the transition density as the weight. With Gaussian noise this density has a
known maximum, so a particle drawn at random can be accepted with the probability

.. math:: \exp\left(-\tfrac{1}{2} |W (x_{t+1} - f(x_t^i))|^2\right), \qquad W^T W = Q^{-1},

which is exact and looks at few of the particles. For the trajectories that have accepted none after many trials, the
weights of all particles are computed.

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

# Proposals in one round of rejection, and in all rounds for one trajectory: so many cost as much as all weights.
_ROUND = 2**16
_TRIALS = 2**14
# Weights below exp(-40) of the largest are less than the rounding error of their sum.
_NEAR = 40.0


@dataclass(frozen=True)
class FFBS(ParticleMethod):
    r"""Forward filter, backward simulation (Godsill, Doucet & West 2004, doi:10.1198/016214504000000151).

    .. math:: x_t \sim p(x_t | x_{t+1}, y_{1..t}) \propto p(x_{t+1} | x_t)\, p(x_t | y_{1..t})

    Members are independent draws of the posterior, exact in the limit of many particles.

    Parameters
    ----------
    particles
        Number of particles, from 2 on. They are kept for all times, in double precision.
    """

    name: ClassVar[str] = "ffbs"

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Trajectories drawn backwards from the particles."""
        filtered = particle_filter(model, self.particles, seed)
        return Drawn(backward_simulation(model.system, filtered, members, seed), filtered.about)


def backward_simulation(system: MarkovChain, filtered: Filtered, members: int, seed: int) -> np.ndarray:
    """Trajectories given all observations, shape (members, time, n); independent given the filter."""
    random = np.random.default_rng([seed, 3])
    length, particles, size = filtered.particles.shape
    whiten = system.whitening()
    paths = np.empty((members, length, size))
    paths[:, -1] = filtered.particles[-1, random.integers(particles, size=members)]
    for time in reversed(range(length - 1)):
        there = filtered.particles[time]
        chosen = choose(paths[:, time + 1] @ whiten.T, system.transition_mean(there) @ whiten.T, random)
        paths[:, time] = there[chosen]
    return paths


def choose(later: np.ndarray, predicted: np.ndarray, random: np.random.Generator) -> np.ndarray:
    r"""A particle for each trajectory, with probability :math:`\propto \exp(-|later - predicted|^2 / 2)`.

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
        # A uniform number below exp(-d^2 / 2) is an exponential one above d^2 / 2.
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
    """Half the squared distance of points (..., n) from others, n arrays (..., count), one a component."""
    total = np.zeros(())
    for j, column in enumerate(columns):
        total = total + (column - later[..., j, None]) ** 2
    return total / 2
