"""Harmonics of the day and the year: which ones data resolve and cover, and where they close."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from seasons import hours, months

from sdaxr.states.harmonics import Harmonics, beside, resolved_harmonics
from sdaxr.states.time import TimeAxis, time_axis


def axis_of(times: xr.DataArray) -> TimeAxis:
    return time_axis(times.to_dataset(name="t"))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (hours(24 * 4), "none"),
        (hours(24 * 21), "6 of the day"),
        (hours(4 * 21, 6), "2 of the day"),
        (hours(2 * 21, 12), "1 of the day"),
        (hours(300, 24), "none"),
        (hours(365, 24), "2 of the year"),
        (hours(900, 24, "360_day"), "4 of the year"),
        (hours(4 * 800, 6, "noleap"), "2 of the day and 4 of the year"),
        (months(6), "none"),
        (months(12), "1 of the year"),
        (months(24), "2 of the year"),
        (months(39), "6 of the year"),
        (months(360, "noleap"), "6 of the year"),
        (months(120)[::3], "2 of the year"),
        (months(240)[::12], "none"),
        (hours(30 * 365, 24)[np.arange(30 * 365) % 365 < 90][:90], "none"),
    ],
)
def test_which_cycles_are_resolved_and_covered(times: xr.DataArray, expected: str) -> None:
    assert str(resolved_harmonics(times, axis_of(times))) == expected


def test_a_season_of_each_year_does_not_cover_the_year() -> None:
    days = hours(5 * 365, 24)
    summers = days[days.dt.month.isin([6, 7, 8]).values]
    assert str(resolved_harmonics(summers, axis_of(days))) == "none"


def test_model_time_has_no_cycle() -> None:
    times = xr.DataArray(np.arange(99.0), dims="time", name="time", coords={"time": np.arange(99.0)})
    assert resolved_harmonics(times, axis_of(times)) == Harmonics(())


@pytest.mark.parametrize("calendar", ["standard", "360_day", "noleap"])
def test_the_year_closes(calendar: str) -> None:
    """The last hour of a year is next to the first one of another, in each calendar."""
    times = hours(24 * 800, calendar=calendar)
    columns = Harmonics(((0, 1), (1, 0), (1, -1))).columns(times)
    assert np.abs(np.diff(columns[:, :2], axis=0)).max() < 2 * np.pi / 8600
    assert np.abs(np.diff(columns, axis=0)).max() < 1.1 * 2 * np.pi / 24


def test_months_are_equally_long() -> None:
    columns = Harmonics(((0, 6), (0, 4)), monthly=True).columns(months(24))
    np.testing.assert_allclose(columns[:, 0], np.tile([1, -1], 12), atol=1e-12)
    np.testing.assert_allclose(columns[::3, 2], 1, atol=1e-12)


def test_changes_of_the_day_with_the_year_are_harmonics() -> None:
    times = hours(4 * 800, 6)
    found = resolved_harmonics(times, axis_of(times))
    assert {(1, 1), (1, -1), (1, 2), (1, -2)} < set(found.terms) and (2, 1) not in found.terms
    assert found.fewer().terms == ((1, 0), (2, 0), (0, 1), (0, 2))
    assert Harmonics.from_dict(found.to_dict()) == found


def test_frequencies_beside_harmonics_hold_none_of_them() -> None:
    """A series that is all cycle has nothing there; one between the harmonics is there."""
    times = hours(24 * 30)
    harmonics = resolved_harmonics(times, axis_of(times))
    noise, places = beside([*harmonics.terms, (0, 0)], times, axis_of(times))
    assert [at.size for at in places] == [16] * 7
    cycle = harmonics.columns(times).sum(1)
    np.testing.assert_allclose(noise.T @ cycle, 0, atol=1e-5)
    between = np.cos(2 * np.pi * np.arange(24 * 30) * (1 / 24 + 2 / 720))
    assert np.abs(noise[:, places[0]].T @ between).max() > 300
