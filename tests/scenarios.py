"""A linear Gaussian chain observed in several ways, with the moments of its Kalman smoother."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gaussian import GaussianChain

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector

LENGTH, MEMBERS = 8, 2500
CHAIN = GaussianChain(LENGTH)


# Right to half a per cent of each variance (posterior/samplers/test_sampler.py).
FINE = PredictorCorrector(log_snr_levels(96, 80.0, 0.01), DPMStep(eta=1.0, below=math.inf), LangevinCorrector())


CASES = {
    "full": (np.eye(2), 1, 0.5),
    "partial": (np.array([[1.0, 0.0]]), 3, 0.3),
    "noisy": (np.array([[0.6, 0.8]]), 2, 1.5),
}


def draws(seed: int, members: int = MEMBERS, length: int = LENGTH) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, length, 2, generator=generator, dtype=torch.float64)


def matrix_observation(matrix: np.ndarray, y: np.ndarray, error: np.ndarray) -> GaussianObservation:
    """Observations through ``matrix`` (n, 2 length)."""
    h = torch.as_tensor(matrix)
    scale = torch.as_tensor(np.sqrt(np.einsum("ij,jk,ik->i", matrix, CHAIN.covariance, matrix)))
    return GaussianObservation(lambda x: x.flatten(1) @ h.T, torch.as_tensor(y), torch.as_tensor(error), scale)


def scenario(case: str, chain: GaussianChain = CHAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple]:
    """Matrix (n, 2 length), values (n,), errors (n,), and the Kalman smoother's means and covariances."""
    block, every, sd = CASES[case]
    length = chain.length
    operator = np.broadcast_to(block, (length, *block.shape))
    error = np.full(operator.shape[:2], sd)
    truth = chain.draw(1, 3)[0]
    y = np.einsum("lmi,li->lm", operator, truth) + sd * np.random.default_rng(4).normal(size=error.shape)
    y[np.arange(length) % every > 0] = np.nan
    seen = np.isfinite(y).ravel()
    matrix = np.kron(np.eye(length), block)[seen]
    return matrix, y.ravel()[seen], error.ravel()[seen], chain.smoother(operator, y, error)


def exact_gamma(matrix: np.ndarray, scale: np.ndarray) -> Callable[[float], torch.Tensor]:
    """H C (C + r^2 I)^-1 H^T (appendix B), in units of the natural scale: exact for Gaussian priors."""
    return lambda r: torch.as_tensor(matrix @ CHAIN.unresolved(r) @ matrix.T / np.outer(scale, scale))


def exact_mean(matrix: np.ndarray, y: np.ndarray, error: np.ndarray, z: torch.Tensor, r: float) -> np.ndarray:
    """E[x | z, y], shape (batch, 2 length)."""
    weighted = matrix.T / error**2
    precision = np.linalg.inv(CHAIN.covariance) + np.eye(2 * LENGTH) / r**2 + weighted @ matrix
    return np.linalg.solve(precision, (z.flatten(1).numpy() / r**2 + weighted @ y).T).T


def white_mean(matrix: np.ndarray, y: np.ndarray, error: np.ndarray, z: torch.Tensor, r: float) -> np.ndarray:
    """E[x | z, y] for white noise of unit variance as the prior, shape (batch, 2 length)."""
    weighted = matrix.T / error**2
    precision = (1 + 1 / r**2) * np.eye(2 * LENGTH) + weighted @ matrix
    return np.linalg.solve(precision, (z.flatten(1).numpy() / r**2 + weighted @ y).T).T


def white(z: torch.Tensor, r: float) -> torch.Tensor:
    """The denoiser of white noise of unit variance."""
    return z / (1 + r**2)


def assert_moments(samples: np.ndarray, mean: np.ndarray, cov: np.ndarray, sigmas: float = 5.0) -> None:
    """Mean and covariance of each state within Monte-Carlo error."""
    n = len(samples)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < sigmas / np.sqrt(n)
    departure = samples - samples.mean(0)
    found = np.einsum("nli,nlj->lij", departure, departure) / (n - 1)
    spread = np.sqrt((np.einsum("li,lj->lij", deviation, deviation) ** 2 + cov**2) / n)
    assert np.abs((found - cov) / spread).max() < sigmas


def variance_ratio(samples: np.ndarray, cov: np.ndarray) -> float:
    """Total variance of the samples over the true one."""
    return float(samples.var(0, ddof=1).sum() / np.einsum("lii->", cov))


def single_precision(observed: GaussianObservation) -> GaussianObservation:
    matrix = observed.operator(torch.eye(2 * LENGTH, dtype=torch.float64)).float()
    values, errors, scale = observed.values.float(), observed.errors.float(), observed.scale.float()
    return GaussianObservation(lambda x: x.flatten(1) @ matrix, values, errors, scale)
