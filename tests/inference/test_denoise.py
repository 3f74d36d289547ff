"""Denoising against the Wiener filter, which is exact for a Gaussian prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain, affine_moments
from scenarios import FINE

import sdaxr
from sdaxr.inference.denoise import GuidedRoute, LangevinRoute, ReverseRoute, denoise
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.states import observe_states
from sdaxr.schema import DataError, GridError, OptionError, UnitsError

LENGTH = 6
CHAIN = GaussianChain(LENGTH)
PRIOR = CHAIN.prior()


def wiener(y: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of the flattened chain for noise of standard deviations ``noise``."""
    gain = CHAIN.covariance @ np.linalg.inv(CHAIN.covariance + np.diag(noise**2))
    return gain @ y, CHAIN.covariance - gain @ CHAIN.covariance


def noisy(noise: tuple[float, float], seed: int = 1) -> tuple[xr.Dataset, np.ndarray]:
    """A trajectory with noise of two standard deviations (normalised), and its flattened normalised values."""
    random = np.random.default_rng(seed)
    x = CHAIN.draw(1, seed)[0] + np.array(noise) * random.normal(size=(LENGTH, 2))
    data = CHAIN.truth(seed)
    return data.assign({v: ("time", 280 + 2 * x[:, i], data[v].attrs) for i, v in enumerate("ab")}), x.ravel()


def normalised(data: xr.Dataset) -> np.ndarray:
    """Members as (member, 2 length)."""
    values = data[["a", "b"]].to_array().transpose("member", "time", "variable").values
    return ((values - 280) / 2).reshape(-1, 2 * LENGTH)


def assert_posterior(x: np.ndarray, mean: np.ndarray, cov: np.ndarray, *, bias: float, spread: float) -> None:
    """Mean within ``bias`` deviations (and Monte-Carlo error), variances within the share ``spread`` (and the same)."""
    deviation = np.sqrt(np.diag(cov))
    assert np.abs((x.mean(0) - mean) / deviation).max() < bias + 4.5 / np.sqrt(len(x))
    assert np.abs(x.var(0) / deviation**2 - 1).max() < spread + 4.5 * np.sqrt(2 / len(x))
    found = np.corrcoef(x.T) - cov / np.outer(deviation, deviation)
    assert np.abs(found).max() < spread + 4.5 / np.sqrt(len(x))


@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_reverse_diffusion_from_the_noisy_state_samples_the_posterior(noise):
    y = noisy((noise, noise))[1]
    generator = torch.Generator().manual_seed(0)
    start = torch.as_tensor(y).reshape(1, LENGTH, 2).expand(8000, -1, -1)
    route = ReverseRoute(noise, 32)
    x = route(CHAIN.denoise, start, lambda: torch.randn(start.shape, generator=generator, dtype=torch.float64))
    assert_posterior(x.flatten(1).numpy(), *wiener(y, np.full(2 * LENGTH, noise)), bias=0.01, spread=0.03)


def test_evaluations_are_counted():
    calls = []
    y = torch.zeros(1, LENGTH, 2)
    route = ReverseRoute(0.5, 7)
    route(lambda z, r: calls.append(r) or z, y, lambda: torch.zeros_like(y))
    assert len(calls) == route.evaluations
    assert calls[0] == max(calls) == pytest.approx(0.5)


def test_equal_shares_of_noise_need_no_guidance_and_give_the_posterior():
    data, y = noisy((0.6, 0.6))
    clean = denoise(data, PRIOR, error=1.2, members=300, seed=3, progress=False)
    assert clean.attrs["denoising_noise_level"] == pytest.approx(0.6)
    assert clean.a.dims == ("member", "time") and clean.a.attrs["units"] == "K"
    assert clean.member.attrs["standard_name"] == "realization"
    xr.testing.assert_equal(clean.time, data.time)
    assert_posterior(normalised(clean), *wiener(y, np.full(2 * LENGTH, 0.6)), bias=0.02, spread=0.03)


