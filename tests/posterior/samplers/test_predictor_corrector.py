"""Samplers against closed forms: of a Gaussian, every level's density and every step is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian import affine_moments
from sampled import CHAIN, LENGTH, PREDICTORS, SHAPE, built, draws, error_at_the_end, variances

from sdaxr.posterior.covariance.variance import Matrix
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import GRIDS, log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import Predictor, PredictorCorrector
from sdaxr.posterior.samplers.registry import SAMPLERS
from sdaxr.schema import DivergenceError


@pytest.mark.parametrize(("name", "order"), [("exponential", 1), ("ancestral", 1), ("dpm++", 2), ("sde-dpm++", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    coarse, fine, finest = (error_at_the_end(PREDICTORS[name], steps) for steps in (32, 64, 128))
    assert coarse / fine == pytest.approx(2**order, rel=0.15)
    assert fine / finest == pytest.approx(2**order, rel=0.15)
    assert fine < (0.12 if order == 1 else 0.006)


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=PREDICTORS)
def test_a_step_keeps_the_variance_of_pure_noise(predictor: Predictor) -> None:
    """Where the data do not vary, z is x + r eps at every level, whatever part of eps is drawn anew."""
    x = draws(3, 1)()
    _, cov = affine_moments(
        PredictorCorrector((3.0, 0.9, 0.5), predictor, LangevinCorrector()), lambda z, r: x.expand_as(z), SHAPE
    )
    np.testing.assert_allclose(cov, 0.5**2 * np.eye(2 * LENGTH), atol=1e-12)


def test_slopes_are_taken_along_the_path_whatever_the_corrections_do() -> None:
    """d xhat / d lambda = xhat r^2 / (v + r^2) along the flow; the difference across a correction is no slope."""
    seen = []

    def record(z, xhat, slope, r, after, noise):
        seen.append((r, xhat, slope))
        return DPMStep(0.0)(z, xhat, slope, r, after, noise)

    levels = log_snr_levels(60, 3.0, 0.2)
    corrections = LangevinCorrector(1, 0.5, below=math.inf)
    torch.manual_seed(0)
    PredictorCorrector(levels, record, corrections)(lambda z, r: z / (1 + r**2), draws(4, 500))
    (before, start, _), (r, xhat, slope) = seen[30:32]
    middle = math.sqrt(before * r)
    expected = start * middle**2 / (1 + middle**2)
    assert float((slope - expected).square().mean().sqrt()) < 0.05 * float(expected.square().mean().sqrt())
    across = (xhat - start) / math.log(before / r)
    assert float((across - expected).square().mean().sqrt()) > float(expected.square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "corrections", "steps", "rel"),
    [
        ("sde-dpm++", 0, 64, 0.04),
        ("sde-dpm++", 1, 64, 0.04),
        ("dpm++", 0, 64, 0.02),
        ("dpm++", 1, 64, 0.06),
        ("ancestral", 0, 128, 0.1),
        ("ancestral", 1, 128, 0.05),
        ("ddim", 0, 128, 0.06),
        ("exponential", 0, 256, 0.06),
    ],
)
def test_samples_have_the_covariance_of_the_prior(name: str, corrections: int, steps: int, rel: float) -> None:
    mean, cov = affine_moments(built(name, steps, corrections), CHAIN.denoise, SHAPE)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(variances(cov), CHAIN.values, rtol=rel)
    off = CHAIN.vectors.T @ cov @ CHAIN.vectors
    np.testing.assert_allclose(off - np.diag(np.diag(off)), 0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "corrections", "steps", "rel"),
    [
        ("sde-dpm++", 0, 64, 0.05),
        ("sde-dpm++", 1, 48, 0.06),
        ("dpm++", 0, 64, 0.02),
        ("dpm++", 1, 64, 0.08),
        ("ancestral", 0, 128, 0.1),
        ("ddim", 0, 128, 0.06),
        ("exponential", 0, 256, 0.06),
    ],
)
def test_samples_of_a_posterior_have_the_moments_of_the_kalman_smoother(
    name: str, corrections: int, steps: int, rel: float
) -> None:
    sd, seen = 0.3, np.arange(LENGTH) % 2 == 0
    operator = np.broadcast_to([[1.0, 0.0]], (LENGTH, 1, 2))
    y = np.where(seen, CHAIN.draw(1, 3)[0, :, 0], np.nan)[:, None]
    mean, cov = CHAIN.smoother(operator, y, np.full((LENGTH, 1), sd))
    matrix = torch.as_tensor(np.kron(np.eye(LENGTH), [[1.0, 0.0]])[seen])
    ones = torch.ones(len(matrix), dtype=torch.float64)
    observed = GaussianObservation(lambda x: x.flatten(1) @ matrix.T, torch.as_tensor(y[seen, 0]), sd * ones, ones)
    guided = SDA(variance=Matrix(lambda r: matrix @ torch.as_tensor(CHAIN.unresolved(r)) @ matrix.T)).guide(
        CHAIN.denoise, [observed]
    )
    found, spread = affine_moments(built(name, steps, corrections), guided, SHAPE)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((found.reshape(SHAPE) - mean) / deviation).max() < 0.07
    blocks = np.einsum("lilj->lij", spread.reshape(*SHAPE, *SHAPE))
    assert np.abs((blocks - cov) / np.einsum("li,lj->lij", deviation, deviation)).max() < rel


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [name for name in SAMPLERS.names() if not SAMPLERS.kind(name).together])
@pytest.mark.parametrize("corrections", [0, 2])
def test_evaluations_are_counted_as_they_are_made(name: str, grid: str, corrections: int) -> None:
    calls, ticks = [], []

    def denoiser(z: torch.Tensor, r: float) -> torch.Tensor:
        calls.append(r)
        return CHAIN.denoise(z, r)

    sampler = built(name, 12, corrections, grid=grid)
    sampler(denoiser, draws(0, members=2), lambda: ticks.append(None))
    assert len(calls) == len(ticks) == sampler.evaluations
    assert all(a >= b for a, b in pairwise(calls)) and min(calls) > 0
    repeated = {r for r in calls if calls.count(r) > 1}
    everywhere = name == "exponential"
    lowest, highest = (1e-9, math.inf) if everywhere else (0.1, 3.0)
    assert repeated == {r for r in sampler.levels[1:] if corrections and lowest <= r <= highest}


class _Pinned:
    """A denoiser that knows a part of z at some levels, as SOAD does."""

    def __init__(self, until: float) -> None:
        self.until, self.pinned, self.order = until, [], []

    def __call__(self, z: torch.Tensor, r: float) -> torch.Tensor:
        self.order.append(("evaluate", r))
        if r in self.pinned:
            assert bool((z[:, 0] == 7.0).all()) or ("evaluate", r) in self.order[:-1]
        return CHAIN.denoise(z, r)

    def pin(self, z: torch.Tensor, r: float, noise: Callable[[], torch.Tensor]) -> torch.Tensor:
        self.order.append(("pin", r))
        if r < self.until:
            return z
        self.pinned.append(r)
        return torch.cat([torch.full_like(z[:, :1], 7.0), z[:, 1:]], dim=1)


def test_a_pin_comes_first_on_every_level_and_ends_the_path() -> None:
    slopes = {}

    def record(z, xhat, slope, r, after, noise):
        slopes[r] = slope
        return DPMStep(0.0)(z, xhat, slope, r, after, noise)

    levels = log_snr_levels(9, 16.0, 1 / 16)
    guided = _Pinned(until=0.9)
    PredictorCorrector(levels, record, LangevinCorrector(1))(guided, draws(0, 3), pin=guided.pin)
    firsts = [next(what for what, r in guided.order if r == level) for level in levels[:-1]]
    assert firsts == ["pin"] * 9
    assert [r for what, r in guided.order if what == "pin"] == list(levels[:-1])
    assert guided.pinned == [r for r in levels if r >= 0.9]
    assert [r for r, slope in slopes.items() if slope is not None] == [r for r in levels if 0 < r < 0.9]


def test_divergence_is_an_error_that_says_where() -> None:
    sampler = built("sde-dpm++", 8)
    for wrong in (lambda z, r: z * torch.nan, lambda z, r: z + 1e6):
        with pytest.raises(DivergenceError, match=r"noise level r = .*larger variance"):
            sampler(wrong, draws(0, members=2))


def test_a_sample_that_is_thrown_off_comes_back() -> None:
    """A kick at one level, far beyond any noise, is forgotten by a sampler with noise; all others do not notice."""

    def kicked(z: torch.Tensor, r: float) -> torch.Tensor:
        xhat = CHAIN.denoise(z, r)
        xhat[0] += 1e5 * (2.0 < r < 2.5)
        return xhat

    sampler = built("sde-dpm++", 64, corrections=3)
    noise, again = draws(1, members=50), draws(1, members=50)
    found, expected = sampler(kicked, noise), sampler(CHAIN.denoise, again)
    torch.testing.assert_close(found[1:], expected[1:])
    assert not torch.equal(found[0], expected[0]) and float(found[0].abs().max()) < 6
    with pytest.raises(DivergenceError, match="diverged at noise level"):
        replace(sampler, limit=math.inf)(kicked, draws(1, members=50))


def test_a_sample_that_has_not_come_back_is_an_error() -> None:
    def lost(z: torch.Tensor, r: float) -> torch.Tensor:
        return CHAIN.denoise(z, r) + 2.0 * (r < 0.02)

    with pytest.raises(DivergenceError, match="diverged at noise level r = 0.01"):
        built("sde-dpm++", 64)(lost, draws(1, members=3))
