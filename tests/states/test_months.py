"""Months, seasons and years of every calendar as regular steps."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sdaxr.observations.window import as_networks, window_times
from sdaxr.schema import DataError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout
from sdaxr.states.months import months_after, months_of
from sdaxr.states.time import TimeAxis, elapsed, time_axis, time_stretches

CALENDARS = ["standard", "proleptic_gregorian", "julian", "noleap", "all_leap", "360_day"]


def labelled(values: object) -> xr.Dataset:
    return xr.Dataset({"a": ("time", np.arange(float(len(values))), {"units": "K"})}, {"time": values})  # type: ignore[arg-type]


def dates(freq: str, count: int, calendar: str | None, start: str = "1999-01-01") -> np.ndarray:
    if calendar is None:
        return pd.date_range(start, periods=count, freq=freq).to_numpy()
    return xr.date_range(start, periods=count, freq=freq, calendar=calendar, use_cftime=True).to_numpy()


def middles(calendar: str | None) -> np.ndarray:
    """The middle of each month, as climate models label their monthly means."""
    edges = dates("MS", 41, calendar)
    return np.asarray(edges[:-1] + (edges[1:] - edges[:-1]) / 2)


@pytest.mark.parametrize("calendar", [None, *CALENDARS])
@pytest.mark.parametrize(
    ("freq", "months", "anchor"),
    [
        ("MS", 1, "beginning"),
        ("ME", 1, "end"),
        ("QS-DEC", 3, "beginning"),
        ("QE-NOV", 3, "end"),
        ("YS", 12, "beginning"),
        ("YE", 12, "beginning"),
        ("2MS", 2, "beginning"),
        ("middle", 1, "fraction"),
        ("fifteenth", 1, "beginning"),
    ],
)
def test_the_step_is_one_of_the_calendar(freq: str, months: int, anchor: str, calendar: str | None) -> None:
    if freq in ("middle", "fifteenth"):
        half = np.timedelta64(14, "D") if calendar is None else datetime.timedelta(14)
        values = middles(calendar) if freq == "middle" else dates("MS", 40, calendar) + half
    else:
        values = dates(freq, 40, calendar)
    axis = time_axis(labelled(values))
    steps = np.diff(elapsed(labelled(values).time, values[0]))
    if np.ptp(steps) == 0:
        assert axis.months == 0  # of the 360-day calendar, and years without leap days
    else:
        assert (axis.months, axis.anchor) == (months, anchor)
        assert axis.step == pytest.approx(steps.mean())
    np.testing.assert_array_equal(axis.after(values[3], 37), values[3:])
    assert axis.steps(values[2], values[30]) == pytest.approx(28)
    assert axis.fits(labelled(values[5:20]).time) and axis.fits(labelled(values[4:5]).time)
    assert not axis.fits(labelled(values[::2]).time)
    again = StateLayout.from_file(*infer_layout(labelled(values), cycles=[]).to_file())
    assert again.time == axis
    np.testing.assert_array_equal(again.times(values[0], 40), values)


@pytest.mark.parametrize("calendar", [None, *CALENDARS])
def test_days_are_regular_in_every_calendar(calendar: str | None) -> None:
    values = dates("D", 800, calendar, "1999-02-01")
    axis = time_axis(labelled(values))
    assert axis.months == 0 and axis.step == 86400
    np.testing.assert_array_equal(axis.after(values[0], 800), values)


def test_months_of_a_time() -> None:
    index, place, length = months_of(np.array(["2020-02-03T06"], "M8[ns]"))
    assert (index[0], place[0], length[0]) == (2020 * 12 + 1, 54 * 3600, 29 * 86400)
    assert months_after(np.datetime64("2019-12-31T12", "ns"), np.array([2]), "end")[0] == np.datetime64("2020-02-29T12")


def test_a_time_between_two_steps_is_no_whole_number_of_steps() -> None:
    axis = time_axis(labelled(dates("MS", 40, None)))
    first, between, last = (np.datetime64(t, "ns") for t in ("2000-01-01", "2000-02-15", "2000-03-01"))
    assert axis.steps(first, between) == pytest.approx(1 + 14 / 29)
    assert axis.steps(last, first) == -2
    np.testing.assert_allclose(axis.places(labelled(np.array([first, between, last])).time, last), [-2, -15 / 29, 0])
    np.testing.assert_array_equal(axis.at(last, np.array([-2, 0])), [first, last])


def test_the_text_of_an_axis() -> None:
    assert str(TimeAxis("datetime", 2.6e6, "s", "noleap", months=1, anchor="end")) == "1 month"
    assert str(TimeAxis("datetime", 3.1e7, "s", "noleap", months=12, anchor="end")) == "12 months"
    assert str(TimeAxis("float", 0.2, "d")) == "0.2 d"
    assert TimeAxis("float", 0.2, "d").to_dict() == {"kind": "float", "step": 0.2, "units": "d", "calendar": ""}


@pytest.mark.parametrize("freq", ["MS", "6h"])
def test_gaps_split_a_series(freq: str) -> None:
    values = dates(freq, 40, None)
    kept = np.delete(values, [10, 11, 30])
    axis, parts = time_stretches(labelled(kept))
    assert axis.fits(labelled(values).time)
    assert parts == [slice(0, 10), slice(10, 28), slice(28, 37)]
    with pytest.raises(DataError, match="'time' is not regular: the step after .*; expected equal steps, so fill"):
        time_axis(labelled(kept))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0, 1.0, 2.0], "the step after 1.0 is 0, expected times that increase"),
        ([0.0, 1.0, 2.5, 4.5, 9.0], "4 of 4 steps differ|steps differ; expected equal steps"),
    ],
)
def test_series_without_a_step(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        time_stretches(labelled(values))


@pytest.mark.parametrize("calendar", [None, "noleap", "360_day"])
@pytest.mark.parametrize("freq", ["MS", "ME", "QS-DEC", "YS", "middle"])
def test_the_step_before_a_time(freq: str, calendar: str | None) -> None:
    """The steps of a calendar are those of the training data, wherever a window begins."""
    values = middles(calendar) if freq == "middle" else dates(freq, 40, calendar)
    axis = StateLayout.from_file(*infer_layout(labelled(values), cycles=[]).to_file()).time
    day = np.timedelta64(1, "D") if calendar is None else datetime.timedelta(days=1)
    for step in (values[0], values[17]):
        assert axis.step_before(step) == step == axis.step_before(step + 3 * day)
    assert axis.step_before(values[17] - day) == values[16]


def days(rounded: Any, calendar: str | None, hours: int = 0) -> np.ndarray:
    """Days in the middle of each month, as archives round them; 2000-01-16, 2000-02-15, 2000-03-16."""
    begins = dates("MS", 40, calendar)
    lengths = months_of(begins)[2] / 86400
    unit = np.timedelta64(1, "h") if calendar is None else datetime.timedelta(hours=1)
    return begins + np.array([int(24 * rounded(n / 2) + hours) for n in lengths]) * unit


@pytest.mark.parametrize("calendar", [None, "noleap", "julian"])
@pytest.mark.parametrize(("rounded", "hours"), [(np.floor, 0), (np.ceil, 0), (np.floor, 12), (np.floor, -24)])
def test_the_middle_of_a_month_may_be_rounded_to_whole_days(calendar: str | None, rounded: Any, hours: int) -> None:
    values = days(rounded, calendar, hours)
    axis = time_axis(labelled(values))
    assert (axis.months, axis.anchor) == (1, "day_before_middle" if rounded is np.floor else "day_after_middle")
    np.testing.assert_array_equal(axis.after(values[3], 37), values[3:])
    assert axis.fits(labelled(values[4:20]).time) and not axis.fits(labelled(values[::2]).time)
    assert axis.step_before(values[17]) == values[17]
    again = StateLayout.from_file(*infer_layout(labelled(values), cycles=[]).to_file())
    assert again.time == axis


@pytest.mark.parametrize("calendar", [None, "noleap", "360_day"])
def test_a_month_may_be_labelled_anywhere(calendar: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Mean times of what a satellite measured in each month, one of which has none."""
    unit = np.timedelta64(1, "D") if calendar is None else datetime.timedelta(days=1)
    scattered = dates("MS", 40, calendar) + np.random.default_rng(0).integers(0, 28, 40) * unit
    kept = np.delete(scattered, 20)
    axis, parts = time_stretches(labelled(kept))
    assert (axis.months, axis.anchor) == (1, "anywhere") and parts == [slice(0, 20), slice(20, 39)]
    assert axis.fits(labelled(kept[:20]).time) and not axis.fits(labelled(kept).time)
    np.testing.assert_array_equal(axis.labelled(scattered), days(np.floor, calendar))
    np.testing.assert_array_equal(axis.after(scattered[7], 33), days(np.floor, calendar)[7:])
    layout = infer_layout(labelled(kept), cycles=[])
    assert "the times lie at different places in their months" in caplog.text
    seen = labelled(scattered[[3, 20, 7]]).assign(a_error=1.0)
    network = as_networks(seen, layout)
    np.testing.assert_array_equal(window_times(network, layout), days(np.floor, calendar)[3:21])


def test_equal_steps_with_a_gap_are_no_months() -> None:
    start = np.datetime64("1999-01-01", "ns")
    values = start + np.cumsum([0, 30, 30, 30, 32, 30, 30]) * np.timedelta64(1, "D")
    axis, parts = time_stretches(labelled(values))
    assert axis.months == 0 and axis.step == 30 * 86400 and len(parts) == 2
