"""Langevin corrections against their stationary densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import GaussianChain, affine_moments
from sampled import CHAIN, LENGTH, SHAPE, draws, variances

from sdaxr.posterior.samplers.exponential import Exponential
from sdaxr.posterior.samplers.langevin import LangevinCorrector, ScoreLangevinCorrector
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_many_langevin_corrections_have_the_density_exactly(tau: float) -> None:
    """Their stationary variance is right in each direction, known or not, whatever their length."""
    r = 2.0
    sampler = PredictorCorrector((4.0, r), lambda z, *_: z, LangevinCorrector(250, tau, below=math.inf))
    _, cov = affine_moments(sampler, CHAIN.denoise, SHAPE)
    np.testing.assert_allclose(variances(cov), CHAIN.values + r**2, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_langevin_corrections_leave_too_much_noise_by_a_quarter_of_a_square(count: int) -> None:
    """From V = v + r^2 the first one makes V + r^2 (c r / 2)^2 / V, c = 1 - exp(-tau); others shrink the excess."""
    r, c = 0.5, 1 - math.exp(-0.5)
    right = CHAIN.values + r**2
    root = torch.as_tensor((CHAIN.vectors * np.sqrt(right)) @ CHAIN.vectors.T)
    start = lambda z, *_: (z.flatten(1) / r @ root).reshape(z.shape)  # noqa: E731
    sampler = PredictorCorrector((r, r), start, LangevinCorrector(count, 0.5, below=math.inf))
    _, cov = affine_moments(sampler, CHAIN.denoise, SHAPE)
    kept = 1 - c * r**2 / right
    expected = right + r**4 * c**2 / 4 / right * kept ** (2 * (count - 1))
    np.testing.assert_allclose(variances(cov), expected, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_langevin_corrections_keep_the_noise_of_known_states(tau: float) -> None:
    """Where x is known, z is x + r eps after any number of corrections of any length."""
    x = draws(3, 1)()
    sampler = PredictorCorrector((4.0, 2.0), lambda z, *_: z, LangevinCorrector(40, tau, below=math.inf))
    mean, cov = affine_moments(sampler, lambda z, r: x.expand_as(z), SHAPE)
    np.testing.assert_allclose(cov, 4.0 * np.eye(2 * LENGTH), atol=1e-6)
    np.testing.assert_allclose(mean, x.numpy().ravel(), atol=1e-6)


@pytest.mark.parametrize("length", [2, 64])
def test_the_papers_corrections_inflate_the_covariance_by_two_over_the_dimension(length: int) -> None:
    """The step d = tau dim / |s|^2 depends on z, so that the density p |s|^2 is stationary (for small steps).

    For a Gaussian in n dimensions its variance is 1 + 2 / n of the right one: 1.5 for two states of two
    variables, 1.02 for 64 states, where nobody sees it.
    """
    chain = GaussianChain(length)
    r, n = 1.0, 2 * length
    members = 16_000 // length
    noise = draws(11, members, length)
    spread = torch.as_tensor(np.linalg.cholesky(chain.covariance + r**2 * np.eye(n)))
    z = (noise().flatten(1) @ spread.T).reshape(members, length, 2)
    corrector = ScoreLangevinCorrector(1, 0.02)
    for _ in range(300):
        z, _ = corrector(z, chain.denoise(z, r), r, noise)
    white = torch.linalg.solve_triangular(spread, z.flatten(1).T, upper=False)
    assert float(white.square().mean()) == pytest.approx(1 + 2 / n, rel=0.1 if n < 10 else 0.035)


@pytest.mark.parametrize(("tau", "least", "most"), [(0.02, 0.85, 1.4), (0.5, 1.8, 3.5)])
def test_the_papers_setting_needs_small_corrections_where_directions_differ(
    tau: float, least: float, most: float
) -> None:
    """Its step is a mean over all directions, too long for the tightest; not linear, so by Monte Carlo."""
    sampler = Exponential(steps=64, tau=tau).build((0.005, 100.0))
    samples = sampler(CHAIN.denoise, draws(10, 1000)).flatten(1).numpy()
    ratio = variances(np.cov(samples.T)) / CHAIN.values
    assert 0.85 < ratio.min() < 1.4 and least < ratio.max() < most
