"""Times: kinds, steps, which of them are the same, cycles."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.states.time import TimeAxis, elapsed, match_times, nearest_times, onto_times, phase, same_step, time_axis


def times(values: object, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, dims="time", name="time", attrs=attrs)


def axis_of(values: object, **attrs: str) -> TimeAxis:
    return time_axis(xr.Dataset(coords={"time": ("time", values, attrs)}))


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


def test_phases_of_cycles() -> None:
    noleap = xr.DataArray(
        xr.date_range("2000-01-01", periods=3, freq="D", calendar="noleap", use_cftime=True), dims="time"
    )
    np.testing.assert_allclose(phase(noleap, "day_of_year"), 2 * np.pi * np.arange(3) / 365.25)
    with pytest.raises(OptionError, match="Did you mean 'hour_of_day'"):
        phase(noleap, "hour_of_dy")
    six = xr.DataArray(np.datetime64("2019-05-01T06:00", "ns") + np.arange(2) * np.timedelta64(6, "h"), dims="time")
    np.testing.assert_allclose(phase(six, "hour_of_day"), [np.pi / 2, np.pi])
    with pytest.raises(DataError, match="expected a calendar"):
        phase(times([0.0, 1.0]), "hour_of_day")


KINDS = {
    "float": 0.2 * np.arange(6),
    "float32": (0.2 * np.arange(6)).astype("float32"),
    "timedelta": np.arange(6) * np.timedelta64(90, "m").astype("m8[ns]"),
    "datetime": np.datetime64("2019-03-01", "ns") + np.arange(6) * np.timedelta64(1, "h"),
    "cftime": xr.date_range("2001-02-27", periods=6, freq="12h", calendar="noleap", use_cftime=True).values,
}


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_found_in_any_order(kind: str) -> None:
    available = times(KINDS[kind][[5, 0, 3, 1]])
    np.testing.assert_array_equal(match_times(times(KINDS[kind][[1, 2, 5]]), available), [3, -1, 0])
    both = xr.DataArray(KINDS[kind][:4].reshape(2, 2), dims=("init_time", "lead_time"))
    np.testing.assert_array_equal(match_times(both, available), [[1, 3], [-1, 2]])


def test_times_are_the_same_up_to_a_thousandth_of_a_step() -> None:
    grid = times([0.0, 2.0, 4.0])
    np.testing.assert_array_equal(match_times(times([0.0019, 2.0021, 3.9981]), grid), [0, -1, 2])
    index, distance = nearest_times(np.array([-1.0, 0.9, 1.1, 5.0]), grid.values)
    np.testing.assert_array_equal(index, [0, 0, 1, 2])
    np.testing.assert_allclose(distance, [-0.5, 0.45, -0.45, 0.5])
    np.testing.assert_array_equal(match_times(times([3.0, 3.01]), times([3.0])), [0, -1])
    assert same_step(0.2, 0.20019) and not same_step(0.2, 0.2003)


def test_times_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="times of the background are of kind float, those of the window of kind date"):
        match_times(times([0.0]), times(KINDS["datetime"]), of="the background", like="the window")
    with pytest.raises(UnitsError, match="'time' has units 'h' in the estimate, expected 's'"):
        match_times(times([0.0], units="h"), times([0.0], units="s"))
    other = xr.date_range("2001-02-27", periods=6, freq="12h", calendar="360_day", use_cftime=True).values
    with pytest.raises(DataError, match="the estimate have the calendar '360_day', those of the truth 'noleap'"):
        match_times(times(other), times(KINDS["cftime"]))


def test_data_at_some_of_their_times() -> None:
    data = xr.DataArray(np.arange(4.0), {"time": [0.0, 0.2, 0.4, 0.6]}, ("time",))
    wanted = times(np.array([0.4, 0.0], "float32"))
    found = onto_times(data, wanted, of="where=", like="the observations")
    np.testing.assert_array_equal(found, [2.0, 0.0])
    np.testing.assert_array_equal(found.time, wanted)
    with pytest.raises(GridError, match="where= has 4 points from 0.0 to 0.6 in time, expected 0.7 among them"):
        onto_times(data, times([0.7]), of="where=", like="the observations")


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_a_calendar_has_a_phase(calendar: str) -> None:
    """Daily means at noon, and six-hourly fields from three o'clock on."""
    for start, freq, expected in (("1999-12-31T12:00", "D", 43200.0), ("2001-02-03T03:00", "6h", 10800.0)):
        start = start.replace("12-31", "12-30")
        values = xr.date_range(start, periods=4, freq=freq, calendar=calendar, use_cftime=calendar != "standard")
        assert time_axis(xr.Dataset(coords={"time": values})).phase == expected
    assert time_axis(xr.Dataset(coords={"time": [0.3, 0.5, 0.7]})).phase == 0.0
