"""Score-based data assimilation against closed forms: a linear Gaussian chain has a Kalman smoother."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import GaussianChain
from scenarios import (
    CASES,
    CHAIN,
    FINE,
    LENGTH,
    assert_moments,
    draws,
    exact_gamma,
    exact_mean,
    matrix_observation,
    scenario,
    variance_ratio,
)

from sdaxr.posterior.covariance.unresolved import UnresolvedVariance
from sdaxr.posterior.covariance.variance import Matrix
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import karras_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector
from sdaxr.schema import OptionError


@pytest.mark.parametrize("case", CASES)
def test_sda_matches_the_kalman_smoother(case: str) -> None:
    matrix, y, error, (mean, cov) = scenario(case)
    observed = matrix_observation(matrix, y, error)
    guided = SDA(variance=Matrix(exact_gamma(matrix, observed.scale.numpy()))).guide(CHAIN.denoise, [observed])
    samples = FINE(guided, draws(5)).numpy()
    assert_moments(samples, mean, cov)
    assert variance_ratio(samples, cov) == pytest.approx(1.0, abs=0.03)


def test_two_networks_are_as_good_as_one() -> None:
    matrix, y, error, (mean, cov) = scenario("full")
    half = np.arange(len(y)) % 2 == 0
    parts = [matrix_observation(matrix[k], y[k], error[k]) for k in (half, ~half)]
    order = np.concatenate([np.flatnonzero(half), np.flatnonzero(~half)])
    scale = torch.cat([p.scale for p in parts]).numpy()
    samples = FINE(
        SDA(variance=Matrix(exact_gamma(matrix[order], scale))).guide(CHAIN.denoise, parts), draws(6)
    ).numpy()
    assert_moments(samples, mean, cov)


def test_exact_guidance_is_the_exact_posterior_mean_at_every_level() -> None:
    """E[x | z, y] has a closed form; guidance has to give it to rounding, the 1 / mu of the Jacobian included."""
    matrix, y, error, _ = scenario("partial")
    observed = matrix_observation(matrix, y, error)
    guided = SDA(variance=Matrix(exact_gamma(matrix, observed.scale.numpy()))).guide(CHAIN.denoise, [observed])
    z = 3 * draws(7, members=5)()
    for r in (0.03, 0.5, 4.0, 50.0):
        expected = exact_mean(matrix, y, error, z, r)
        np.testing.assert_allclose(guided(z, r).flatten(1), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.02, "measured"])
def test_score_is_the_gradient_of_the_log_likelihood(gamma: float | str) -> None:
    """Finite differences of log N(y | H(xhat(z)), R + r^2 Gamma) with a nonlinear H."""
    matrix, y, error, _ = scenario("noisy")
    h, values, errors = (torch.as_tensor(a) for a in (matrix, y, error))
    table = UnresolvedVariance((0.01, 10.0), torch.full((2, len(y)), 0.3, dtype=torch.float64))
    observed = GaussianObservation(
        lambda x: torch.atan(x.flatten(1) @ h.T), values, errors, 2 * torch.ones(len(y)), table
    )
    guided = SDA(variance=gamma).guide(CHAIN.denoise, [observed])
    r = 0.7

    def log_likelihood(z: torch.Tensor) -> float:
        variance = errors**2 + (table(r) if gamma == "measured" else 0.02 * (2 * r) ** 2)
        innovation = values - torch.atan(CHAIN.denoise(z, r).flatten(1) @ h.T)
        return float(-(innovation**2 / variance).sum() / 2)

    z = draws(8, members=1)()
    score = ((guided(z, r) - CHAIN.denoise(z, r)) / r**2).flatten()
    for i in range(0, 2 * LENGTH, 3):
        step = torch.zeros(2 * LENGTH, dtype=torch.float64)
        step[i] = 1e-4
        slope = (log_likelihood(z + step.reshape(z.shape)) - log_likelihood(z - step.reshape(z.shape))) / 2e-4
        assert float(score[i]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_bias_of_a_scalar_gamma_shrinks_with_corrections() -> None:
    """A scalar Gamma is no posterior at any r > 0; corrections at the last levels undo what it did on the way."""
    chain = GaussianChain(64)
    matrix, y, error, (mean, _) = scenario("partial", chain)
    scale = torch.ones(len(y), dtype=torch.float64)
    h = torch.as_tensor(matrix)
    observed = GaussianObservation(lambda x: x.flatten(1) @ h.T, torch.as_tensor(y), torch.as_tensor(error), scale)
    guided = SDA(variance=0.5).guide(chain.denoise, [observed])
    distance = {}
    for corrections in (0, 3, 9):
        sampler = PredictorCorrector(karras_levels(48, 20.0, 0.02), DDIMStep(1.0), LangevinCorrector(corrections))
        samples = sampler(guided, draws(9, members=200, length=64)).numpy()
        distance[corrections] = float(np.sqrt(((samples.mean(0) - mean) ** 2).mean()))
    assert distance[9] < distance[3] < distance[0]


def test_measured_variance_gives_nearly_the_smoother() -> None:
    """Only the correlation of the quantities given z is left out, which a sparse network hardly has."""
    matrix, y, error, (mean, cov) = scenario("partial")
    levels = tuple(np.geomspace(0.02, 20.0, 40))
    table = np.array([r**2 * np.diag(matrix @ CHAIN.unresolved(r) @ matrix.T) for r in levels])
    observed = replace(
        matrix_observation(matrix, y, error), unresolved=UnresolvedVariance(levels, torch.as_tensor(table))
    )
    samples = FINE(SDA().guide(CHAIN.denoise, [observed]), draws(15)).numpy()
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < 0.2
    assert variance_ratio(samples, cov) == pytest.approx(1.0, abs=0.1)


def test_a_variance_that_has_not_been_measured_is_an_error() -> None:
    matrix, y, error, _ = scenario("full")
    with pytest.raises(OptionError, match="has not been measured; choose Scalar"):
        SDA().guide(CHAIN.denoise, [matrix_observation(matrix, y, error)])(draws(0, members=1)(), 1.0)
