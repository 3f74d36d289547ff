"""Likelihoods of observations as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.posterior.likelihood import GaussianObservation, solve_positive
from sdaxr.schema import DivergenceError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_innovations_are_weighed_and_whitened_with_their_covariance(dtype: torch.dtype) -> None:
    random = np.random.default_rng(0)
    errors, values = random.uniform(0.2, 2.0, 5), random.normal(size=(3, 5))
    variance = random.uniform(0.0, 1.0, 5)
    correlation = np.exp(-np.abs(np.subtract.outer(np.arange(5), np.arange(5))) / 2)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    tensors = [torch.as_tensor(a, dtype=dtype) for a in (np.zeros(5), errors, np.ones(5))]
    parts = errors / 2, np.array([0, 1, 0, 1, 1]), np.sqrt(0.75) * errors[:, None]
    shared = SharedCovariance(torch.tensor(parts[0] ** 2), torch.tensor(parts[1]), torch.tensor(parts[2]))
    same = 0.25 * np.eye(5) + 0.75 * (parts[1][:, None] == parts[1])
    for c, r in ((np.eye(5), None), (correlation, None), (same, shared)):
        given = torch.as_tensor(c, dtype=dtype) if c is correlation else None
        observed = GaussianObservation(lambda x: x, *tensors, correlation=given, shared=r)
        assert observed.independent == (given is None and r is None)
        covariance = np.outer(errors, errors) * c
        np.testing.assert_allclose(observed.covariance, covariance, rtol=tolerance, atol=tolerance)
        y = torch.as_tensor(values, dtype=dtype)
        expected = np.linalg.solve(covariance + np.diag(variance), values.T).T
        np.testing.assert_allclose(observed.weigh(y, torch.as_tensor(variance, dtype=dtype)), expected, rtol=tolerance)
        white = observed.whiten(y)
        assert white.dtype == dtype
        distance = np.einsum("bi,bi->b", values, np.linalg.solve(covariance, values.T).T)
        np.testing.assert_allclose(white.square().sum(1), distance, rtol=tolerance)


@pytest.mark.parametrize(
    ("diagonal", "value", "message"),
    [
        ([1.0, 1.0], float("inf"), "right-hand side of a linear system is inf"),
        ([1.0, float("nan")], 1.0, "not positive definite or not finite"),
        ([1.0, -1.0], 1.0, "not positive definite or not finite"),
    ],
)
def test_systems_without_a_finite_solution_are_refused(diagonal: list[float], value: float, message: str) -> None:
    with pytest.raises(DivergenceError, match=message):
        solve_positive(torch.diag(torch.tensor(diagonal)), torch.full((1, 2), value))
