r"""Bootstrap particle filter.

Particles are moved by the chain, weighted by the likelihood of what is observed, and resampled,

.. math:: x_t^i \sim p(x_t | x_{t-1}^i), \qquad w_t^i \propto p(y_t | x_t^i),

so that they are draws of :math:`p(x_t | y_{1..t})`. The evidence :math:`p(y_{1..L})` is the product of the mean
weights. The ancestors of the last particles are draws of the smoothing distribution; there are few distinct ones of
the first states of a long window, which is what `sdaxr.filters.ffbs` mends.

References
----------
.. [1] Gordon, N. J., Salmond, D. J. & Smith, A. F. M. (1993). Novel approach to nonlinear/non-Gaussian Bayesian state
   estimation. doi:10.1049/ip-f-2.1993.0015
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.base import Drawn, ModelMethod
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import DivergenceError, OptionError
from sdaxr.systems.markov import MarkovChain

_log = logging.getLogger(__name__)

# With fewer effective particles than this, ensembles of the usual size repeat themselves.
FEW = 32


@dataclass(frozen=True)
class ParticleMethod(ModelMethod):
    """A method that begins with a particle filter.

    Parameters
    ----------
    particles
        Number of particles, from 2 on. They are kept for all times, in double precision.
    """

    particles: int = 65536

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.particles < 2:
            raise OptionError(f"particles={self.particles}, expected at least 2")


@dataclass(frozen=True)
class BPF(ParticleMethod):
    r"""Bootstrap particle filter (Gordon, Salmond & Smith 1993, doi:10.1049/ip-f-2.1993.0015).

    .. math:: x_t^i \sim p(x_t | x_{t-1}^i), \qquad w_t^i \propto p(y_t | x_t^i)

    Members are the ancestries of the last particles: few distinct states at the first times of a long window.

    Parameters
    ----------
    particles
        Number of particles, from 2 on. They are kept for all times, in double precision.
    """

    name: ClassVar[str] = "bpf"

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Ancestries of the last particles."""
        filtered = particle_filter(model, self.particles, seed)
        return Drawn(genealogies(filtered, members, seed), filtered.about)


@dataclass(frozen=True)
class Filtered:
    """What the filter leaves.

    Attributes
    ----------
    particles
        Equally weighted draws of p(x_t | y_1..t), shape (time, particle, n).
    ancestors
        For each time the particle of the time before that each particle comes from, shape (particle,); None where it is
        the one of the same number.
    log_evidence
        log p(y), an estimate.
    effective
        The smallest effective number of particles, 1 / sum w^2, over the times.
    """

    particles: np.ndarray
    ancestors: list[np.ndarray | None]
    log_evidence: float
    effective: float

    @property
    def about(self) -> dict[str, float]:
        """What the attributes of a result say of the filter."""
        return {"log_evidence": self.log_evidence, "smallest_effective_number_of_particles": self.effective}


def particle_filter(model: StateSpaceModel, particles: int, seed: int) -> Filtered:
    """Run the filter over the window.

    Raises
    ------
    DivergenceError
        If a likelihood is not finite.
    """
    random = np.random.default_rng([seed, 1])
    x = first_states(model.system, particles, seed)
    kept = np.empty((len(model), *x.shape))
    ancestors: list[np.ndarray | None] = []
    log_evidence, effective = 0.0, float(particles)
    for index, observation in enumerate(model.observations):
        if index:
            x = model.system.transition_mean(x) + model.system.draw_noise(random, particles)
        ancestors.append(None)
        if observation is not None:
            likelihood = observation.log_likelihood(x)
            best = likelihood.max()
            if not np.isfinite(best):
                raise DivergenceError(
                    f"the observations at {model.times.values[index]} have the log-likelihood {best} for some "
                    "particle, expected a number; check that operator and system are finite for all states"
                )
            weights = np.exp(likelihood - best)
            log_evidence += best + float(np.log(weights.mean()))
            effective = min(effective, float(weights.sum() ** 2 / (weights**2).sum()))
            ancestors[index] = systematic_resampling(weights, particles, random)
            x = x[ancestors[index]]
        kept[index] = x
    if effective < FEW:
        _log.warning(
            "only %.1f of %d particles are effective at some time: the posterior is coarse; take more particles, or "
            "check that the observations fit the system",
            effective,
            particles,
        )
    return Filtered(kept, ancestors, log_evidence, effective)


def genealogies(filtered: Filtered, members: int, seed: int) -> np.ndarray:
    """Trajectories of the filter's last particles back to the first state, shape (members, time, n)."""
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
    """Indices of ``count`` draws that hit each weight as often as its share, give or take one."""
    cumulated = np.cumsum(weights)
    points = (random.random() + np.arange(count)) * (cumulated[-1] / count)
    chosen: np.ndarray = np.searchsorted(cumulated, points, side="right")
    return chosen.clip(max=len(weights) - 1)


@functools.lru_cache(maxsize=2)
def first_states(system: MarkovChain, count: int, seed: int) -> np.ndarray:
    """Draws of the first state, (count, n); kept, because a spin-up can take most of the time."""
    states = system.initial(count, seed)
    states.flags.writeable = False
    return states
