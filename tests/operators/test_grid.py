"""Operators that keep a part of the grid, or means of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from grids import TURN, plane, sphere

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_coarsen_means_blocks_and_coordinates():
    data = plane()
    found = op.coarsen(4).apply(data)
    xr.testing.assert_allclose(found, data.coarsen(x=4, y=4).mean())
    assert found["u"].attrs == {**data["u"].attrs, "cell_methods": "y: x: mean"}
    assert found.x.attrs == data.x.attrs
    assert op.Template.from_dataset(found).period("x") == TURN


def test_coarsen_refuses_a_factor_that_does_not_divide():
    with pytest.raises(OperatorError, match=r"factor 3 does not divide the 8 points of 'y'"):
        op.coarsen(3).apply(plane())
    with pytest.raises(OperatorError, match="factor is 0, expected a whole number of at least 1"):
        op.coarsen(0)
    with pytest.raises(OperatorError, match="factor is 2.5"):
        op.coarsen(2.5)


def test_coarsen_in_time_gives_mean_times():
    assert op.coarsen(2, dims="time").apply(sphere(times=4)).time.values[0] == np.datetime64("2019-03-01T00:30")
    calendar = xr.date_range("2000-02-28", periods=4, freq="D", calendar="360_day", use_cftime=True)
    found = op.coarsen(2, dims="time").apply(plane().assign_coords(time=calendar))
    assert found.time.values[1].isoformat() == "2000-02-30T12:00:00"


def test_a_state_vector_has_no_horizontal_dimension():
    state = xr.Dataset({"a": ("time", np.arange(4.0))}, {"time": np.arange(4.0)})
    with pytest.raises(OperatorError, match="expected a horizontal one"):
        op.coarsen(2).apply(state)
    np.testing.assert_array_equal(op.arctan().apply(state)["a"], np.arctan(np.arange(4.0)))
    assert float(op.time_difference().apply(state)["a"]) == 3


@pytest.mark.parametrize("operator", [op.coarsen, op.subsample])
def test_dimensions_that_may_not_be_horizontal_are_to_be_named(operator):
    data = plane()
    species = xr.concat([data, data, data, data], dim="species")
    with pytest.raises(OperatorError, match=r"\['species', 'y', 'x'\] of 'u', expected at most two"):
        operator(2).apply(species)
    assert operator(2, dims=("y", "x")).apply(species).sizes["species"] == 4
    named = species.isel(y=0).assign_coords(species=["oak", "pine", "fir", "elm"])
    with pytest.raises(OperatorError, match=r"of which \['species'\] have labels that are no numbers"):
        operator(2).apply(named)
    assert operator(2, dims="x").apply(named).sizes["species"] == 4


def test_subsample_takes_points_and_knows_when_the_period_breaks():
    data = plane()
    xr.testing.assert_identical(op.subsample(2, 1).apply(data), data.isel(x=slice(1, None, 2), y=slice(1, None, 2)))
    assert "period" not in op.subsample(3).apply(data).x.attrs
    with pytest.raises(OperatorError, match="offset 8 is beyond the 8 points"):
        op.subsample(2, offset=8).apply(data)
    with pytest.raises(OperatorError, match="Did you mean 'x'"):
        op.subsample(2, dims="xx").apply(data)


def test_region_selects_by_coordinate_also_downwards():
    data = sphere()
    found = op.region(lat=(30, 50), lon=(-10, 0)).apply(data)
    xr.testing.assert_allclose(found, data.sel(lat=slice(50, 30), lon=slice(-10, 0)))
    shifted = op.region(lon=(350, 360)).apply(data)
    np.testing.assert_array_equal(shifted.lon, found.lon)
    hours = op.region(time=("2019-03-01T01", "2019-03-01T02")).apply(data)
    assert hours.sizes["time"] == 2


def test_region_across_the_seam_is_in_order():
    lon = np.arange(0.0, 360.0, 30.0)
    data = sphere(lon=lon)
    assert op.Template.from_dataset(data).period("lon") == 360
    found = op.region(lon=(-60, 60)).apply(data)
    np.testing.assert_array_equal(found.lon, [-60, -30, 0, 30, 60])
    np.testing.assert_array_equal(found["t2m"], data["t2m"].isel(lon=[10, 11, 0, 1, 2]))
    np.testing.assert_array_equal(op.region(lon=(300, 60)).apply(data)["t2m"], found["t2m"])
    assert op.region(lon=(0, 360)).apply(data).sizes["lon"] == 12


CUT = np.arange(-20.0, 21.0, 5.0)


@pytest.mark.parametrize(
    ("lon", "bounds", "expected"),
    [
        (CUT, (350, 10), [-10, -5, 0, 5, 10]),
        (CUT, (-10, 10), [-10, -5, 0, 5, 10]),
        (CUT[::-1], (350, 10), [10, 5, 0, -5, -10]),
        (CUT % 360, (355, 5), [355, 360, 365]),
        (CUT % 360, (-5, 5), [355, 360, 365]),
        (CUT, (0, 360), CUT),
        (CUT, (-180, 180), CUT),
        (CUT, (15, 345), [-20, -15, 15, 20]),
        (np.arange(0.0, 360.0, 60.0), (300, 60), [300, 360, 420]),
        (np.arange(0.0, 360.0, 60.0), (0, 360), np.arange(0.0, 360.0, 60.0)),
    ],
)
def test_region_goes_from_low_up_to_high_on_the_circle(lon, bounds, expected):
    expected = np.asarray(expected, float)
    data = sphere(lon=lon)
    found = op.region(lon=bounds).apply(data)
    np.testing.assert_array_equal(found.lon, expected)
    places = [np.flatnonzero(lon % 360 == x % 360)[0] for x in expected]
    np.testing.assert_array_equal(found["t2m"], data["t2m"].isel(lon=places))


def test_region_on_a_line_takes_bounds_in_any_order():
    xr.testing.assert_identical(op.region(lat=(50, 30)).apply(sphere()), op.region(lat=(30, 50)).apply(sphere()))


def test_region_refuses_nonsense():
    with pytest.raises(OperatorError, match=r"no point of 'lat' lies between 80.0 and 90.0; .* 20.0 to 70.0"):
        op.region(lat=(80, 90)).apply(sphere())
    with pytest.raises(OperatorError, match=r"expected \(low, high\)"):
        op.region(lat=3)
    with pytest.raises(OperatorError, match="no dimension 'latitude'"):
        op.region(latitude=(1, 2)).apply(sphere())
    with pytest.raises(OperatorError, match="cannot be read"):
        op.region(time=("yesterday", "today")).apply(sphere())


def test_means_of_means_say_so():
    found = op.coarsen(2, dims="x").apply(op.coarsen(2, dims="y").apply(plane()))
    assert found["u"].attrs["cell_methods"] == "y: mean x: mean"


@pytest.mark.parametrize(
    ("bounds", "data", "message"),
    [
        ({}, plane(), "expected bounds such as region"),
        ({"x": ("low", "high")}, plane(), "does not compare with the float64 values of 'x'"),
        ({"x": (object(), 1.0)}, plane(), "is neither a number nor a date as text"),
        ({"time": (np.datetime64("2030-01-01"), "2030-02-01")}, sphere(), "no point of 'time' lies between"),
    ],
)
def test_bounds_that_cannot_be_met(bounds, data, message):
    with pytest.raises(OperatorError, match=message):
        op.region(**bounds).apply(data)


def test_region_of_time_differences():
    data = plane().assign_coords(time=np.arange(4) * np.timedelta64(6, "h").astype("m8[ns]"))
    found = op.region(time=("6h", "12h")).apply(data)
    np.testing.assert_array_equal(found.time, data.time[1:3])


@pytest.mark.parametrize(
    ("low", "high", "count"),
    [
        ("2019-03-01", "2019-03-02", 8),
        ("2019-03-02", "2019-03-01", 8),
        ("2019-03-02", "2019-03", 116),
        ("2019-03-01", "2019-03-02T06", 6),
        ("2019-03-01", np.datetime64("2019-03-02"), 5),
        ("2019-03-01", pd.Timestamp("2019-03-02"), 5),
        ("2019", "2019", 120),
    ],
)
def test_a_date_is_the_whole_period_that_it_names(low, high, count):
    data = sphere(times=120)
    data = data.assign_coords(time=data.time.values[0] + np.arange(120) * np.timedelta64(6, "h"))
    found = op.region(time=(low, high)).apply(data)
    assert found.sizes["time"] == count
    xr.testing.assert_identical(op.from_json(op.region(time=(low, high)).to_json()).apply(data), found)
    low, high = (high, low) if (low, high) == ("2019-03-02", "2019-03-01") else (low, high)
    xr.testing.assert_identical(found.time, data.sel(time=slice(low, high)).time)
