"""Networks, the times of their window, and the background as one more network."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from instruments import CALENDARS, make_truth, soundings

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import as_networks, background_network, operator_of, window_times
from sdaxr.schema import DataError, OperatorError, OptionError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout


def networks(truth: xr.Dataset, **options: int) -> dict[str, xr.Dataset]:
    """One network of the whole state."""
    return {"observations": observe(truth, op.identity(), error=0.1, **options).drop_vars("window")}


def test_observations_are_a_mapping_of_networks(truth: xr.Dataset) -> None:
    one = observe(truth, op.identity(), error=0.1)
    assert list(as_networks(one)) == ["observations"]
    assert list(as_networks({"a": one, "b": one})) == ["a", "b"]
    tree = xr.DataTree.from_dict({"/near/surface": one, "/far": one})
    assert set(as_networks(tree)) == {"near/surface", "far"}
    xr.testing.assert_identical(as_networks(tree)["far"], one)
    with pytest.raises(DataError, match="found no network"):
        as_networks({})


def test_operators_are_those_given_or_those_carried(truth: xr.Dataset) -> None:
    one = observe(truth, op.coarsen(2), error=0.1)
    assert operator_of("a", one, None) == op.coarsen(2)
    assert operator_of("a", one, op.arctan()) == op.arctan()
    assert operator_of("a", one, {"a": op.arctan()}) == op.arctan()
    with pytest.raises(OptionError, match="network 'b'; expected one of a"):
        operator_of("b", one, {"a": op.arctan()})
    with pytest.raises(OperatorError, match="expected an operator"):
        operator_of("a", one.assign_attrs(operator="{}"), None)


@pytest.mark.parametrize("times", CALENDARS)
def test_the_window_goes_from_the_first_to_the_last_observation(times: str) -> None:
    truth = make_truth(times)
    layout = infer_layout(truth)
    found = window_times(networks(truth, every=2, start=1), layout)
    expected = truth.time[1:6]
    np.testing.assert_array_equal(found.size, 5)
    if times == "float":
        np.testing.assert_allclose(found, expected)
    else:
        assert (found.values == expected.values).all()
    whole = window_times({"a": observe(truth, op.identity(), error=0.1, every=2, start=1)}, layout)
    assert whole.size == 6, "`window` says what the truth covers"


def test_several_networks_have_one_window(truth: xr.Dataset) -> None:
    both = {"a": networks(truth)["observations"].isel(time=[1, 2]), "b": soundings(truth).isel(obs=slice(0, 1))}
    both["b"] = both["b"].assign_coords(time=("obs", truth.time.values[[4]]))
    np.testing.assert_allclose(window_times(both, infer_layout(truth)), truth.time[1:5])


def test_times_that_are_asked_for(truth: xr.Dataset) -> None:
    layout, given = infer_layout(truth), networks(truth)
    np.testing.assert_allclose(window_times(given, layout, truth.time.values[2:5]), truth.time[2:5])
    np.testing.assert_allclose(window_times(given, layout, truth.time[2:5].astype("float32")), truth.time[2:5])
    np.testing.assert_allclose(window_times(given, layout, [0.6]), [0.6])
    with pytest.raises(DataError, match=r"times= has the step 0.4 \(float\), expected the prior's 0.2"):
        window_times(given, layout, [0.0, 0.4, 0.8])
    with pytest.raises(DataError, match="times of times= are of kind datetime, those of the model of kind float"):
        window_times(given, layout, CALENDARS["datetime"], "the model")


def test_windows_that_do_not_fit(truth: xr.Dataset) -> None:
    layout, data = infer_layout(truth), networks(truth)["observations"]
    off = data.isel(time=[0, 3]).assign_coords(time=[0.0, 0.65])
    with pytest.raises(DataError, match="time 0.65 .* 'a' is off the steps of the prior; the nearest step is 0.6"):
        window_times({"a": off}, layout)
    with pytest.raises(DataError, match=r"'a' \('time'\) are of kind datetime, those of the prior of kind float"):
        window_times({"a": data.assign_coords(time=CALENDARS["datetime"])}, layout)
    with pytest.raises(DataError, match="'a' has neither a 'time' nor a 'window' coordinate"):
        window_times({"a": data.isel(time=0, drop=True)}, layout)


@pytest.mark.parametrize("times", CALENDARS)
def test_a_background_is_observed_at_the_first_time(times: str) -> None:
    truth = make_truth(times)
    first = truth.isel(time=[0]).assign(u_error=0.1, v_error=0.2)
    for given in (first, first.isel(time=0), first.isel(time=0, drop=True)):
        found = background_network(given, truth.time)
        assert found.attrs["operator"] == op.identity().to_json() and found.sizes["time"] == 1
        assert found.time.values[0] == truth.time.values[0]
        np.testing.assert_array_equal(found.u, first.u)
        assert set(found.data_vars) == {"u", "v", "u_error", "v_error"}


def test_backgrounds_that_do_not_fit(truth: xr.Dataset) -> None:
    first = truth.isel(time=[0]).assign(u_error=0.1, v_error=0.2)
    near = first.assign_coords(time=[1e-5])
    assert background_network(near, truth.time).time.values[0] == 0.0
    with pytest.raises(DataError, match="the background is at 0.001, expected the first time of the window, 0.0"):
        background_network(first.assign_coords(time=[1e-3]), truth.time)
    with pytest.raises(DataError, match="the background is at 0.2"):
        background_network(first.assign_coords(time=[0.2]), truth.time)
    with pytest.raises(DataError, match="the background are of kind datetime, those of the window of kind float"):
        background_network(first.assign_coords(time=CALENDARS["datetime"][:1]), truth.time)
    with pytest.raises(DataError, match="the background has 6 times, expected one"):
        background_network(truth, truth.time)
    with pytest.raises(DataError, match="the background has 2 states along 'member'"):
        background_network(xr.concat([first, first], "member"), truth.time)


def reports(times: list[object], **attrs: str) -> xr.Dataset:
    """Measurements in the point form at these times."""
    n = len(times)
    at = {"time": ("obs", np.asarray(times), attrs), "y": ("obs", np.ones(n)), "x": ("obs", np.ones(n))}
    return xr.Dataset({"u": ("obs", np.zeros(n)), "u_error": ("obs", np.ones(n))}, at)


def six_hourly(hour: int, calendar: str = "standard") -> StateLayout:
    """Layout of the plane at four times of the day, the first at ``hour``."""
    start = f"2019-03-01T{hour:02d}:00"
    times = xr.date_range(start, periods=6, freq="6h", calendar=calendar, use_cftime=calendar != "standard")
    return infer_layout(make_truth().assign_coords(time=times))


@pytest.mark.parametrize(
    ("hour", "minutes", "expected"),
    [
        (0, [20], ["00:00", "06:00"]),
        (0, [0, 360], ["00:00", "06:00"]),
        (0, [-20, 360], ["18:00", "00:00", "06:00"]),
        (3, [0], ["21:00", "03:00"]),
        (3, [180, 200], ["03:00", "09:00"]),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_the_steps_of_a_calendar_are_those_of_the_training(
    hour: int, minutes: list[int], expected: list[str], calendar: str
) -> None:
    """Reports twenty minutes late do not move the clock of the trajectory."""
    cftime = calendar != "standard"
    start = xr.date_range("2020-01-05", periods=1, calendar=calendar, use_cftime=cftime).values[0]
    later = [datetime.timedelta(minutes=m) if cftime else np.timedelta64(m, "m") for m in minutes]
    times = [start + by for by in later]
    found = window_times({"o": reports(times)}, six_hourly(hour, calendar))
    assert [f"{t.dt.hour.item():02d}:{t.dt.minute.item():02d}" for t in found] == expected


MIDDLES = np.array(["2000-01-16T12", "2000-02-15T12", "2000-03-16T12", "2000-04-16", "2000-05-16T12"], "M8[ns]")


@pytest.mark.parametrize(
    ("start", "training", "days", "options", "expected"),
    [
        # Of 31, 29, 31, 30 and 31 days: the end of January is no part of the step after the next.
        ("MS", 40, ["1999-12-31T23", "2000-01-31T23"], {}, ["1999-12-01", "2000-01-01", "2000-02-01"]),
        ("MS", 40, ["2000-02-29", "2000-03-01"], {}, ["2000-02-01", "2000-03-01"]),
        ("MS", 40, ["2000-02-27", "2000-03-03"], {"time": "nearest", "tolerance": "3D"}, ["2000-03-01"]),
        ("YS", 12, ["1968-05-01", "1970-01-01"], {}, ["1968-01-01", "1969-01-01", "1970-01-01"]),
        ("QS-DEC", 40, ["2000-04-01", "2000-05-01"], {}, ["2000-03-01", "2000-06-01"]),
        ("middle", 40, ["2000-02-01", "2000-04-16"], {}, list(MIDDLES[:4])),
    ],
)
@pytest.mark.parametrize("calendar", ["datetime", "standard"])
def test_the_steps_of_months_are_those_of_the_training(
    calendar: str, start: str, training: int, days: list[str], options: dict, expected: list
) -> None:
    if start == "middle":
        edges = pd.date_range("1989-07-01", periods=training + 1, freq="MS")
        times = edges[:-1] + (edges[1:] - edges[:-1]) / 2
    else:
        times = pd.date_range("1989-07-01", periods=training, freq=start)
    truth = xr.Dataset({"u": ("time", np.random.default_rng(0).normal(size=training), {"units": "1"})}, {"time": times})
    seen = xr.Dataset(
        {"u": ("obs", np.zeros(len(days)), {"units": "1"}), "u_error": 0.1},
        {"time": ("obs", pd.to_datetime(days))},
    )
    if calendar != "datetime":
        truth = truth.convert_calendar(calendar, use_cftime=True)
        dates = [type(truth.time.values[0])(*day.timetuple()[:6]) for day in pd.to_datetime(days)]
        seen = seen.assign_coords(time=("obs", dates))
    found = window_times({"a": seen}, infer_layout(truth), screening=Screening(**options)).values
    plain = found if calendar == "datetime" else np.array([t.isoformat() for t in found], "M8[ns]")
    np.testing.assert_array_equal(plain, np.array(expected, "M8[ns]"))


def test_fields_off_the_steps_of_months_are_refused() -> None:
    times = pd.date_range("1990-01-01", periods=40, freq="MS")
    truth = xr.Dataset({"u": ("time", np.random.default_rng(0).normal(size=40), {"units": "1"})}, {"time": times})
    data = xr.Dataset(
        {"u": ("time", np.zeros(2), {"units": "1"}), "u_error": 0.1},
        {"time": pd.to_datetime(["2000-02-01", "2000-02-29"])},
    )
    with pytest.raises(DataError, match="time 2000-02-29.* is off the steps .* the nearest step is 2000-03-01"):
        window_times({"a": data}, infer_layout(truth))
    dropped = window_times({"a": data}, infer_layout(truth), screening=Screening(outside="drop"))
    np.testing.assert_array_equal(dropped.values, data.time.values[:1])


def test_the_nearest_step_is_taken_within_the_tolerance() -> None:
    layout, start = six_hourly(0), np.datetime64("2020-01-05T00:00", "ns")
    late = reports([start + np.timedelta64(m, "m") for m in (-20, 370, 800)])
    near = Screening(time="nearest", tolerance="30min")
    with pytest.raises(DataError, match=r"time 2020-01-05T13:20.* is off the steps of the prior; the .*12:00"):
        window_times({"o": late}, layout, screening=near)
    found = window_times({"o": late}, layout, screening=replace(near, outside="drop"))
    np.testing.assert_array_equal(found, start + np.arange(2) * np.timedelta64(6, "h"))
    with pytest.raises(DataError, match="found no observation on the steps of the window"):
        window_times({"o": late.isel(obs=[2])}, layout, screening=replace(near, outside="drop"))


def test_model_time_begins_at_the_fields_that_are_observed(truth: xr.Dataset) -> None:
    layout = infer_layout(truth)
    np.testing.assert_allclose(window_times({"o": reports([0.31, 0.72])}, layout), [0.31, 0.51, 0.71, 0.91])
    both = {"o": reports([0.31]), "grid": networks(truth)["observations"].isel(time=[1, 2])}
    np.testing.assert_allclose(window_times(both, layout), [0.2, 0.4])


def test_early_fields_are_dropped_when_asked() -> None:
    layout = six_hourly(0)
    truth = make_truth().isel(time=slice(0, 3)).assign_coords(time=pd.date_range("2019-03-01", periods=3, freq="6h"))
    fields = observe(truth, op.identity(), error=0.1).drop_vars("window")
    early = fields.assign_coords(time=fields.time.values - np.array([20, 0, 0], "m8[m]"))
    with pytest.raises(DataError, match=r"time 2019-02-28T23:40.* is off the steps of the prior; the .*00:00"):
        window_times({"o": early}, layout)
    found = window_times({"o": early}, layout, screening=Screening(outside="drop"))
    np.testing.assert_array_equal(found, truth.time[1:])


@pytest.mark.parametrize("given", ["observations", "times="])
@pytest.mark.parametrize("calendar", ["360_day", "julian"])
def test_other_calendars_are_refused(calendar: str, given: str) -> None:
    times = xr.date_range("2019-03-01", periods=2, freq="6h", calendar=calendar, use_cftime=True).values
    options = {"times": times} if given == "times=" else {}
    with pytest.raises(DataError, match=rf"have the calendar '{calendar}', those of the prior 'noleap', expected"):
        window_times({"o": reports(list(times))}, six_hourly(0, "noleap"), **options)


def test_times_that_are_missing_or_have_a_zone_are_refused() -> None:
    layout = six_hourly(0)
    missing = reports([np.datetime64("2020-01-05", "ns"), np.datetime64("NaT", "ns"), np.datetime64("NaT", "ns")])
    with pytest.raises(DataError, match=r"time 1 of the network 'o' \('time'\) is missing \(NaT\) \(and another one\)"):
        window_times({"o": missing}, layout)
    assert window_times({"o": missing.assign(u=missing.u.where(missing.time.notnull()))}, layout).size == 1
    zoned = pd.date_range("2020-01-05", periods=2, freq="6h", tz="Europe/Berlin")
    for times in (np.array(zoned.to_pydatetime(), object), zoned):
        data = reports([0.0, 0.0]).assign_coords(time=xr.Variable("obs", times))
        with pytest.raises(DataError, match="have the time zone Europe/Berlin, expected UTC without a zone"):
            window_times({"o": data}, layout)


def test_observations_that_are_not_there() -> None:
    layout = six_hourly(0)
    with pytest.raises(DataError, match="found no observation in 'o', expected at least one"):
        window_times({"o": reports([np.datetime64("2020-01-05", "ns")]).isel(obs=[])}, layout)
    table = reports([np.datetime64("2020-01-05", "ns")]).reset_coords().rename(obs="index")
    with pytest.raises(DataError, match=r"set it with ds.rename\(index='obs'\).set_coords\(\['time', ...\]\), with"):
        window_times({"o": table}, layout)
