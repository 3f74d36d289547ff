"""Samplers against closed forms: of a Gaussian, every level's density, every step and every correction is known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gaussian import GaussianChain, affine_moments

from sdaxr.posterior.guidance import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import (
    DDIM,
    GRIDS,
    SAMPLERS,
    DPMSolver,
    Langevin,
    Predictor,
    Sampler,
    ScoreLangevin,
    build_sampler,
    karras_levels,
    levels_of,
    log_snr_levels,
    uniform_levels,
)
from sdaxr.posterior.settings import DEFAULTS, PAPER, Sampling, resolve_sampling
from sdaxr.schema import DivergenceError, OptionError

LENGTH = 6
CHAIN = GaussianChain(LENGTH)
SHAPE = (LENGTH, 2)

PREDICTORS = {
    "exponential": DDIM(0.0),
    "ddim": DDIM(0.5),
    "ancestral": DDIM(1.0),
    "dpm++": DPMSolver(0.0),
    "sde-dpm++": DPMSolver(1.0, below=math.inf),
    "sde-dpm++ late": DPMSolver(1.5),
}


def draws(seed: int, members: int, length: int = LENGTH) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, length, 2, generator=generator, dtype=torch.float64)


def variances(cov: np.ndarray) -> np.ndarray:
    """Variance in each direction of the prior's eigenvectors."""
    return np.einsum("ij,ik,kj->j", CHAIN.vectors, cov, CHAIN.vectors)


def error_at_the_end(predictor: Predictor, steps: int, corrector: Langevin | None = None) -> float:
    """Largest error of a variance at the last level, relative; v + r^2 is right."""
    levels = log_snr_levels(steps, 300.0, 0.1)[:-1]
    _, cov = affine_moments(Sampler(levels, predictor, corrector or Langevin()), CHAIN.denoise, SHAPE)
    return float(np.abs(variances(cov) / (CHAIN.values + levels[-1] ** 2) - 1).max())


# Predictors


