"""What is unknown of the observed quantities given z, from a covariance of the states, against matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenarios import CHAIN, draws, matrix_observation, scenario

from sdaxr.posterior.covariance.base import Independent
from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance
from sdaxr.posterior.linear import Likelihood

R = 0.7
COVARIANCES = {
    "independent": (Independent(), R**2 / (1 + R**2) * np.eye(len(CHAIN.covariance))),
    "trajectory": (
        TrajectoryCovariance.from_matrix(torch.as_tensor(CHAIN.covariance)),
        R**2 * CHAIN.covariance @ np.linalg.inv(CHAIN.covariance + R**2 * np.eye(len(CHAIN.covariance))),
    ),
}


@pytest.mark.parametrize("name", COVARIANCES)
@pytest.mark.parametrize("case", ["full", "partial"])
def test_the_slope_of_the_likelihood_has_the_closed_form(name: str, case: str) -> None:
    """H^T (R + H V H^T)^-1 (y - H xhat)."""
    covariance, v = COVARIANCES[name]
    matrix, y, error, _ = scenario(case)
    xhat = draws(3, members=4)()
    likelihood = Likelihood([matrix_observation(matrix, y, error)])
    innovation = y - xhat.flatten(1).numpy() @ matrix.T
    expected = np.linalg.solve(matrix @ v @ matrix.T + np.diag(error**2), innovation.T).T @ matrix
    np.testing.assert_allclose(covariance.slope(likelihood, xhat, R).flatten(1), expected, rtol=1e-6, atol=1e-9)
    weighed = np.linalg.solve(matrix @ v @ matrix.T + np.diag(error**2), innovation.T).T
    log = covariance.log_likelihood(likelihood, xhat, R)
    np.testing.assert_allclose(log, -(innovation * weighed).sum(1) / 2, rtol=1e-6)
    np.testing.assert_allclose(
        covariance.product_everywhere(xhat, R).flatten(1), xhat.flatten(1).numpy() @ v, rtol=1e-6, atol=1e-9
    )


def test_what_does_not_depend_on_the_prior_is_the_same_for_every_prior() -> None:
    given = Independent()
    assert given.resolve(None, None, torch.device("cpu")) is given and not given.measured
