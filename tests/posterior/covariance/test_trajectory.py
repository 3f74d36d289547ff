"""The covariance of trajectories, estimated from windows, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import GaussianChain

from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance, block_toeplitz, continued, lag_covariances
from sdaxr.schema import OptionError

CHAIN = GaussianChain(8)


def lag(k: int) -> torch.Tensor:
    """E[x_{i+k} x_i^T] of the chain."""
    return torch.as_tensor(np.linalg.matrix_power(CHAIN.transition, k))


def test_covariance_given_z_is_the_closed_form() -> None:
    covariance = TrajectoryCovariance.from_matrix(torch.as_tensor(CHAIN.covariance))
    u = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for r in (0.01, 1.0, 30.0):
        inverse = np.linalg.inv(np.linalg.inv(CHAIN.covariance) + np.eye(16) / r**2)
        np.testing.assert_allclose(
            covariance.product(u, r).flatten(1), u.flatten(1).numpy() @ inverse, rtol=1e-8, atol=1e-12
        )


@pytest.mark.parametrize("order", [1, 3])
def test_an_autoregression_is_continued_exactly(order: int) -> None:
    """Of a chain of order one, any number of lags says all there is to know."""
    found = block_toeplitz(continued([lag(k) for k in range(order + 1)], 20))
    np.testing.assert_allclose(found, GaussianChain(20).covariance, atol=1e-10)


def test_fewer_states_than_lags() -> None:
    found = block_toeplitz(continued([lag(k) for k in range(5)], 3))
    np.testing.assert_allclose(found, GaussianChain(3).covariance, atol=1e-12)
    alone = block_toeplitz(continued([lag(0)], 3))
    np.testing.assert_allclose(alone, np.eye(6), atol=1e-12)


def test_lags_of_windows_are_those_of_the_chain() -> None:
    """Whatever the mean; pooled over windows and times."""
    windows = torch.as_tensor(CHAIN.draw(20_000, 1)) + torch.tensor([3.0, -2.0])
    for k, found in enumerate(lag_covariances(windows, 4)):
        np.testing.assert_allclose(found, lag(k), atol=0.03)


@pytest.mark.parametrize("length", [5, 8, 40])
def test_an_estimate_of_many_windows_is_the_covariance(length: int) -> None:
    estimate = TrajectoryCovariance.estimate(torch.as_tensor(CHAIN.draw(20_000, 1)), length)
    found = (estimate.vectors * estimate.values) @ estimate.vectors.T
    np.testing.assert_allclose(found, GaussianChain(length).covariance, atol=0.05)


@pytest.mark.parametrize("windows", [2, 20])
def test_few_or_smooth_windows_give_a_covariance_all_the_same(windows: int) -> None:
    """Sines of one frequency: their covariance is singular, and the lags of few windows are not even consistent."""
    phase = torch.rand(windows, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6
    series = torch.sin(0.3 * torch.arange(12.0)[None, :, None] + phase)
    series = torch.cat([series, series[..., :1]], dim=-1)  # a channel that is there twice
    lags = lag_covariances(series, 6)
    for length in (3, 7, 60):
        matrix = block_toeplitz(continued(lags, length))
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
        assert float(torch.linalg.eigvalsh(matrix)[0]) > 0
        assert float(matrix.abs().max()) <= 1.01 * float(lags[0].abs().max())


def test_a_matrix_that_is_too_large_is_refused() -> None:
    with pytest.raises(OptionError, match=r"3000 states of 2 values is too large, expected at most 4096.*times="):
        TrajectoryCovariance.estimate(torch.zeros(2, 8, 2), 3000)
