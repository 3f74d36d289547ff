"""Analysis steps without the network's Jacobian against exact posterior means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenarios import CHAIN, draws, exact_mean, matrix_observation, scenario, white, white_mean

from sdaxr.posterior.covariance.base import Independent
from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance
from sdaxr.posterior.guidance.jacobian_free import JacobianFree
from sdaxr.schema import OptionError

LEVELS = [0.03, 0.5, 4.0, 50.0]


@pytest.mark.parametrize("case", ["full", "partial", "noisy"])
@pytest.mark.parametrize("r", LEVELS)
def test_it_is_exact_with_the_covariance_of_the_prior(case: str, r: float) -> None:
    matrix, y, error, _ = scenario(case)
    z = 3 * draws(7, members=5)()
    covariance = TrajectoryCovariance.from_matrix(torch.as_tensor(CHAIN.covariance))
    guided = JacobianFree(covariance=covariance).guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])
    found = guided(z, r).flatten(1)
    np.testing.assert_allclose(found, exact_mean(matrix, y, error, z, r), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("r", LEVELS)
def test_it_is_exact_for_white_noise_where_states_are_independent(r: float) -> None:
    matrix, y, error, _ = scenario("noisy")
    z = 3 * draws(7, members=5)()
    found = JacobianFree(covariance="independent").guide(white, [matrix_observation(matrix, y, error)])(z, r).flatten(1)
    np.testing.assert_allclose(found, white_mean(matrix, y, error, z, r), rtol=1e-6, atol=1e-8)


def test_nothing_goes_back_through_the_network() -> None:
    matrix, y, error, _ = scenario("partial")

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return CHAIN.denoise(z, r)

    guided = JacobianFree(covariance="independent").guide(denoise, [matrix_observation(matrix, y, error)])
    found = guided(draws(1, members=2)(), 1.0)
    assert not found.requires_grad


@pytest.mark.parametrize("covariance", [None, "covariance", "measured"])
def test_a_covariance_that_no_prior_has_given_yet_is_refused(covariance: str | None) -> None:
    matrix, y, error, _ = scenario("full")
    guided = JacobianFree(covariance=covariance).guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])
    with pytest.raises(OptionError, match=r"call resolve, or take Independent\(\)"):
        guided(draws(1, members=2)(), 1.0)


def test_a_measured_covariance_needs_modes() -> None:
    prior, times = CHAIN.prior(), CHAIN.truth(0).time
    assert JacobianFree().resolve(prior, times, torch.device("cpu")).covariance != Independent()
    with pytest.raises(OptionError, match="needs a prior that knows the modes of its fields, found the prior 'chain'"):
        JacobianFree(covariance="measured").resolve(prior, times, torch.device("cpu"))


def test_a_covariance_by_another_name_is_refused() -> None:
    matrix, y, error, _ = scenario("full")
    with pytest.raises(OptionError, match="unknown variance 'dependent'.*Did you mean 'independent'"):
        JacobianFree(covariance="dependent").guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])
