r"""Bootstrap particle filter.

The chain moves the particles :math:`x_t^i`, the likelihood of the observations weights them,

.. math:: x_t^i \sim p(x_t | x_{t-1}^i), \qquad w_t^i = p(y_t | x_t^i),

and resampling with the weights makes the particles draws of :math:`p(x_t | y_{1..t})`. The evidence
:math:`p(y_{1..L})` is the product over t of the mean of :math:`w_t^i` over the particles. The trajectories that lead to
the last particles are draws of the smoothing distribution. In a long window they share few distinct first states;
`sdaxr.filters.ffbs` does not have this weakness.

References
----------
.. [1] Gordon, N. J., Salmond, D. J. & Smith, A. F. M. (1993). Novel approach to nonlinear/non-Gaussian Bayesian state
   estimation. doi:10.1049/ip-f-2.1993.0015
.. [2] Kitagawa, G. (1996). Monte Carlo filter and smoother for non-Gaussian nonlinear state space models.
   doi:10.1080/10618600.1996.10474692
.. [3] Kong, A., Liu, J. S. & Wong, W. H. (1994). Sequential imputations and Bayesian missing data problems.
   doi:10.1080/01621459.1994.10476469
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.base import Drawn, ModelMethod
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import DivergenceError
from sdaxr.states.validation import Particles
from sdaxr.systems.markov import MarkovChain

_log = logging.getLogger(__name__)

# Below this number of effective particles, members of an ensemble of the usual size (16) coincide.
FEW = 32


@dataclass(frozen=True)
class ParticleMethod(ModelMethod):
    """A method that starts with a particle filter.

    Parameters
    ----------
    particles
        Number of particles, at least 2. Memory holds the particles of all times, in double precision.
    """

    particles: Particles = 65536


@dataclass(frozen=True)
class BPF(ParticleMethod):
    r"""Bootstrap particle filter (Gordon, Salmond & Smith 1993, doi:10.1049/ip-f-2.1993.0015).

    .. math:: x_t^i \sim p(x_t | x_{t-1}^i), \qquad w_t^i = p(y_t | x_t^i)

    Members are the ancestries of the last particles. At the first times of a long window, many members coincide.

    Parameters
    ----------
    particles
        Number of particles, at least 2. Memory holds the particles of all times, in double precision.
    """

    name: ClassVar[str] = "bpf"

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Ancestries of the last particles."""
        filtered = particle_filter(model, self.particles, seed)
        return Drawn(genealogies(filtered, members, seed), filtered.about)


@dataclass(frozen=True)
class Filtered:
    """The result of a particle filter.

    Attributes
    ----------
    particles
        Equally weighted draws of p(x_t | y_1..t), shape (time, particle, n).
    ancestors
        For each time, the index that each particle had before resampling, shape (particle,); None without resampling.
    log_evidence
        Estimate of log p(y).
    effective
        Smallest effective number of particles, 1 / sum w^2 with weights w of sum one, over the times (Kong, Liu & Wong
        1994).
    """

    particles: np.ndarray
    ancestors: list[np.ndarray | None]
    log_evidence: float
    effective: float

    @property
    def about(self) -> dict[str, float]:
        """Diagnostics of the filter, for the attributes of the result."""
        return {"log_evidence": self.log_evidence, "smallest_effective_number_of_particles": self.effective}


def particle_filter(model: StateSpaceModel, particles: int, seed: int) -> Filtered:
    """Run the filter over the window.

    Raises
    ------
    DivergenceError
        If a likelihood is not finite.
    """
    random = np.random.default_rng([seed, 1])
    x = first_states(model.chain, particles, seed)
    kept = np.empty((len(model), *x.shape))
    ancestors: list[np.ndarray | None] = []
    log_evidence, effective = 0.0, float(particles)
    for index, observation in enumerate(model.observations):
        if index:
            x = model.chain.transition_mean(x) + model.chain.draw_noise(random, particles)
        ancestors.append(None)
        if observation is not None:
            likelihood = observation.log_likelihood(x)
            best = likelihood.max()
            if not np.isfinite(best):
                raise DivergenceError(
                    f"the observations at {model.times.values[index]} have the log-likelihood {best} for some "
                    "particle, expected a finite number; check that operator and system are finite for all states"
                )
            weights = np.exp(likelihood - best)
            log_evidence += best + float(np.log(weights.mean()))
            effective = min(effective, float(weights.sum() ** 2 / (weights**2).sum()))
            ancestors[index] = systematic_resampling(weights, particles, random)
            x = x[ancestors[index]]
        kept[index] = x
    if effective < FEW:
        _log.warning(
            "only %.1f of %d particles are effective at some time, so that the posterior is poorly sampled; take more "
            "particles, or check that the observations fit the system",
            effective,
            particles,
        )
    return Filtered(kept, ancestors, log_evidence, effective)


def genealogies(filtered: Filtered, members: int, seed: int) -> np.ndarray:
    """Trajectories from the first state to the last particles of the filter, shape (members, time, n)."""
    length, particles, size = filtered.particles.shape
    random = np.random.default_rng([seed, 2])
    index = random.choice(particles, members, replace=members > particles)
    paths = np.empty((members, length, size))
    for time in reversed(range(length)):
        paths[:, time] = filtered.particles[time, index]
        ancestors = filtered.ancestors[time]
        index = index if ancestors is None else ancestors[index]
    return paths


def systematic_resampling(weights: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Indices of ``count`` draws in proportion to the weights (Kitagawa 1996, doi:10.1080/10618600.1996.10474692).

    Each index occurs as often as ``count`` times its normalised weight, rounded up or down.
    """
    cumulated = np.cumsum(weights)
    points = (random.random() + np.arange(count)) * (cumulated[-1] / count)
    chosen: np.ndarray = np.searchsorted(cumulated, points, side="right")
    return chosen.clip(max=len(weights) - 1)


@functools.lru_cache(maxsize=2)
def first_states(system: MarkovChain, count: int, seed: int) -> np.ndarray:
    """Draws of the first state, (count, n); cached, because a spin-up can take most of the time."""
    states = system.initial(count, seed)
    states.flags.writeable = False
    return states
