"""Moment matching against the exact posterior mean of a linear Gaussian chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenarios import CHAIN, draws, exact_mean, matrix_observation, scenario

from sdaxr.posterior.covariance.variance import Scalar
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.guidance.mmps import MMPS
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.schema import OptionError


@pytest.mark.parametrize("case", ["partial", "noisy"])
@pytest.mark.parametrize("r", [0.03, 0.5, 4.0, 50.0])
def test_it_is_exact_with_as_many_steps_as_observations(case: str, r: float) -> None:
    matrix, y, error, _ = scenario(case)
    z = 3 * draws(7, members=5)()
    guided = MMPS(iterations=len(y)).guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])
    np.testing.assert_allclose(guided(z, r).flatten(1), exact_mean(matrix, y, error, z, r), rtol=1e-5, atol=1e-7)


def test_each_step_comes_nearer() -> None:
    matrix, y, error, _ = scenario("full")
    z, r = 3 * draws(7, members=5)(), 2.0
    exact = torch.as_tensor(exact_mean(matrix, y, error, z, r))
    observed = [matrix_observation(matrix, y, error)]
    guided = [MMPS(iterations=n).guide(CHAIN.denoise, observed) for n in (1, 2, 4, 8)]
    away = [float((each(z, r).flatten(1) - exact).abs().max()) for each in guided]
    assert away == sorted(away, reverse=True) and away[-1] < 0.02 * away[0]


def test_its_cost_is_counted_in_products() -> None:
    """The network's vector-Jacobian product is evaluated once a step; each after the first is a third of the cost."""
    matrix, y, error, _ = scenario("partial")
    products = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            products.append(None)
            return grad

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return Counted.apply(CHAIN.denoise(z, r))

    for steps in (1, 4):
        guided = MMPS(iterations=steps).guide(denoise, [matrix_observation(matrix, y, error)])
        products.clear()
        guided(draws(1, members=1)(), 1.0)
        assert len(products) == steps and guided.method.cost == 1 + (steps - 1) / 3


@pytest.mark.parametrize(("r", "method"), [(0.5, MMPS(iterations=2)), (2.0, SDA(variance=0.3))])
def test_above_a_level_it_is_sda(r: float, method: ScoreMethod) -> None:
    matrix, y, error, _ = scenario("partial")
    z, observed = 3 * draws(7, members=5)(), [matrix_observation(matrix, y, error)]
    both = MMPS(iterations=2, below=0.5, variance=0.3).guide(CHAIN.denoise, observed)
    torch.testing.assert_close(both(z, r), method.guide(CHAIN.denoise, observed)(z, r), rtol=0, atol=0)
    other = MMPS(iterations=2).guide(CHAIN.denoise, observed)(z, 2.0)
    assert float((both(z, 2.0) - other).abs().max()) > 1e-3


def test_no_step_is_refused() -> None:
    matrix, y, error, _ = scenario("full")
    with pytest.raises(OptionError, match="iterations=0 for MMPS, expected a whole number of at least 1"):
        MMPS(iterations=0).guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])


def test_a_variance_that_no_level_has_is_refused() -> None:
    with pytest.raises(OptionError, match="found variance=Scalar.* without below="):
        MMPS(variance=Scalar(0.3))
