"""Guidance around z itself: exact for a prior that knows nothing, and wrong as its file says for others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import affine_moments
from scenarios import CHAIN, LENGTH, draws, matrix_observation, scenario

from sdaxr.posterior.guidance import DMPS
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import DPMSolver, Langevin, Sampler, log_snr_levels
from sdaxr.schema import OptionError


@pytest.mark.parametrize("case", ["full", "partial", "noisy"])
def test_it_is_exact_for_a_prior_that_knows_nothing(case: str) -> None:
    matrix, y, error, _ = scenario(case)
    z, r = 3 * draws(7, members=5)(), 1.3
    found = DMPS(lambda z, r: z, [matrix_observation(matrix, y, error)])(z, r).flatten(1)
    weighted = matrix.T / error**2
    precision = np.eye(2 * LENGTH) / r**2 + weighted @ matrix
    expected = np.linalg.solve(precision, (z.flatten(1).numpy() / r**2 + weighted @ y).T).T
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_one_number_has_the_variance_that_is_derived() -> None:
    """T^2 c R / ((c + T^2)(R + T^2)) by a deterministic sampler from level T."""
    c, error, top = 2.0, 0.8, 3.0
    one = torch.ones(1, dtype=torch.float64)
    observed = GaussianObservation(lambda x: x.flatten(1), 0 * one, error * one, one)
    guided = DMPS(lambda z, r: z * c / (c + r**2), [observed])
    square, wide = error**2, top**2
    sampler = Sampler(log_snr_levels(200, top, 1e-3), DPMSolver(0.0), Langevin())
    _, variance = affine_moments(sampler, guided, (1, 1))
    expected = wide * c * square / ((c + wide) * (square + wide))
    assert float(variance[0, 0]) == pytest.approx(expected, rel=0.01)


def test_an_operator_that_is_not_linear_is_refused() -> None:
    matrix, y, error, _ = scenario("full")
    observed = matrix_observation(matrix, y, error)
    bent = replace(observed, operator=lambda x: torch.atan(observed.operator(x)))
    for networks in ([bent], [observed, bent]):
        with pytest.raises(OptionError, match="method='dmps' is for linear operators"):
            DMPS(CHAIN.denoise, networks).check(draws(0, members=1)())
    DMPS(CHAIN.denoise, [observed]).check(draws(0, members=1)())