def test_guidance_gives_the_posterior_where_errors_are_independent():
    """States that know nothing of each other, without Monte Carlo: the sampler is an affine map of its noise."""
    chain, noise, r = GaussianChain(LENGTH, damping=0.0), np.array([0.3, 1.0]), np.geomspace(0.005, 100.0, 60)
    y = np.array([1.0, -2.0]) + chain.draw(1, 1)[0]
    table = torch.as_tensor(r**2 / (1 + r**2))[:, None].expand(-1, 2)
    variance = UnresolvedVariance(tuple(r), table)
    errors = torch.as_tensor(noise)
    route = GuidedRoute(FINE, errors, lambda values, e: observe_states(values, e, variance), SDA())
    values = torch.as_tensor(y)[None]
    mean, cov = affine_moments(lambda denoiser, draw: route(denoiser, values, draw), chain.denoise, (LENGTH, 2))
    np.testing.assert_allclose(mean.reshape(LENGTH, 2), y / (1 + noise**2), atol=0.01)
    np.testing.assert_allclose(
        np.diag(cov).reshape(LENGTH, 2), np.tile(noise**2 / (1 + noise**2), (LENGTH, 1)), rtol=0.03
    )
    np.testing.assert_allclose(cov - np.diag(np.diag(cov)), 0, atol=1e-6)


def test_noise_that_differs_between_variables_is_guided():
    data, y = noisy((0.3, 1.0))
    clean = denoise(data, PRIOR, error={"a": 0.6, "b": 2.0}, members=4000, seed=3, progress=False)
    assert "denoising_noise_level" not in clean.attrs
    # The default sampler's corrections leave out a part of the variance (posterior/samplers/test_langevin.py).
    x, (mean, cov) = normalised(clean), wiener(y, np.tile([0.3, 1.0], LENGTH))
    assert np.abs((x.mean(0) - mean) / np.sqrt(np.diag(cov))).max() < 0.15
    ratio = x.var(0) / np.diag(cov)
    assert ratio.min() > 0.75 and ratio.max() < 1.05


def test_langevin_is_the_linear_iteration_of_a_gaussian():
    y, level, eta, steps = noisy((0.5, 0.5))[1], 0.2, 0.01, 25
    generator = torch.Generator().manual_seed(0)
    start = torch.as_tensor(y).reshape(1, LENGTH, 2).expand(8000, -1, -1)
    route = LangevinRoute(level, eta, steps)
    x = route(CHAIN.denoise, start, lambda: torch.randn(start.shape, generator=generator, dtype=torch.float64))
    one = np.eye(2 * LENGTH)
    step = one - eta * np.linalg.inv(CHAIN.covariance + level**2 * one)
    mean, cov = y, 0 * one
    for _ in range(steps):
        mean, cov = step @ mean, step @ cov @ step.T + 2 * eta * one
    assert_posterior(x.flatten(1).numpy(), mean, cov, bias=0.0, spread=0.0)


def test_langevin_of_no_steps_returns_the_noisy_fields():
    data, _ = noisy((0.5, 0.5))
    clean = denoise(data, PRIOR, error=1.0, method="langevin", steps=0, progress=False)
    assert clean.a.dims == ("time",)
    np.testing.assert_allclose(clean.a, data.a, rtol=1e-6)


def test_fields_on_the_same_grid_in_another_order_keep_their_labels():
    layout = sdaxr.open_prior("kolmogorov").layout
    data = layout.template(layout.times(0.0, 2))
    data = data.map(lambda v: (v + np.random.default_rng(0).normal(size=v.shape)).astype("float32"), keep_attrs=True)
    turned = data.isel(y=slice(None, None, -1)).roll(x=5, roll_coords=True)
    clean = denoise(turned, "kolmogorov", error=1.0, method="langevin", steps=0, device="cpu", progress=False)
    xr.testing.assert_allclose(clean.drop_attrs().sortby(["x", "y"]), data.drop_attrs())


@pytest.mark.parametrize("method", ["posterior", "langevin"])
def test_samples_depend_on_seed_entry_and_member_only(method):
    data = xr.concat([noisy((0.5, 0.5), seed)[0] for seed in (1, 2, 3)], "trajectory")
    options = {"error": 1.0, "method": method, "steps": 4, "progress": False}
    full = denoise(data, PRIOR, members=2, seed=5, **options)
    assert full.a.dims == ("member", "trajectory", "time")
    parts = denoise(data, PRIOR, members=2, seed=5, batch=2, **options)
    xr.testing.assert_allclose(full, parts, rtol=1e-5)
    first = denoise(data.isel(trajectory=0), PRIOR, seed=5, **options)
    np.testing.assert_allclose(full.a[0, 0], first.a, rtol=1e-5)
    other = denoise(data.isel(trajectory=0), PRIOR, seed=6, **options)
    assert np.abs(other.a - first.a).max() > 1e-2


