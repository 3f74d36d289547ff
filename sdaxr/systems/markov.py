r"""Markov chains with Gaussian noise: the systems whose posterior the methods in `sdaxr.filters` draw.

.. math:: x_{i+1} = f(x_i) + \varepsilon_i, \qquad \varepsilon_i \sim N(0, Q)
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping

import numpy as np

from sdaxr.schema import DataError, OptionError
from sdaxr.systems.base import State, System


class MarkovChain(System):
    """A system whose next state is Gaussian around a function of the present state.

    Functions of state vectors take any number of leading dimensions, so that a million particles are one call.
    """

    @property
    @abc.abstractmethod
    def noise_covariance(self) -> np.ndarray:
        """Covariance Q of the noise of one step, shape (n, n)."""

    @abc.abstractmethod
    def transition_mean(self, x: np.ndarray) -> np.ndarray:
        """Expected next state f(x) after each state, from (..., n) to (..., n)."""

    @abc.abstractmethod
    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent draws of the first state of a trajectory, shape (count, n)."""

    def initial_moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean (n,) and covariance (n, n) of the first state of a trajectory; None where it is not Gaussian."""
        return None

    def tangent(self, x: np.ndarray) -> np.ndarray:
        """Derivative of `transition_mean`, from (..., n) to (..., n, n); here by central differences."""
        x = np.asarray(x, float)
        columns = []
        for j in range(x.shape[-1]):
            # The cube root of the machine precision: rounding and truncation are then of one order of magnitude.
            width = np.zeros(x.shape)
            width[..., j] = 6e-6 * np.maximum(1.0, np.abs(x[..., j]))
            rise = self.transition_mean(x + width) - self.transition_mean(x - width)
            columns.append(rise / (2 * width[..., j : j + 1]))
        return np.stack(columns, axis=-1)

    def trajectory(self, steps: int, seed: int) -> State:
        """A trajectory from a random first state (`initial`), each variable ``(steps, *space)``."""
        start = self.initial(1, seed)[0]
        later = self._chain(start, steps - 1, np.random.default_rng([seed, 1]))
        return self.from_vectors(np.concatenate([start[None], later]))

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> State:
        """The next ``steps`` states, with noise drawn from ``seed``; each variable ``(steps, *space)``."""
        start = self.to_vectors(self.check_state(state))
        return self.from_vectors(self._chain(start, steps, np.random.default_rng(seed)))

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        """The next ``steps`` states after each state vector, (count, n) to (steps, count, n)."""
        states, noisy = np.empty((steps, *x.shape)), self.stochastic
        for i in range(steps):
            x = states[i] = self.transition_mean(x) + (self.draw_noise(random, len(x)) if noisy else 0.0)
        return states

    @property
    def stochastic(self) -> bool:
        """Whether there is noise."""
        return bool(self.noise_covariance.any())

    def log_transition(self, x: np.ndarray) -> np.ndarray:
        r"""Log-density of each transition of a trajectory.

        .. math:: \log p(x_{i+1} | x_i) = -\frac{1}{2} (x_{i+1} - f(x_i))^T Q^{-1} (x_{i+1} - f(x_i))
                  - \frac{1}{2} \log \det (2 \pi Q)

        Parameters
        ----------
        x
            States, ``(..., time, n)``, in physical units.

        Returns
        -------
        numpy.ndarray
            ``(..., time - 1)``; the sum over time is the log-density of the trajectory given its first state.

        Raises
        ------
        OptionError
            If Q is singular, so that there is no density.
        DataError
            If the last dimension of ``x`` is not that of a state vector.
        """
        x = np.asarray(x, float)
        if x.ndim < 2 or x.shape[-1] != self.size:
            raise DataError(
                f"found an array of shape {x.shape}, expected (..., time, {self.size}), the variables "
                f"{', '.join(map(str, self.template().data_vars))} in this order"
            )
        whiten = self.whitening()
        squares = ((x[..., 1:, :] - self.transition_mean(x[..., :-1, :])) @ whiten.T) ** 2
        return log_gaussian(squares.sum(-1), whiten)

    def whitening(self) -> np.ndarray:
        r"""The lower triangular matrix W with :math:`W^T W = Q^{-1}`, shape (n, n): W times the noise is white.

        Raises
        ------
        OptionError
            If Q is singular.
        """
        try:
            return np.linalg.inv(np.linalg.cholesky(self.noise_covariance))
        except np.linalg.LinAlgError as error:
            raise OptionError(
                f"found a singular covariance of the noise of {self.name}, expected a positive definite one: without "
                "noise there is no density; open the system with a larger noise"
            ) from error

    def draw_noise(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Independent draws of the noise of one step, shape (count, n)."""
        covariance = self.noise_covariance
        variances = np.diag(covariance)
        if np.array_equal(covariance, np.diag(variances)):
            return random.standard_normal((count, len(variances))) * np.sqrt(variances)
        values, vectors = np.linalg.eigh(covariance)
        noise: np.ndarray = random.standard_normal((count, len(values))) @ (vectors * np.sqrt(values.clip(min=0))).T
        return noise

    def _chain(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        noise = self.draw_noise(random, steps)
        states = np.empty((steps, len(x)))
        for i in range(steps):
            x = states[i] = self.transition_mean(x) + noise[i]
        return states


def log_gaussian(squared_length: np.ndarray, whiten: np.ndarray) -> np.ndarray:
    """Log-density of a Gaussian, from the squared length of the whitened deviations and the whitening W; any shape."""
    log_root_precision = np.log(np.abs(np.diag(whiten))).sum()
    logarithm: np.ndarray = -squared_length / 2 + log_root_precision - len(whiten) / 2 * math.log(2 * math.pi)
    return logarithm
