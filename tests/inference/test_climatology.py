"""Anomalies inside, physical units outside: a prior that knows nothing but the climatology gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from seasons import autoregressive, gridded, hours
from white import white_prior

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.evidence import screen
from sdaxr.observations.observe import operator_for
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import background_network
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError

TIMES = hours(24 * 40)
DAY = 2 * np.pi * TIMES.dt.hour.values / 24
MEAN, STD = 280 + 6 * np.cos(DAY - 1), 2 * np.exp(0.7 * np.cos(DAY))
CPU = torch.device("cpu")
QUICK = {"members": 300, "progress": False, "sampler": {"steps": 24}}


def record() -> xr.Dataset:
    return gridded(MEAN[:, None] + STD[:, None] * autoregressive(TIMES.size, 8, 0.5), TIMES)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return white_prior(record(), normalise="climatology")


@pytest.fixture(scope="module")
def ahead() -> xr.DataArray:
    """A day that begins in the evening, months after the training."""
    return hours_from(12, 24)


def hours_from(first: int, count: int) -> xr.DataArray:
    values = np.datetime64("2001-07-09T00", "ns") + (first + np.arange(count)) * np.timedelta64(1, "h")
    return xr.DataArray(values, dims="time", name="time", coords={"time": values})


def stations(times: xr.DataArray, value: np.ndarray, error: float) -> xr.Dataset:
    """Two measurements an hour, at points of the grid."""
    count = 2 * times.size
    at = {"time": ("obs", np.repeat(times.values, 2)), "y": ("obs", np.tile([0.0, 1.0], times.size))}
    seen = {"t2m": ("obs", np.repeat(value, 2), {"units": "K"}), "t2m_error": ("obs", np.full(count, error))}
    return xr.Dataset(seen, at | {"x": ("obs", np.full(count, 2.0))})


def test_without_information_the_posterior_is_the_climatology(prior: Prior, ahead: xr.DataArray) -> None:
    mean, std = prior.layout.moments(ahead)
    seen = stations(ahead, mean[:, 0, 0, 2] + 100, 1e5)
    found = sdaxr.assimilate(seen, prior, times=ahead, **QUICK).t2m
    error = std[:, 0] / 300**0.5
    np.testing.assert_array_less(abs(found.mean("member").values - mean[:, 0]) / error, 4.5)
    np.testing.assert_allclose(found.std("member") / std[:, 0], 1, atol=0.22)
    assert np.ptp(found.mean(("member", "y", "x")).values) > 9


def test_an_analysis_is_the_optimal_one_with_the_variance_of_the_hour(prior: Prior, ahead: xr.DataArray) -> None:
    """White states: each observed value by itself, between climatology and observation by their variances."""
    mean, std = (a[:, 0, 0, 2] for a in prior.layout.moments(ahead))
    seen = stations(ahead, mean + 2 * std, 1.5)
    found = sdaxr.assimilate(seen, prior, times=ahead, **QUICK).t2m.isel(y=0, x=2)
    gain = std**2 / (std**2 + 1.5**2)
    np.testing.assert_allclose((found.mean("member") - mean) / (2 * std), gain, atol=0.12)
    np.testing.assert_allclose(found.std("member") / std, np.sqrt(1 - gain), atol=0.12)


def test_a_forecast_goes_on_with_the_cycle(prior: Prior) -> None:
    start = record().isel(time=slice(-4, None)).expand_dims(member=[0, 1, 2]).transpose("member", ...)
    found = sdaxr.forecast(start, prior, steps=24, seed=1, progress=False).t2m
    mean, std = prior.layout.moments(found.valid_time)
    anomaly = (found.transpose("lead_time", "member", "y", "x").values - mean) / std
    assert abs(anomaly.mean()) < 0.15 and anomaly.std() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("form", ["points", "grid"])
def test_scales_are_those_of_the_hour(prior: Prior, ahead: xr.DataArray, form: str) -> None:
    mean, std = (a[:, 0, 0, 2] for a in prior.layout.moments(ahead))
    if form == "points":
        many = [stations(ahead, mean, 1.0) for _ in range(40)]
        seen = xr.concat(many, "obs").assign_coords(x=("obs", np.repeat(np.linspace(0, 3, 40), 48)))
        found = screen(seen, operator_for(seen), prior, ahead, CPU, Screening())
        hour = np.tile(np.repeat(np.arange(24), 2), 40)
    else:
        template = prior.layout.template(ahead)
        seen = template.assign(t2m=template.t2m + mean[:, None, None], t2m_error=1.0)
        seen.t2m.attrs["units"] = "K"
        found = screen(seen, op.identity(), prior, ahead, CPU, Screening())
        hour = np.repeat(np.arange(24), 8)
    by_hour = np.array([found.scale.numpy()[hour == h].mean() for h in range(24)])
    ratio = by_hour / std
    assert np.ptp(std) > 2 and by_hour.max() / by_hour.min() > (2.2 if form == "points" else 1.4)
    assert ratio.max() / ratio.min() < std.max() / std.min() / 1.3


def test_values_are_judged_by_the_hour(prior: Prior, ahead: xr.DataArray) -> None:
    """A night's frost at noon is a gross error; the same distance from the mean is none where the spread is larger."""
    mean, std = (a[:, 0, 0, 2] for a in prior.layout.moments(ahead))
    calm = int(std.argmin())
    seen = stations(ahead, mean, 0.1)
    seen["t2m"].values[2 * calm] = mean[calm] + 8 * std[calm]
    seen["t2m"].values[2 * int(std.argmax())] = mean[std.argmax()] + 8 * std[calm]
    found = screen(seen, operator_for(seen), prior, ahead, CPU, Screening(gross_error=5))
    assert np.flatnonzero(found.points.status["t2m"] != 0).tolist() == [2 * calm]


