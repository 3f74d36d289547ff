r"""Lorenz's convection model of 1963 as a Markov chain with noise.

.. math::
    \dot a = \sigma (b - a), \qquad \dot b = a (\rho - c) - b, \qquad \dot c = a b - \beta c

.. math::
    x_{i+1} = \mathrm{rk4}(x_i, \Delta) + \varepsilon_i, \qquad \varepsilon_i \sim N(0, q \Delta I)

The transition density is known exactly, so posteriors can be judged by their log-prior and compared with a particle
filter's. The settings are those of Rozet & Louppe (2023).

References
----------
.. [1] Lorenz, E. N. (1963). Deterministic nonperiodic flow. doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2
.. [2] Rozet, F. & Louppe, G. (2023). Score-based Data Assimilation. arXiv:2306.10574
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from ..schema import DataError, OptionError
from .base import State, System, require, rk4

_NAMES = ("a", "b", "c")
_LABELS = {
    "a": "intensity of convection",
    "b": "temperature difference between the currents",
    "c": "departure of the temperature profile from linear",
}


@dataclass(frozen=True)
class Lorenz63(System):
    """The noisy chain of Lorenz 1963; states are the scalars ``a``, ``b`` and ``c``.

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

    step: float = 0.025
    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    noise: float = 1.0
    spin_up: int = 1024

    def __post_init__(self) -> None:
        require(self.step > 0, f"found step={self.step}, expected a positive number")
        require(self.noise >= 0, f"found noise={self.noise}, expected a variance of 0 or more")
        require(self.spin_up >= 0, f"found spin_up={self.spin_up}, expected 0 or more states")

    @property
    def prior_mean(self) -> np.ndarray:
        """Mean of the first state, before the spin-up; ``(3,)``."""
        return np.array([0.0, 0.0, 25.0])

    @property
    def prior_covariance(self) -> np.ndarray:
        """Covariance of the first state, before the spin-up; ``(3, 3)``."""
        return np.array([[64.0, 50.0, 0.0], [50.0, 81.0, 0.0], [0.0, 0.0, 75.0]])

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of one step, in each variable."""
        return math.sqrt(self.noise * self.step)

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        return xr.Dataset({n: ((), np.zeros((), np.float32), {"units": "1", "long_name": _LABELS[n]}) for n in _NAMES})

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory from a draw of the prior, after the spin-up; ``(steps,)`` each."""
        random = np.random.default_rng(seed)
        start = random.multivariate_normal(self.prior_mean, self.prior_covariance, method="cholesky")
        return _named(self._chain(start, self.spin_up + steps, random)[self.spin_up :])

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next states of the chain, the noise drawn from ``seed``; ``(steps,)`` each."""
        start = np.array([self.check_state(state)[name] for name in _NAMES], float)
        return _named(self._chain(start, steps, np.random.default_rng(seed)))

    def transition_mean(self, x: np.ndarray) -> np.ndarray:
        """Expected next state after each state, ``(..., 3)`` to ``(..., 3)``."""
        return np.moveaxis(rk4(self._derivative, np.moveaxis(np.asarray(x, float), -1, 0), self.step), 0, -1)

    def log_transition(self, x: np.ndarray) -> np.ndarray:
        r"""Log-density of each transition of a trajectory.

        .. math:: \log p(x_{i+1} | x_i) = -\frac{|x_{i+1} - \mathrm{rk4}(x_i)|^2}{2 q \Delta}
                  - \frac{3}{2} \log(2 \pi q \Delta)

        Parameters
        ----------
        x
            States, ``(..., time, 3)`` in the order a, b, c, not normalised.

        Returns
        -------
        numpy.ndarray
            ``(..., time - 1)``; the sum over time is the log-density of the trajectory given its first state.

        Raises
        ------
        OptionError
            If the chain has no noise, so that there is no density.
        DataError
            If the last dimension does not hold three variables.
        """
        x = np.asarray(x, float)
        if x.ndim < 2 or x.shape[-1] != len(_NAMES):
            raise DataError(f"found an array of shape {x.shape}, expected (..., time, 3) in the order a, b, c")
        variance = self.noise_std**2
        if variance == 0:
            raise OptionError("found noise=0, expected a positive variance: without noise there is no density")
        misfit = ((x[..., 1:, :] - self.transition_mean(x[..., :-1, :])) ** 2).sum(-1)
        return -misfit / (2 * variance) - 1.5 * math.log(2 * math.pi * variance)

    def _chain(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        noise = self.noise_std * random.standard_normal((steps, len(_NAMES)))
        states = np.empty((steps, len(_NAMES)))
        for i in range(steps):
            x = states[i] = rk4(self._derivative, x, self.step) + noise[i]
        return states

    def _derivative(self, x: np.ndarray) -> np.ndarray:
        a, b, c = x
        return np.array([self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c])


def _named(states: np.ndarray) -> State:
    return {name: states[:, i].astype(np.float32) for i, name in enumerate(_NAMES)}
