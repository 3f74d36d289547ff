"""The posterior engine against closed forms: a linear Gaussian chain has a Kalman smoother."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdaxr.posterior.execution import batch_size, sample_members
from sdaxr.posterior.guidance import DPS, SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler, build_sampler, karras_levels, member_noise, uniform_levels
from sdaxr.schema import DivergenceError, OptionError

LENGTH, CHANNELS, MEMBERS = 8, 2, 4000
CPU = torch.device("cpu")


class GaussianChain:
    """A stationary autoregressive chain x_{i+1} = A x_i + N(0, Q) with unit variances, and its exact denoiser."""

    def __init__(self) -> None:
        turn = 0.5
        self.transition = 0.9 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        self.noise = np.eye(2) - self.transition @ self.transition.T
        powers = [np.linalg.matrix_power(self.transition, n) for n in range(LENGTH)]
        blocks = [[powers[i - j] if i >= j else powers[j - i].T for j in range(LENGTH)] for i in range(LENGTH)]
        self.covariance = np.block(blocks)

    def denoiser(self, z: torch.Tensor, r: float) -> torch.Tensor:
        """E[x | z] = C (C + r^2 I)^-1 z."""
        gain = self.covariance @ np.linalg.inv(self.covariance + r**2 * np.eye(len(self.covariance)))
        return (z.flatten(1) @ torch.as_tensor(gain.T, dtype=z.dtype)).reshape(z.shape)

    def smoother(self, operator: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rauch-Tung-Striebel smoother for observations of single states: means (L, 2) and covariances (L, 2, 2).

        ``operator`` (L, m, 2), ``y`` (L, m) with NaN where there is no observation.
        """
        mean, cov = np.zeros(2), np.eye(2)
        filtered, predicted = [], []
        for i in range(LENGTH):
            if i:
                mean, cov = self.transition @ mean, self.transition @ cov @ self.transition.T + self.noise
            predicted.append((mean, cov))
            seen = np.isfinite(y[i])
            h = operator[i][seen]
            gain = cov @ h.T @ np.linalg.inv(h @ cov @ h.T + np.diag(error[i][seen] ** 2))
            mean, cov = mean + gain @ (y[i][seen] - h @ mean), cov - gain @ h @ cov
            filtered.append((mean, cov))
        means, covs = [filtered[-1][0]], [filtered[-1][1]]
        for i in reversed(range(LENGTH - 1)):
            (m, c), (mp, cp) = filtered[i], predicted[i + 1]
            back = c @ self.transition.T @ np.linalg.inv(cp)
            means.append(m + back @ (means[-1] - mp))
            covs.append(c + back @ (covs[-1] - cp) @ back.T)
        return np.array(means[::-1]), np.array(covs[::-1])


def observation(operator: np.ndarray, y: np.ndarray, error: np.ndarray) -> GaussianObservation:
    """The same observations for the posterior engine."""
    rows = []
    for i in range(LENGTH):
        block = np.zeros((operator.shape[1], LENGTH, 2))
        block[:, i] = operator[i]
        rows.append(block.reshape(operator.shape[1], -1))
    seen = np.isfinite(y).ravel()
    matrix = torch.as_tensor(np.concatenate(rows)[seen])
    scale = torch.ones(int(seen.sum()), dtype=torch.float64)
    return GaussianObservation(
        lambda x: x.flatten(1) @ matrix.T, torch.as_tensor(y.ravel()[seen]), torch.as_tensor(error.ravel()[seen]), scale
    )


def float64_noise(seed: int) -> callable:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(MEMBERS, LENGTH, CHANNELS, generator=generator, dtype=torch.float64)


def assert_moments(samples: np.ndarray, mean: np.ndarray, cov: np.ndarray, sigmas: float = 5.0) -> None:
    """Mean and covariance of each state within Monte-Carlo error."""
    n = len(samples)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    np.testing.assert_array_less(np.abs(samples.mean(0) - mean) / deviation, sigmas / np.sqrt(n))
    found = np.einsum("nli,nlj->lij", samples - samples.mean(0), samples - samples.mean(0)) / (n - 1)
    spread = np.sqrt((np.einsum("li,lj->lij", deviation, deviation) ** 2 + cov**2) / n)
    np.testing.assert_array_less(np.abs(found - cov) / spread, sigmas)


CASES = {
    "full": (np.broadcast_to(np.eye(2), (LENGTH, 2, 2)), 1, 0.5),
    "partial": (np.broadcast_to(np.array([[1.0, 0.0]]), (LENGTH, 1, 2)), 3, 0.3),
    "noisy": (np.broadcast_to(np.array([[0.6, 0.8]]), (LENGTH, 1, 2)), 2, 1.5),
}


@pytest.mark.parametrize("case", CASES)
def test_sda_matches_the_kalman_smoother(case: str) -> None:
    chain = GaussianChain()
    operator, every, sd = CASES[case]
    random = np.random.default_rng(1)
    error = np.full(operator.shape[:2], sd)
    truth = np.linalg.cholesky(chain.covariance) @ random.normal(size=2 * LENGTH)
    y = np.einsum("lmi,li->lm", operator, truth.reshape(LENGTH, 2)) + sd * random.normal(size=error.shape)
    y[np.arange(LENGTH) % every > 0] = np.nan
    mean, cov = chain.smoother(operator, y, error)
    sampler = Sampler(karras_levels(48, 20.0, 0.02), 1.0, 8, 0.2)
    guided = SDA(chain.denoiser, [observation(operator, y, error)], gamma=0.5)
    samples = sampler(guided, float64_noise(2)).numpy()
    assert_moments(samples, mean, cov)
