"""Names, time axes and messages that every part shares."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from sdaxr import schema
from sdaxr.schema import DataError, OptionError, SdaxrError, UnitsError
from sdaxr.states.coordinates import ensemble_dimension, is_latitude, is_longitude, layer_dimension, space_dimensions
from sdaxr.states.time import TimeAxis, elapsed, time_axis


def times(values: object, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, dims="time", name="time", attrs=attrs)


def axis_of(values: object, **attrs: str) -> TimeAxis:
    return time_axis(xr.Dataset(coords={"time": ("time", values, attrs)}))


def test_nearest_offers_the_right_name() -> None:
    assert schema.nearest("gama", ["gamma", "tau"]) == "'gama'; expected one of gamma, tau. Did you mean 'gamma'?"
    assert "Did you mean" not in schema.nearest("zzz", ["gamma", "tau"])


def test_errors_can_be_caught_as_the_usual_ones() -> None:
    assert issubclass(DataError, ValueError) and issubclass(DataError, SdaxrError)
    assert issubclass(schema.ArchiveError, OSError) and issubclass(OptionError, ValueError)


def test_dimensions_are_recognised_by_name_or_attributes() -> None:
    plain = xr.DataArray(np.zeros((2, 3, 4, 5, 6)), dims=("trajectory", "time", "level", "lat", "lon"))
    assert layer_dimension(plain) == "level"
    assert space_dimensions(plain) == ("lat", "lon")
    depth = ("z", [1.0, 2.0], {"positive": "down"})
    ocean = xr.DataArray(np.zeros((3, 2, 4)), {"z": depth}, ("time", "z", "site"))
    assert layer_dimension(ocean) == "z"
    assert space_dimensions(ocean) == ("site",)
    assert space_dimensions(xr.DataArray(np.zeros(3), dims="time")) == ()
    assert is_longitude("x", {"standard_name": "longitude"}) and is_longitude("Longitude")
    assert is_latitude("lat") and not is_latitude("x")


def test_one_ensemble_dimension() -> None:
    assert ensemble_dimension(xr.Dataset({"a": (("member", "time"), np.zeros((2, 2)))})) == "member"
    assert ensemble_dimension(xr.Dataset({"a": ("time", np.zeros(2))})) is None
    both = xr.Dataset({"a": (("member", "trajectory"), np.zeros((2, 2)))})
    with pytest.raises(DataError, match="expected at most one"):
        ensemble_dimension(both)


def test_every_kind_of_time_has_an_axis() -> None:
    assert axis_of(0.2 * np.arange(5), units="1") == TimeAxis("float", pytest.approx(0.2), "1", "")
    hourly = np.datetime64("2019-01-01") + np.arange(5) * np.timedelta64(1, "h")
    assert axis_of(hourly) == TimeAxis("datetime", 3600.0, "s", "proleptic_gregorian")
    assert axis_of(hourly - hourly[0]) == TimeAxis("timedelta", 3600.0, "s", "")
    days = xr.date_range("2000-02-27", periods=4, calendar="noleap", use_cftime=True)
    assert axis_of(days) == TimeAxis("cftime", 86400.0, "s", "noleap")


def test_elapsed_counts_in_the_units_of_the_axis() -> None:
    hourly = np.datetime64("2019-01-01") + np.arange(3) * np.timedelta64(1, "h")
    np.testing.assert_allclose(elapsed(times(hourly), hourly[1]), [-3600, 0, 3600])
    np.testing.assert_allclose(elapsed(times([1.0, 3.0]), 1.0), [0, 2])
    noleap = np.array([cftime.DatetimeNoLeap(2000, 2, 28), cftime.DatetimeNoLeap(2000, 3, 1)])
    np.testing.assert_allclose(elapsed(times(noleap), noleap[0]), [0, 86400])


def test_bad_time_axes_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match="expected a 'time' dimension with a coordinate"):
        time_axis(xr.Dataset({"a": ("t", [1.0, 2.0])}))
    with pytest.raises(DataError, match="expected a 'time' dimension with a coordinate"):
        time_axis(xr.Dataset({"a": ("time", [1.0, 2.0])}))
    with pytest.raises(DataError, match="has 1 value, expected at least two"):
        axis_of([1.0])
    with pytest.raises(DataError, match="not regular: the step after 2.0 is 3"):
        axis_of([0.0, 1.0, 2.0, 5.0])
    with pytest.raises(DataError, match="not regular"):
        axis_of([3.0, 2.0, 1.0])
    with pytest.raises(DataError, match="decode the times first"):
        axis_of(["a", "b"])


def test_units_are_compared_where_both_are_known() -> None:
    schema.check_units("t", None, "K")
    schema.check_units("t", "K", "K")
    with pytest.raises(UnitsError, match=r"'t' has units 'degC' in the data, expected 'K'.*attrs\['units'\] = 'K'"):
        schema.check_units("t", "degC", "K", "the data")


def test_version_is_text() -> None:
    assert schema.VERSION
