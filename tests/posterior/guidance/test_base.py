"""What the methods have in common: misfits, members, and the oracle that they are tested against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenarios import CASES, CHAIN, LENGTH, draws, matrix_observation, scenario

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.posterior.guidance.dmps import DMPS
from sdaxr.posterior.guidance.dps import DPS
from sdaxr.posterior.guidance.jacobian_free import JacobianFree
from sdaxr.posterior.guidance.mmps import MMPS
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.guidance.soad import SOAD
from sdaxr.posterior.likelihood import GaussianObservation


@pytest.mark.parametrize("case", CASES)
def test_kalman_smoother_is_the_gaussian_posterior(case: str) -> None:
    matrix, y, error, (mean, cov) = scenario(case)
    gain = CHAIN.covariance @ matrix.T @ np.linalg.inv(matrix @ CHAIN.covariance @ matrix.T + np.diag(error**2))
    expected = CHAIN.covariance - gain @ matrix @ CHAIN.covariance
    np.testing.assert_allclose((gain @ y).reshape(LENGTH, 2), mean, atol=1e-10)
    for i in range(LENGTH):
        np.testing.assert_allclose(expected[2 * i : 2 * i + 2, 2 * i : 2 * i + 2], cov[i], atol=1e-10)


def test_misfit_is_beyond_one_where_errors_cannot_explain_it() -> None:
    observed = GaussianObservation(lambda x: x.flatten(1), torch.zeros(8), torch.full((8,), 0.5), torch.ones(8))
    other = GaussianObservation(lambda x: x[:, :1, 0], torch.zeros(1), torch.ones(1), torch.ones(1))
    x = torch.zeros(3, 4, 2)
    x[1], x[2, 0, 0] = 0.5, 10.0
    misfit = SDA(variance=0.1).guide(CHAIN.denoise, [observed, other]).misfit(x)
    # The chi-squared distribution with 9 degrees of freedom is beyond 45.1 once in a million.
    expected = torch.tensor([0.0, (8 + 0.25) / 45.1, (400 + 100) / 45.1])
    torch.testing.assert_close(misfit, expected, rtol=0.01, atol=0)
    many = GaussianObservation(lambda x: x.flatten(1), torch.zeros(4000), torch.ones(4000), torch.ones(4000))
    assert float(SDA(variance=0.1).guide(CHAIN.denoise, [many]).misfit(torch.full((1, 2000, 2), 1.9))) < 1
    assert torch.equal(DPS().guide(CHAIN.denoise, [observed]).misfit(x), torch.zeros(3))


def test_observations_of_its_own_for_each_member() -> None:
    matrix, y, error, _ = scenario("full")
    observed = matrix_observation(matrix, y, error)
    own = replace(observed, values=torch.stack([observed.values, observed.values + 1, observed.values + 2]))
    guided = SDA(variance=0.1).guide(CHAIN.denoise, [own]).select(torch.tensor([2, 0]))
    z = draws(16, members=2)()
    shifted = SDA(variance=0.1).guide(CHAIN.denoise, [replace(observed, values=observed.values + 2)])
    torch.testing.assert_close(guided(z, 0.5)[:1], shifted(z[:1], 0.5))


# DPS is not here: DPS takes no covariance of errors.
METHODS = {
    "dmps": DMPS(),
    "jacobian_free": JacobianFree(covariance="independent"),
    "mmps": MMPS(iterations=16),
    "sda": SDA(variance=0.1),
    "soad": SOAD(variance="bounded"),
}


@pytest.mark.parametrize("name", METHODS)
def test_errors_that_share_biases_are_correlated_errors(name: str) -> None:
    """The low-rank form of a covariance and its matrix guide alike."""
    matrix, y, _, _ = scenario("full")
    random = np.random.default_rng(0)
    parts = random.uniform(0.1, 0.5, len(y)), np.arange(len(y)) % 3, random.normal(size=(len(y), 2))
    shared = SharedCovariance(*map(torch.as_tensor, parts))
    errors = shared.dense().diagonal().sqrt()
    low_rank = replace(matrix_observation(matrix, y, errors.numpy()), shared=shared)
    dense = replace(low_rank, shared=None, correlation=shared.dense() / torch.outer(errors, errors))
    z = draws(3, members=2)()
    one, two = (METHODS[name].guide(CHAIN.denoise, [network])(z, 0.8) for network in (low_rank, dense))
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    independent = METHODS[name].guide(CHAIN.denoise, [replace(low_rank, shared=None)])(z, 0.8)
    assert float((one - independent).abs().max()) > 1e-3