def test_absurd_errors_are_those_of_the_prior(prior: Prior, ahead: xr.DataArray) -> None:
    mean = prior.layout.moments(ahead)[0][:, 0, 0, 2]
    with pytest.raises(DataError, match=r"has the error 1e\+09, .* times the prior's standard deviation"):
        sdaxr.assimilate(stations(ahead, mean, 1e9), prior, times=ahead, **QUICK)
    with pytest.raises(DataError, match="the usual number for a missing value"):
        sdaxr.assimilate(stations(ahead, mean * 0 - 9999, 1.0), prior, times=ahead, **QUICK)


def test_a_background_counts_with_the_hour(prior: Prior, ahead: xr.DataArray) -> None:
    """With a background of small error, gross errors of the first hour are those against it."""
    mean, std = (a[:, 0, 0, 2] for a in prior.layout.moments(ahead))
    value = mean.copy()
    value[0] += 6 * std[0]
    seen = stations(ahead, value, 0.1)
    first = prior.layout.template(ahead[:1]).isel(time=0, drop=True)
    first = first.assign(t2m=first.t2m + value[0], t2m_error=first.t2m + 0.2)
    network = background_network(first.assign(t2m=first.t2m.assign_attrs(units="K")), ahead)
    how = Screening(gross_error=4)
    alone = screen(seen, operator_for(seen), prior, ahead, CPU, how)
    given = screen(seen, operator_for(seen), prior, ahead, CPU, how, background=network)
    assert alone.points.status["t2m"][:2].all() and not given.points.status["t2m"][:2].any()


def test_noise_is_removed_by_its_share_of_the_hour(prior: Prior) -> None:
    clean = record().isel(time=slice(0, 24))
    noisy = clean + 1.5 * np.random.default_rng(3).normal(size=clean.t2m.shape)
    noisy = noisy.assign(t2m=noisy.t2m.assign_attrs(units="K"))
    found = sdaxr.denoise(noisy, prior, error=1.5, members=200, progress=False).t2m
    mean, std = (a[:, 0] for a in prior.layout.moments(clean.time))
    gain = std**2 / (std**2 + 1.5**2)
    expected = mean + gain * (noisy.t2m.values - mean)
    assert np.abs((found.mean("member") - expected) / (std * np.sqrt(1 - gain))).max() < 0.4
    assert found.dims == ("member", "time", "y", "x")


def test_windows_after_another_stay_on_the_cycle(prior: Prior, ahead: xr.DataArray) -> None:
    """The background of a window is a forecast for its first hour; without information, all have its climatology."""
    mean, std = prior.layout.moments(ahead)
    seen = stations(ahead, mean[:, 0, 0, 2], 1e5)
    found = sdaxr.cycle(seen, prior, window=8, times=ahead, **QUICK).t2m
    np.testing.assert_array_less(abs(found.mean("member").values - mean[:, 0]) / (std[:, 0] / 300**0.5), 5)
