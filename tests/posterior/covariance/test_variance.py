"""Variances of what is observed against closed forms: the bounded one against the posterior of white noise, for which
it is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenarios import CHAIN, draws, matrix_observation, scenario, white, white_mean

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.variance import Bounded, Matrix, Scalar
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.linear import Likelihood
from sdaxr.schema import OptionError


@pytest.mark.parametrize("r", [0.03, 0.5, 4.0, 50.0])
def test_it_is_exact_for_white_noise(r: float) -> None:
    matrix, y, error, _ = scenario("partial")
    observed = replace(matrix_observation(matrix, y, error), scale=torch.ones(len(y), dtype=torch.float64))
    z = 3 * draws(7, members=5)()
    found = SDA(variance=Bounded()).guide(white, [observed])(z, r).flatten(1)
    np.testing.assert_allclose(found, white_mean(matrix, y, error, z, r), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.02, 0.5])
def test_it_is_the_papers_at_small_levels_and_the_priors_at_large_ones(gamma: float) -> None:
    """gamma r^2 s^2 for small r, s^2 for large ones: an observation cannot be worse known than under the prior."""
    matrix, y, error, _ = scenario("noisy")
    observed = replace(matrix_observation(matrix, y, error), scale=torch.full((len(y),), 1.7, dtype=torch.float64))
    z = draws(7, members=2)()
    bounded, paper = (
        SDA(variance=Bounded(gamma=gamma)).guide(CHAIN.denoise, [observed]),
        SDA(variance=gamma).guide(CHAIN.denoise, [observed]),
    )
    small = 1e-3
    move = [guided(z, small) - CHAIN.denoise(z, small) for guided in (bounded, paper)]
    torch.testing.assert_close(move[0], move[1], rtol=1e-5, atol=0)
    large = 1e4
    capped = replace(observed, unresolved=lambda r: torch.full((len(y),), 1.7**2, dtype=torch.float64))
    torch.testing.assert_close(bounded(z, large), SDA().guide(CHAIN.denoise, [capped])(z, large), rtol=1e-5, atol=1e-9)
    assert float((paper(z, large) - bounded(z, large)).abs().max()) > 0.01


@pytest.mark.parametrize(("gamma", "message"), [(0.0, "above 0"), (-1.0, "above 0"), ("covariance", "a number")])
def test_only_positive_numbers_are_a_variance(gamma: float | str, message: str) -> None:
    with pytest.raises(OptionError, match=f"gamma={gamma!r}.*expected .*{message}"):
        Bounded(gamma=gamma)


@pytest.mark.parametrize("variance", [Bounded(gamma=0.3), Scalar(0.2), Matrix(lambda r: torch.eye(3).double() * 0.1)])
def test_the_slope_is_the_derivative_of_the_log_likelihood(variance: Uncertainty) -> None:
    matrix, y, error, _ = scenario("partial")
    likelihood = Likelihood([matrix_observation(matrix, y, error)])
    x, step = draws(5, members=4)(), 1e-4 * draws(6, members=4)()
    change = variance.log_likelihood(likelihood, x + step, 0.8) - variance.log_likelihood(likelihood, x - step, 0.8)
    expected = 2 * (variance.slope(likelihood, x, 0.8) * step).flatten(1).sum(1)
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-12)
