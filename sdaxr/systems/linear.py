r"""A stationary linear Gaussian Markov chain; its posteriors are known in closed form.

.. math:: x_{i+1} = A x_i + \varepsilon_i, \qquad \varepsilon_i \sim N(0, Q), \qquad x_1 \sim N(0, P),
          \qquad P = A P A^T + Q
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.schema import OptionError
from sdaxr.states.validation import Positive
from sdaxr.systems.base import require
from sdaxr.systems.markov import MarkovChain

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Linear(MarkovChain):
    """The chain :math:`x_{i+1} = A x_i + N(0, Q)`; states are the scalars ``x1``, ``x2``, ...

    Parameters
    ----------
    step
        Time between two states.
    matrix
        A, rows as tuples. All eigenvalues are smaller than 1 in modulus. Default: a damped rotation.
    noise
        Q, rows as tuples, symmetric and positive semi-definite. With the defaults, the stationary covariance P is the
        unit matrix.
    """

    name: ClassVar[str] = "linear"

    step: Positive = 1.0
    matrix: Matrix = ((0.8, 0.4), (-0.4, 0.8))
    noise: Matrix = ((0.2, 0.0), (0.0, 0.2))

    def __post_init__(self) -> None:
        super().__post_init__()
        # Lists, the form in JSON, cannot be hashed, and systems are keys of caches.
        for key in ("matrix", "noise"):
            object.__setattr__(self, key, _rows(key, getattr(self, key)))
        sizes = len(self.matrix), len(self.noise)
        require(sizes[0] == sizes[1], f"found a matrix of {sizes[0]} rows and a noise of {sizes[1]}, expected as many")
        radius = np.abs(np.linalg.eigvals(np.array(self.matrix))).max()
        require(
            radius < 1,
            f"found a matrix with an eigenvalue of modulus {radius:g}, expected less than 1 (a stable chain)",
        )
        covariance = self.noise_covariance
        require(np.array_equal(covariance, covariance.T), "found a noise that is not symmetric, expected a covariance")
        least = np.linalg.eigvalsh(covariance).min()
        require(least > -1e-12, f"found a noise with the eigenvalue {least:g}, expected none below 0: a covariance")

    @property
    def noise_covariance(self) -> np.ndarray:
        """Q, shape (n, n)."""
        return np.array(self.noise)

    def template(self) -> xr.Dataset:
        """One state of zeros with its labels."""
        zero = np.zeros((), np.float32)
        names = [f"x{i}" for i in range(1, len(self.matrix) + 1)]
        return xr.Dataset({n: ((), zero, {"units": "1", "long_name": f"component {n[1:]}"}) for n in names})

    def transition_mean(self, x: np.ndarray) -> np.ndarray:
        """A x, from (..., n) to (..., n)."""
        mean: np.ndarray = np.asarray(x, float) @ np.array(self.matrix).T
        return mean

    def tangent(self, x: np.ndarray) -> np.ndarray:
        """A for every state, from (..., n) to (..., n, n)."""
        return np.broadcast_to(np.array(self.matrix), (*np.shape(x), len(self.matrix)))

    def initial(self, count: int, seed: int) -> np.ndarray:
        """Independent draws from the stationary distribution, shape (count, n)."""
        mean, covariance = self.initial_moments()
        return np.random.default_rng(seed).multivariate_normal(mean, covariance, count, method="eigh")

    def initial_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The stationary mean, 0 of shape (n,), and the stationary covariance P, shape (n, n)."""
        from scipy.linalg import solve_discrete_lyapunov

        covariance = solve_discrete_lyapunov(np.array(self.matrix), self.noise_covariance)
        return np.zeros(len(self.matrix)), (covariance + covariance.T) / 2


def _rows(key: str, value: Sequence[Any]) -> Matrix:
    try:
        array = np.array(value, float)
    except (TypeError, ValueError) as error:
        raise OptionError(f"found {key}={value!r}, expected rows of numbers ({error})") from error
    require(
        array.ndim == 2 and array.shape[0] == array.shape[1] and bool(np.isfinite(array).all()) and array.size > 0,
        f"found {key}={value!r}, expected a square matrix as rows of finite numbers",
    )
    return tuple(tuple(row) for row in array.tolist())