def test_what_cannot_fit_is_refused_before_it_is_taken(monkeypatch, caplog):
    caplog.set_level("INFO", "sdaxr")
    data, options = noisy((0.5, 0.5))[0], {"steps": 2, "members": 4, "progress": False}
    for error in (1.0, {"a": 1.0, "b": 2.0}):
        denoise(data, PRIOR, error=error, batch=3, **options)
        assert "3 members a batch" in caplog.messages[-1] and "GB at most" in caplog.messages[-1]
    with monkeypatch.context() as patch:
        patch.setattr("sdaxr.posterior.execution.free_bytes", lambda device: 5e3)
        with pytest.raises(OptionError, match=r"a batch of 4 members takes .* free on cpu.* a smaller batch"):
            denoise(data, PRIOR, error=1.0, batch=4, **options)
        assert denoise(data, PRIOR, error=1.0, **options).sizes["member"] == 4
        assert "1 members a batch" in caplog.messages[-1]
    monkeypatch.setattr("sdaxr.inference.denoise.free_here", lambda: 100.0)
    with pytest.raises(OptionError, match=r"the denoised fields, in memory, take .* take fewer members"):
        denoise(data, PRIOR, error=1.0, **options)


def test_any_length_at_least_the_window():
    data, _ = noisy((0.5, 0.5))
    windowed = GaussianChain(3).prior(window=3)
    clean = denoise(data, windowed, error=1.0, steps=3, progress=False)
    assert clean.sizes["time"] == LENGTH
    with pytest.raises(DataError, match="at least its window of 3"):
        denoise(data.isel(time=slice(2)), windowed, error=1.0, progress=False)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"method": "posteriour"}, OptionError, "Did you mean 'posterior'"),
        ({}, {"error": 0.0}, OptionError, "expected a positive number in the units of the data"),
        ({}, {"error": float("nan")}, OptionError, "expected a number"),
        ({}, {"error": {"a": 1.0}}, OptionError, r"no value for \['b'\]"),
        ({}, {"error": {"a": 1.0, "c": 1.0}}, OptionError, "error for the variable 'c'"),
        ({}, {"members": 0}, OptionError, "members=0"),
        ({}, {"seed": -1}, OptionError, "seed=-1, expected a whole number of at least 0"),
        ({}, {"batch": 0}, OptionError, "batch=0, expected a whole number of at least 1"),
        ({}, {"steps": 1}, OptionError, "steps=1"),
        ({}, {"step_size": 0.1}, OptionError, "step_size is for method='langevin'"),
        ({}, {"method": "langevin", "step_size": -1.0}, OptionError, "step_size=-1"),
        ({"drop": "b"}, {}, DataError, "variable 'b'"),
        ({"units": "degC"}, {}, UnitsError, "convert it"),
        ({"nan": True}, {}, DataError, "not finite"),
        ({"step": 0.25}, {}, DataError, "the step 0.25"),
        ({"notime": True}, {}, DataError, "expected 'time' with its coordinate"),
        ({"member": True}, {"members": 2}, OptionError, "rename it"),
    ],
)
def test_bad_input_is_named(change, options, error, message):
    data, _ = noisy((0.5, 0.5))
    if "drop" in change:
        data = data.drop_vars(change["drop"])
    if "units" in change:
        data.a.attrs["units"] = change["units"]
    if "nan" in change:
        data["a"] = data.a.where(data.time > 0)
    if "step" in change:
        data["time"] = ("time", change["step"] * np.arange(LENGTH), {"units": "1"})
    if "notime" in change:
        data = data.isel(time=0)
    if "member" in change:
        data = data.expand_dims(member=2)
    with pytest.raises(error, match=message):
        denoise(data, PRIOR, **({"error": 1.0, "progress": False} | options))


def test_another_grid_is_refused():
    data = noisy((0.5, 0.5))[0].expand_dims(x=3, axis=-1)
    with pytest.raises(GridError, match=r"'a' has dimensions \('time', 'x'\), expected \(\) besides time"):
        denoise(data, PRIOR, error=1.0, progress=False)
