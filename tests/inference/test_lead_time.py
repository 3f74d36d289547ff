"""Labels of forecasts: every kind of time, and ensembles that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sdaxr.inference.lead_time import check_times, labels, provenance, with_time
from sdaxr.schema import DataError
from sdaxr.states.time import TimeAxis

HOURS = np.arange(3) * np.timedelta64(6, "h")
# Times of an ensemble, the step in the units of its kind, and the two times after the last one.
KINDS = {
    "float": (("time", [1.0, 1.5, 2.0], {"units": "h"}), 0.5, [2.5, 3.0]),
    "timedelta": (HOURS.astype("m8[ns]"), 21600.0, (HOURS[-1:] + HOURS[1:]).astype("m8[ns]")),
    "datetime": (
        np.datetime64("2020-02-28T12", "ns") + HOURS,
        21600.0,
        np.array(["2020-02-29T06", "2020-02-29T12"], "M8[ns]"),
    ),
    "cftime": (
        xr.date_range("2019-02-28T12", periods=3, freq="6h", calendar="noleap", use_cftime=True),
        21600.0,
        xr.date_range("2019-03-01T06", periods=2, freq="6h", calendar="noleap", use_cftime=True).values,
    ),
}


def ensemble(kind: str = "float", members: int = 2) -> xr.Dataset:
    values = np.zeros((members, 3, 4), np.float32)
    x = ("x", np.arange(4.0), {"period": 4.0})
    data = xr.Dataset({"t": (("member", "time", "x"), values, {"units": "K"})}, {"x": x})
    return data.assign_coords(time=KINDS[kind][0], member=[4, 9][:members])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_time_goes_on(kind: str) -> None:
    _, step, expected = KINDS[kind]
    data = ensemble(kind)
    axis = TimeAxis(kind, step, "h" if kind == "float" else "s")
    found = labels(data.isel(member=0, time=-1, drop=True), data, axis, 2)
    assert found.t.dims == ("member", "lead_time", "x") and found.t.attrs == {"units": "K"}
    np.testing.assert_array_equal(found.member, [4, 9])
    np.testing.assert_array_equal(found.valid_time, expected)
    assert found.init_time.values == data.time.values[-1]
    assert found.valid_time.dims == ("lead_time",) and found.init_time.dims == ()
    if kind == "float":
        np.testing.assert_allclose(found.lead_time, [0.5, 1.0])
        assert {found[c].attrs["units"] for c in ("lead_time", "valid_time", "init_time")} == {"h"}
        assert "standard_name" not in found.valid_time.attrs
    else:
        np.testing.assert_array_equal(found.lead_time, np.array([6, 12], "m8[h]").astype("m8[ns]"))
        assert found.valid_time.attrs["standard_name"] == "time" and "units" not in found.valid_time.attrs
    assert found.init_time.attrs["standard_name"] == "forecast_reference_time"
    assert found.lead_time.attrs["standard_name"] == "forecast_period"
    assert found.x.attrs == {"period": 4.0}


def test_members_and_times_are_given_where_there_are_none() -> None:
    data = ensemble()
    assert with_time(data).identical(data)
    one = with_time(data.isel(member=0, time=-1))
    assert dict(one.sizes) == {"member": 1, "time": 1, "x": 4} and list(one.member.values) == [0]
    renamed = with_time(data.rename(member="trajectory"))
    assert renamed.t.dims == ("member", "time", "x") and list(renamed.member.values) == [4, 9]
    counted = with_time(data.drop_vars("member"))
    np.testing.assert_array_equal(counted.member, [0, 1])


def test_ensembles_without_a_start_are_refused() -> None:
    data = ensemble()
    with pytest.raises(DataError, match=r"found the coordinates \['x', 'member'\].*set it with ds.assign_coords"):
        with_time(data.drop_vars("time"))
    with pytest.raises(DataError, match="'time' is empty, expected at least one state"):
        with_time(data.isel(time=slice(0)))


@pytest.mark.parametrize("kind", KINDS)
def test_times_of_another_kind_or_step_are_refused(kind: str) -> None:
    data, step = ensemble(kind), KINDS[kind][1]
    check_times(data, TimeAxis(kind, step * (1 + 5e-4), "s"), "the model")
    other = "float" if kind == "datetime" else "datetime"
    with pytest.raises(
        DataError, match=f"times of the ensemble are of kind {kind}, those of the model of kind {other}"
    ):
        check_times(data, TimeAxis(other, step, "s"), "the model")
    twice = TimeAxis(kind, 2 * step, "s")
    with pytest.raises(DataError, match=f"the ensemble has the step {step:g} .*, the model has {2 * step:g} s;"):
        check_times(data, twice, "the model")
    check_times(data.isel(time=[-1]), twice, "the model")  # one state has no step


def test_times_of_another_calendar_are_refused() -> None:
    """Two calendars of cftime are of one kind, and their steps are the same."""
    data = ensemble("cftime")
    check_times(data, TimeAxis("cftime", 21600.0, "s", "noleap"), "the model")
    with pytest.raises(DataError, match="ensemble have the calendar 'noleap', those of the model '360_day', expected"):
        check_times(data, TimeAxis("cftime", 21600.0, "s", "360_day"), "the model")


def test_months_go_on_by_the_calendar() -> None:
    data = ensemble("datetime").assign_coords(time=pd.date_range("2019-11-01", periods=3, freq="MS"))
    axis = TimeAxis("datetime", 30 * 86400.0, "s", "proleptic_gregorian", months=1, anchor="beginning")
    check_times(data, axis, "the model")
    found = labels(data.isel(member=0, time=-1, drop=True), data, axis, 3)
    np.testing.assert_array_equal(found.valid_time, pd.date_range("2020-02-01", periods=3, freq="MS"))
    np.testing.assert_array_equal(found.lead_time, np.array([31, 60, 91], "m8[D]").astype("m8[ns]"))
    weekly = data.assign_coords(time=pd.date_range("2019-11-01", periods=3, freq="7D"))
    with pytest.raises(DataError, match="the ensemble has the step 604800 s, the model has 1 month;"):
        check_times(weekly, axis, "the model")


def test_the_states_are_recorded_by_their_values_and_names() -> None:
    a, b = np.arange(3.0), np.ones(2)
    about = provenance({"model": "m"}, "the model m", {"a": a, "b": b}, 5)
    assert (about["title"], about["model"], about["seed"]) == ("forecast by the model m", "m", 5)
    digest = about["initial_states_sha256"]
    assert provenance({}, "", {"b": b, "a": a.copy()}, 6)["initial_states_sha256"] == digest
    for states in ({"a": a + 1e-9, "b": b}, {"b": a, "a": b}, {"a": a}):
        assert provenance({}, "", states, 5)["initial_states_sha256"] != digest
