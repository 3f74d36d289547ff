"""States as anomalies from a climatology: there and back, in files, at times that the data do not have."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from seasons import autoregressive, gridded, hours, months

from sdaxr.schema import DataError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout


def record(times: xr.DataArray) -> xr.Dataset:
    """Fields with cycles of the mean and of the standard deviation, and a point of land."""
    day = 2 * np.pi * times.dt.hour.values / 24
    year = 2 * np.pi * times.dt.dayofyear.values / times.dt.days_in_year.values
    noise = np.exp(0.5 * np.cos(day) + 0.5 * np.cos(year))[:, None] * autoregressive(times.size, 8, 0.8)
    values = 280 + (5 * np.cos(day - 1) + 8 * np.cos(year))[:, None] + noise
    values[:, 5] = np.nan
    return gridded(values, times)


RECORDS = {
    "datetime": hours(24 * 30),
    "cftime": hours(24 * 30, calendar="noleap"),
    "360_day": hours(900, 24, "360_day"),
    "months": months(240),
}


@pytest.fixture(params=RECORDS)
def data(request: pytest.FixtureRequest) -> xr.Dataset:
    return record(RECORDS[request.param])


def test_there_and_back(data: xr.Dataset) -> None:
    layout = infer_layout(data, normalise="auto")
    assert layout.climatology is not None and layout.mean.shape == (1, 2, 4) and layout.mask is not None
    back = layout.to_physical(layout.to_array(data), data.time)["t2m"]
    np.testing.assert_allclose(back, data.t2m, rtol=1e-6)
    part = data.isel(time=slice(7, 12))
    np.testing.assert_array_equal(layout.to_array(part), layout.to_array(data)[7:12])
    both = xr.concat([part, part], "member")
    np.testing.assert_array_equal(layout.to_array(both)[1], layout.to_array(part))


def test_anomalies_have_no_cycle_and_unit_variance(data: xr.Dataset) -> None:
    array = infer_layout(data, normalise="climatology").to_array(data)
    assert array.std() * (8 / 7) ** 0.5 == pytest.approx(1, abs=0.02) and abs(array.mean()) < 0.01
    series = xr.DataArray(array[:, 0, 0], dims=("time", "x"), coords={"time": data.time})
    for unit in ("hour", "month"):
        groups = series.groupby(f"time.{unit}")
        assert float((groups.mean() ** 2).mean()) < 0.12
        assert 0.4 < float(groups.std().min()) < float(groups.std().max()) < 1.6


def test_a_file_holds_the_climatology(data: xr.Dataset) -> None:
    layout = infer_layout(data, normalise="climatology")
    again = StateLayout.from_file(*layout.to_file())
    assert str(again.climatology) == str(layout.climatology)
    for one, other in zip(layout.moments(data.time), again.moments(data.time), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = infer_layout(data)
    arrays, metadata = plain.to_file()
    assert plain.climatology is None and not any("climatology" in key for key in arrays | metadata)


def test_the_cycle_goes_on_after_the_data() -> None:
    layout = infer_layout(record(hours(24 * 30)), normalise="climatology")
    later = layout.times(np.datetime64("2031-07-01T00", "ns"), 48)
    mean, std = layout.moments(later)
    assert mean.shape == (48, 1, 2, 4) == std.shape
    np.testing.assert_allclose(mean[:24], mean[24:], rtol=1e-12)
    np.testing.assert_allclose(mean[:24], layout.moments(layout.times(np.datetime64("2001-01-05", "ns"), 24))[0])


def test_other_calendars_are_refused() -> None:
    layout = infer_layout(record(hours(24 * 30, calendar="noleap")), normalise="climatology")
    with pytest.raises(DataError, match="the states are of kind datetime, those of the climatology of kind cftime"):
        layout.to_array(record(hours(24)))
    with pytest.raises(DataError, match="have the calendar '360_day', those of the climatology 'noleap'"):
        layout.to_array(record(hours(24, calendar="360_day")))


def test_what_auto_stands_for() -> None:
    """Fields whose times cover a day or a year have a climatology, nothing else has one."""
    short, long = record(hours(48)), record(hours(24 * 30))
    assert infer_layout(short, normalise="auto").climatology is None
    assert infer_layout(long.isel(x=0, y=0, drop=True), normalise="auto").climatology is None
    assert infer_layout(long.isel(x=0, y=0, drop=True), normalise="climatology").climatology is not None
    counted = long.assign_coords(time=np.arange(long.sizes["time"]) * 1.0)
    assert infer_layout(counted, normalise="auto").mean.shape == (1, 1, 1)
    for data in (short, counted):
        with pytest.raises(DataError, match="normalise='climatology': .* neither resolve and cover days"):
            infer_layout(data, normalise="climatology")


def test_levels_variables_and_lazy_data() -> None:
    """Each channel has a climatology of its own; data on disk are the same."""
    one = record(hours(24 * 30))
    level = xr.DataArray([1.0, 3.0], dims="level", coords={"level": [500, 850]})
    data = xr.Dataset({"t": (one.t2m * level).assign_attrs(units="K"), "s": (one.t2m * 2).assign_attrs(units="Pa")})
    found = infer_layout(data, normalise="climatology")
    mean, std = found.moments(data.time[:24])
    np.testing.assert_allclose(mean[:, 1], 3 * mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(std[:, 2, :, 0], 2 * std[:, 0, :, 0], rtol=1e-5)
    lazy = infer_layout(data.chunk(time=100), normalise="climatology")
    np.testing.assert_array_equal(lazy.moments(data.time[:24])[0], mean)
