r"""Lorenz's convection model of 1963 as a Markov chain with Gaussian noise.

.. math::
    \dot a = \sigma (b - a), \qquad \dot b = a (\rho - c) - b, \qquad \dot c = a b - \beta c

.. math::
    x_{i+1} = \mathrm{rk4}(x_i, \Delta) + \varepsilon_i, \qquad \varepsilon_i \sim N(0, q \Delta I)

with the noise variance q per unit of time and the time step :math:`\Delta`. The law of the trajectories does not change
where a and b change their signs. The transition density is known exactly:
posteriors have a log-prior, and can be compared with those of particle methods. The defaults are the settings of Rozet
& Louppe (2023). All quantities are dimensionless.

References
----------
.. [1] Lorenz, E. N. (1963). Deterministic nonperiodic flow. doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2
.. [2] Rozet, F. & Louppe, G. (2023). Score-based Data Assimilation. arXiv:2306.10574
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.states.validation import NotNegative, Number, Positive, SpinUp
from sdaxr.systems.base import State, rk4
from sdaxr.systems.markov import MarkovChain

_NAMES = ("a", "b", "c")
_LABELS = {
    "a": "intensity of convection",
    "b": "temperature difference between the currents",
    "c": "departure of the temperature profile from linear",
}
# States that `initial` advances at once: a block that stays in the cache of the processor is several times faster.
_BLOCK = 4096


@dataclass(frozen=True)
class Lorenz63(MarkovChain):
    """Lorenz 1963 with noise; states are the scalars ``a``, ``b`` and ``c``.

    Parameters
    ----------
    step
        Time between two states, one step of the integrator.
    sigma, rho, beta
        Prandtl number, scaled Rayleigh number and aspect ratio.
    noise
        Variance q of the noise per unit of time; 0 makes the chain deterministic.
    spin_up
        States that are dropped at the start of each trajectory.
    """

    name: ClassVar[str] = "lorenz63"
    references: ClassVar[str] = "doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2; arXiv:2306.10574"
    parameters: ClassVar[Mapping[str, str]] = {"sigma": "1", "rho": "1", "beta": "1"}
    symmetries: ClassVar[tuple[Mapping[str, Any], ...]] = ({"negate": ["a", "b"]},)

    step: Positive = 0.025
    sigma: Number = 10.0
    rho: Number = 28.0
    beta: Number = 8 / 3
    noise: NotNegative = 1.0
    spin_up: SpinUp = 1024

    @property
    def prior_mean(self) -> np.ndarray:
        """Mean of the state before the spin-up, shape (3,)."""
        return np.array([0.0, 0.0, 25.0])

    @property
    def prior_covariance(self) -> np.ndarray:
        """Covariance of the state before the spin-up, shape (3, 3)."""
        return np.array([[64.0, 50.0, 0.0], [50.0, 81.0, 0.0], [0.0, 0.0, 75.0]])

    @property
    def noise_covariance(self) -> np.ndarray:
        """Covariance of the noise of one step, shape (3, 3)."""
        return self.noise * self.step * np.eye(len(_NAMES))

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        return xr.Dataset({n: ((), np.zeros((), np.float32), {"units": "1", "long_name": _LABELS[n]}) for n in _NAMES})

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory from a random state, after the spin-up; each variable ``(steps,)``."""
        random = np.random.default_rng(seed)
        start = random.multivariate_normal(self.prior_mean, self.prior_covariance, method="cholesky")
        return self.from_vectors(self._chain(start, self.spin_up + steps, random)[self.spin_up :])

    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent states on the attractor: random states after the spin-up, shape (count, 3)."""
        random = np.random.default_rng(seed)
        states = random.multivariate_normal(self.prior_mean, self.prior_covariance, count, method="cholesky")
        for first in range(0, count, _BLOCK):
            block = states[first : first + _BLOCK]
            for _ in range(self.spin_up):
                block[:] = self.transition_mean(block) + self.draw_noise(random, len(block))
        return states

    def of_members(self, values: Mapping[str, np.ndarray]) -> Lorenz63:
        """The system for several states at once, each with its own sigma, rho or beta, (count,)."""
        each: dict[str, Any] = dict(values)
        return replace(self, **each)

    def transition_mean(self, x: np.ndarray) -> np.ndarray:
        """Expected next state after each state, from (..., 3) to (..., 3)."""
        return rk4(self._derivative, np.asarray(x, float).T, self.step).T

    def _derivative(self, x: np.ndarray) -> np.ndarray:
        a, b, c = x
        return np.array([self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c])