@pytest.mark.parametrize(("name", "order"), [("exponential", 1), ("ancestral", 1), ("dpm++", 2), ("sde-dpm++", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    coarse, fine, finest = (error_at_the_end(PREDICTORS[name], steps) for steps in (32, 64, 128))
    assert coarse / fine == pytest.approx(2**order, rel=0.15)
    assert fine / finest == pytest.approx(2**order, rel=0.15)
    assert fine < (0.12 if order == 1 else 0.006)


@pytest.mark.parametrize("name", ["exponential", "ancestral"])
def test_the_first_step_of_the_multistep_solver_is_the_one_of_first_order(name: str) -> None:
    eta = PREDICTORS[name].eta
    z, xhat, noise = draws(0, 3)(), draws(1, 3)(), draws(2, 3)()
    first = DDIM(eta)(z, xhat, None, 2.0, 1.4, lambda: noise)
    torch.testing.assert_close(DPMSolver(eta, below=math.inf)(z, xhat, None, 2.0, 1.4, lambda: noise), first)
    torch.testing.assert_close(DDIM(0.0)(z, xhat, None, 2.0, 1.0, lambda: noise), (z + xhat) / 2)


@pytest.mark.parametrize("predictor", PREDICTORS.values(), ids=PREDICTORS)
def test_a_step_keeps_the_variance_of_pure_noise(predictor: Predictor) -> None:
    """Where the data do not vary, z is x + r eps at every level, whatever part of eps is drawn anew."""
    x = draws(3, 1)()
    _, cov = affine_moments(Sampler((3.0, 0.9, 0.5), predictor, Langevin()), lambda z, r: x.expand_as(z), SHAPE)
    np.testing.assert_allclose(cov, 0.5**2 * np.eye(2 * LENGTH), atol=1e-12)


def test_noise_is_drawn_below_its_largest_level_only() -> None:
    drawn = []

    def noise() -> torch.Tensor:
        drawn.append(None)
        return torch.ones(1, *SHAPE, dtype=torch.float64)

    levels = log_snr_levels(9, 16.0, 1 / 16)
    Sampler(levels, DPMSolver(eta=1.0, below=1.0), Langevin())(CHAIN.denoise, noise)
    assert len(drawn) == 1 + sum(after > 0 and r <= 1 for r, after in pairwise(levels))
    drawn.clear()
    Sampler(levels, DPMSolver(eta=0.0), Langevin())(CHAIN.denoise, noise)
    assert len(drawn) == 1


# Corrections


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_langevin_corrections_keep_the_density_but_for_half_of_what_they_forget(tau: float) -> None:
    """Their stationary variance is V (2 - c) / (2 - c r^2 / V), V = v + r^2 in each direction, c = 1 - exp(-tau)."""
    r = 2.0
    sampler = Sampler((4.0, r), lambda z, *_: z, Langevin(250, tau, below=math.inf))
    _, cov = affine_moments(sampler, CHAIN.denoise, SHAPE)
    right, c = CHAIN.values + r**2, 1 - math.exp(-tau)
    np.testing.assert_allclose(variances(cov), right * (2 - c) / (2 - c * r**2 / right), rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_langevin_corrections_keep_the_noise_of_known_states(tau: float) -> None:
    """Where x is known, z is x + r eps after any number of corrections of any length."""
    x = draws(3, 1)()
    sampler = Sampler((4.0, 2.0), lambda z, *_: z, Langevin(40, tau, below=math.inf))
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
    corrector = ScoreLangevin(1, 0.02)
    for _ in range(300):
        z = corrector(z, chain.denoise(z, r), r, noise)
    white = torch.linalg.solve_triangular(spread, z.flatten(1).T, upper=False)
    assert float(white.square().mean()) == pytest.approx(1 + 2 / n, rel=0.1 if n < 10 else 0.035)


def test_slopes_are_taken_along_the_path_whatever_the_corrections_do() -> None:
    """d xhat / d lambda = xhat r^2 / (v + r^2) along the flow; the difference across a correction is no slope."""
    seen = []

    def record(z, xhat, slope, r, after, noise):
        seen.append((r, xhat, slope))
        return DPMSolver(0.0)(z, xhat, slope, r, after, noise)

    levels = log_snr_levels(60, 3.0, 0.2)
    corrections = Langevin(1, 0.5, below=math.inf)
    torch.manual_seed(0)
    Sampler(levels, record, corrections)(lambda z, r: z / (1 + r**2), draws(4, 500))
    (before, start, _), (r, xhat, slope) = seen[30:32]
    middle = math.sqrt(before * r)
    expected = start * middle**2 / (1 + middle**2)
    assert float((slope - expected).square().mean().sqrt()) < 0.05 * float(expected.square().mean().sqrt())
    across = (xhat - start) / math.log(before / r)
    assert float((across - expected).square().mean().sqrt()) > float(expected.square().mean().sqrt())


@pytest.mark.parametrize("name", ["dpm++", "sde-dpm++"])
def test_corrections_after_a_multistep_predictor_leave_the_density_where_it_is(name: str) -> None:
    """What remains with many levels is what each correction makes of it, half of what it forgets at most."""
    for count, tau in ((1, 0.2), (2, 0.02)):
        corrector = Langevin(count, tau, below=math.inf)
        assert error_at_the_end(PREDICTORS[name], 100, corrector) < -count * math.expm1(-tau) / 2


# Whole samplers

# Of what a correction of tau = 0.5 forgets: as much variance may be missing where many follow each other.
HALF = (1 - math.exp(-0.5)) / 2


def built(name: str, steps: int, corrections: int = 0, **options) -> Sampler:
    """A sampler as users get it."""
    about = DEFAULTS[name]
    settings = {"grid": about.grid, "eta": about.eta} | options
    return build_sampler(name, steps, corrections, about.tau, 80.0, 0.01, **settings)


@pytest.mark.parametrize(
    ("name", "corrections", "steps", "rel"),
    [
        ("sde-dpm++", 0, 64, 0.04),
        ("sde-dpm++", 1, 64, 0.15),
        ("dpm++", 0, 64, 0.02),
        ("dpm++", 1, 64, 0.15),
        ("ancestral", 0, 128, 0.1),
        ("ancestral", 1, 128, HALF),
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
        ("sde-dpm++", 1, 48, 0.12),
        ("dpm++", 0, 64, 0.02),
        ("dpm++", 1, 64, HALF),
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
    guided = SDA(CHAIN.denoise, [observed], lambda r: matrix @ torch.as_tensor(CHAIN.unresolved(r)) @ matrix.T)
    found, spread = affine_moments(built(name, steps, corrections), guided, SHAPE)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((found.reshape(SHAPE) - mean) / deviation).max() < 0.07
    blocks = np.einsum("lilj->lij", spread.reshape(*SHAPE, *SHAPE))
    assert np.abs((blocks - cov) / np.einsum("li,lj->lij", deviation, deviation)).max() < rel


@pytest.mark.parametrize(("tau", "least", "most"), [(0.02, 0.85, 1.4), (0.5, 1.8, 3.5)])
def test_the_papers_setting_needs_small_corrections_where_directions_differ(
    tau: float, least: float, most: float
) -> None:
    """Its step is a mean over all directions, too long for the tightest; not linear, so by Monte Carlo."""
    sampler = replace(PAPER, steps=64, tau=tau).build((0.005, 100.0))
    samples = sampler(CHAIN.denoise, draws(10, 1000)).flatten(1).numpy()
    ratio = variances(np.cov(samples.T)) / CHAIN.values
    assert 0.85 < ratio.min() < 1.4 and least < ratio.max() < most


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SAMPLERS)
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


def test_the_papers_setting_is_counted_as_in_the_paper() -> None:
    assert PAPER.build((0.005, 100.0)).evaluations == 512
    assert Sampling().build((0.005, 100.0)).evaluations == 65


# Levels


def test_levels_are_those_of_the_papers() -> None:
    karras = karras_levels(32, 80.0, 0.01)
    assert len(karras) == 33 and karras[-1] == 0
    assert karras[0] == pytest.approx(80) and karras[31] == pytest.approx(0.01)
    assert karras[16] == pytest.approx((80 ** (1 / 7) + 16 / 31 * (0.01 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    logarithmic = log_snr_levels(5, 100.0, 0.01)
    np.testing.assert_allclose(logarithmic, [100, 10, 1, 0.1, 0.01, 0])
    uniform = uniform_levels(256)
    assert len(uniform) == 257 and np.all(np.diff(uniform) < 0)
    assert uniform[0] == pytest.approx(1e3) and uniform[-1] == pytest.approx(1e-3)
    mu = np.cos(np.arccos(np.sqrt(1e-3)) * 0.5) ** 2
    assert uniform[128] == pytest.approx(np.sqrt(1 - mu**2 + 1e-6) / mu)
    assert levels_of("karras", 32, 80.0, 0.01) == karras
    assert levels_of("log-snr", 5, 100.0, 0.01) == logarithmic
    assert levels_of("uniform", 256, 80.0, 0.01) == uniform


@pytest.mark.parametrize("grid", ["karras", "log-snr"])
def test_one_level_is_the_largest(grid: str) -> None:
    assert levels_of(grid, 1, 80.0, 0.01) == pytest.approx((80.0, 0.0))


# Pins


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
        return DPMSolver(0.0)(z, xhat, slope, r, after, noise)

    levels = log_snr_levels(9, 16.0, 1 / 16)
    guided = _Pinned(until=0.9)
    Sampler(levels, record, Langevin(1))(guided, draws(0, 3))
    firsts = [next(what for what, r in guided.order if r == level) for level in levels[:-1]]
    assert firsts == ["pin"] * 9
    assert [r for what, r in guided.order if what == "pin"] == list(levels[:-1])
    assert guided.pinned == [r for r in levels if r >= 0.9]
    assert [r for r, slope in slopes.items() if slope is not None] == [r for r in levels if 0 < r < 0.9]


# Options and messages


def test_divergence_is_an_error_that_says_where() -> None:
    sampler = built("sde-dpm++", 8)
    for wrong in (lambda z, r: z * torch.nan, lambda z, r: z + 1e6):
        with pytest.raises(DivergenceError, match=r"noise level r = .*gamma"):
            sampler(wrong, draws(0, members=2))


def test_impossible_samplers_are_refused() -> None:
    for wrong, right in (("ancestrl", "ancestral"), ("sde-dpm", "sde-dpm++"), ("exponental", "exponential")):
        with pytest.raises(OptionError, match=rf"'{wrong}'.*Did you mean '{re.escape(right)}'"):
            build_sampler(wrong, 8, 0, 0.5, 20.0, 0.02, grid="karras", eta=1.0)
    with pytest.raises(OptionError, match=r"grid='log-nr'.*Did you mean 'log-snr'"):
        built("dpm++", 8, grid="log-nr")
    for bad in ({"steps": 0}, {"corrections": -1}, {"tau": -0.5}, {"eta": -1.0}):
        with pytest.raises(OptionError, match=f"{next(iter(bad))}=.*expected at least"):
            replace(Sampling(), **bad).build((0.01, 50.0))
    with pytest.raises(OptionError, match=r"eta=0.5, but sampler='ancestral' is defined by eta=1; .*'sde-dpm\+\+'"):
        built("ancestral", 8, eta=0.5)
    with pytest.raises(OptionError, match=r"eta=1.5, expected at most 1 for sampler='ddim'"):
        built("ddim", 8, eta=1.5)


def prior(**stored) -> SimpleNamespace:
    return SimpleNamespace(name="p", metadata={"sampling": stored})


def test_settings_are_the_users_then_the_priors_then_those_of_the_sampler() -> None:
    assert resolve_sampling(prior(), {"steps": None}) == Sampling() == DEFAULTS["sde-dpm++"]
    shipped = prior(steps=16, gamma=0.003, largest=10.0)
    assert resolve_sampling(shipped, {"eta": 1.0}) == replace(Sampling(), steps=16, gamma=0.003, largest=10.0, eta=1.0)
    # What was found best for one sampler is not for another one.
    other = resolve_sampling(shipped, {"sampler": "dpm++", "gamma": 0.1})
    assert other == replace(DEFAULTS["dpm++"], gamma=0.1, largest=10.0)
    levels = Sampling(largest=10.0, smallest=0.003).build((0.001, 80.0)).levels
    assert (max(levels), min(r for r in levels if r)) == pytest.approx((10.0, 0.003))
    recorded = resolve_sampling(prior(sampler="ddim", eta=0.2), {})
    assert recorded == replace(DEFAULTS["ddim"], eta=0.2)
    # The paper's setting stands as a whole.
    assert resolve_sampling(prior(steps=16, gamma=0.003), {"sampler": "exponential", "steps": 64}) == replace(
        PAPER, steps=64
    )
    with pytest.raises(OptionError, match=r"sampler='dpm'.*expected one of"):
        resolve_sampling(prior(), {"sampler": "dpm"})
    with pytest.raises(OptionError, match=r"records the sampling setting 'gama'.*Did you mean 'gamma'"):
        resolve_sampling(prior(gama=1.0), {})


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_defaults_that_build(name: str) -> None:
    assert DEFAULTS[name].sampler == name
    assert DEFAULTS[name].build((0.005, 100.0)).levels[0] >= 80
    assert set(DEFAULTS) == set(SAMPLERS)


# Samples that are thrown off


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
