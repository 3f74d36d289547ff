"""A linear Gaussian chain: exact denoiser, exact posterior (Kalman smoother), and a `Prior` with the exact network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr

from sdaxr.posterior.samplers.predictor_corrector import Denoiser, PredictorCorrector
from sdaxr.prior.files import Prior
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis

Smoothed = tuple[np.ndarray, np.ndarray]


class GaussianChain:
    """A stationary autoregressive chain x_{i+1} = A x_i + N(0, Q) of unit variances, A a damped rotation.

    Parameters
    ----------
    length
        Number of states.
    damping, turn
        A is ``damping`` times the rotation by ``turn``.
    """

    def __init__(self, length: int, damping: float = 0.9, turn: float = 0.5) -> None:
        self.length, self.damping, self.turn = length, damping, turn
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        self.transition = damping * rotation
        self.noise = np.eye(2) - self.transition @ self.transition.T
        powers = [np.linalg.matrix_power(self.transition, n) for n in range(length)]
        blocks = [[powers[i - j] if i >= j else powers[j - i].T for j in range(length)] for i in range(length)]
        self.covariance = np.block(blocks)
        self.values, self.vectors = np.linalg.eigh(self.covariance)

    def denoise(self, z: torch.Tensor, r: float | torch.Tensor) -> torch.Tensor:
        """E[x | z] = C (C + r^2 I)^-1 z, for z (batch, length, 2)."""
        vectors, values = (torch.as_tensor(a, dtype=z.dtype) for a in (self.vectors, self.values))
        level = torch.as_tensor(r, dtype=z.dtype).reshape(-1, 1)
        return ((z.flatten(1) @ vectors) * (values / (values + level**2)) @ vectors.T).reshape(z.shape)

    def unresolved(self, r: float) -> np.ndarray:
        """Covariance of x given z divided by r^2: C (C + r^2 I)^-1, shape (2 length, 2 length)."""
        return (self.vectors * (self.values / (self.values + r**2))) @ self.vectors.T

    def draw(self, number: int, seed: int) -> np.ndarray:
        """Trajectories, shape (number, length, 2)."""
        root = np.linalg.cholesky(self.covariance)
        return (np.random.default_rng(seed).normal(size=(number, 2 * self.length)) @ root.T).reshape(number, -1, 2)

    def smoother(self, operator: np.ndarray, y: np.ndarray, error: np.ndarray) -> Smoothed:
        """Kalman filter and Rauch-Tung-Striebel smoother: means (length, 2) and covariances (length, 2, 2).

        ``operator`` (length, m, 2); ``y``, ``error`` (length, m), NaN where there is no observation.
        """
        mean, cov = np.zeros(2), np.eye(2)
        filtered, predicted = [], []
        for i in range(self.length):
            if i:
                mean, cov = self.transition @ mean, self.transition @ cov @ self.transition.T + self.noise
            predicted.append((mean, cov))
            seen = np.isfinite(y[i])
            h = operator[i][seen]
            gain = cov @ h.T @ np.linalg.inv(h @ cov @ h.T + np.diag(error[i][seen] ** 2))
            mean, cov = mean + gain @ (y[i][seen] - h @ mean), cov - gain @ h @ cov
            filtered.append((mean, cov))
        means, covs = [filtered[-1][0]], [filtered[-1][1]]
        for i in reversed(range(self.length - 1)):
            (m, c), (mp, cp) = filtered[i], predicted[i + 1]
            back = c @ self.transition.T @ np.linalg.inv(cp)
            means.append(m + back @ (means[-1] - mp))
            covs.append(c + back @ (covs[-1] - cp) @ back.T)
        return np.array(means[::-1]), np.array(covs[::-1])

    def prior(self, samples: int = 64, window: int | None = None) -> Prior:
        """A prior of the variables a and b (units K, mean 280 and standard deviation 2) with the exact network."""
        time = TimeAxis("float", 0.5, "1")
        attrs = {v: {"units": "K", "long_name": f"state {v}"} for v in "ab"}
        moments = np.array([280.0, 280.0]), np.array([2.0, 2.0])
        layout = StateLayout(("a", "b"), attrs, (), None, (), {}, {}, time, *moments)
        states = self.draw(samples, 0).astype(np.float32)
        context = np.ones((1, self.length, 1), np.float32)
        about = {"window": window or self.length, "name": "chain", "network": {"name": "exact"}}
        return Prior(layout, ExactNetwork(self, window), (states, context), about)

    def truth(self, seed: int) -> xr.Dataset:
        """A trajectory in physical units."""
        x = 280 + 2 * self.draw(1, seed)[0]
        attrs = {"units": "K"}
        time = ("time", 0.5 * np.arange(self.length), {"units": "1"})
        return xr.Dataset({v: ("time", x[:, i], attrs) for i, v in enumerate("ab")}, {"time": time})


class ExactNetwork(torch.nn.Module):
    """The exact denoiser in the place of a `DenoisingNetwork`; any number of states, or windows of a fixed one."""

    levels = (5e-3, 100.0)
    modes = None

    def __init__(self, chain: GaussianChain, window: int | None = None) -> None:
        super().__init__()
        self.network, self.window = SimpleNamespace(), window
        self._chains = {chain.length: chain}
        self._like = chain

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        length = z.shape[1]
        if length not in self._chains:
            self._chains[length] = GaussianChain(length, self._like.damping, self._like.turn)
        return self._chains[length].denoise(z, r)


def affine_moments(
    sampler: PredictorCorrector, denoiser: Denoiser, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and covariance (n, n) of the samples of ``shape`` where the denoiser is linear, without Monte Carlo.

    Such a sampler is an affine map of the noise that it draws, so that each column of the map is a sample: one for
    which all of the noise is zero but for one component of one draw.
    """
    size, calls = int(np.prod(shape)), 0

    def counted() -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.zeros(1, *shape, dtype=torch.float64)

    sampler(denoiser, counted)
    call = iter(range(calls))

    def unit() -> torch.Tensor:
        drawn = torch.zeros(1 + calls * size, size, dtype=torch.float64)
        first = 1 + next(call) * size
        drawn[first : first + size] = torch.eye(size, dtype=torch.float64)
        return drawn.reshape(-1, *shape)

    samples = sampler(denoiser, unit).flatten(1).numpy()
    columns = samples[1:] - samples[0]
    return samples[0], columns.T @ columns
