"""Baselines by time of day and year."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from seasons import autoregressive, gridded, hours

from sdaxr.schema import DataError
from sdaxr.states.infer import infer_layout
from sdaxr.verification.baselines import climatology

TIMES = hours(24 * 40)
DAY = 2 * np.pi * TIMES.dt.hour.values / 24


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    values = 280 + 6 * np.cos(DAY)[:, None] + np.exp(0.7 * np.cos(DAY))[:, None] * autoregressive(TIMES.size, 8, 0.8)
    values[:, 2] = np.nan
    return gridded(values, TIMES)


def test_the_mean_is_that_of_the_prior(data: xr.Dataset) -> None:
    known, like = data.isel(time=slice(24 * 30)), data.isel(time=slice(24 * 30, None))
    found = climatology(known, like)
    layout = infer_layout(known, normalise="climatology")
    expected = np.where(layout.mask, layout.moments(like.time)[0], np.nan)[:, 0]
    np.testing.assert_allclose(found.t2m, expected, rtol=1e-12)
    assert found.t2m.dims == ("time", "y", "x") and found.t2m.attrs["units"] == "K"
    np.testing.assert_allclose(found.t2m[:, 0, 0], 280 + 6 * np.cos(DAY[24 * 30 :]), atol=0.6)


def test_states_are_drawn_as_anomalies(data: xr.Dataset) -> None:
    like = data.isel(time=slice(24)).rename(time="valid_time")
    found = climatology(data, like, members=400, seed=1).t2m.isel(y=0, x=0)
    np.testing.assert_allclose(found.mean("member"), 280 + 6 * np.cos(DAY[:24]), atol=0.5)
    np.testing.assert_allclose(np.log(found.std("member")), 0.7 * np.cos(DAY[:24]), atol=0.3)
    assert found.dims == ("member", "time") or found.dims == ("member", "valid_time")


@pytest.mark.parametrize("change", ["model time", "irregular", "short"])
def test_other_times_have_the_mean_of_all(data: xr.Dataset, change: str) -> None:
    random = np.sort(np.random.default_rng(0).choice(900, 300, replace=False))
    of = {
        "model time": data.assign_coords(time=np.arange(TIMES.size) * 1.0),
        "irregular": data.isel(time=random),
        "short": data.isel(time=slice(48)),
    }[change]
    found = climatology(of, of.isel(time=slice(3)))
    np.testing.assert_allclose(found.t2m[1], of.t2m.mean("time"))


def test_other_calendars_are_refused(data: xr.Dataset) -> None:
    other = data.assign_coords(time=hours(TIMES.size, calendar="noleap"))
    with pytest.raises(DataError, match="those of the trajectories"):
        climatology(data, other)
