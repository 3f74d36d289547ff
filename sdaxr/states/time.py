"""Times: of what kind they are, whether they are regular, and which of them are the same."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.coordinates import TOLERANCE, describe_points, nearest_points
from sdaxr.states.months import ANYWHERE, month_labels, months_after, months_between, months_of

CYCLES = ("hour_of_day", "day_of_year")
# A series in which more of the steps are gaps has no step.
_MOST_GAPS = 0.2
# Times of a trajectory: three years of seconds.
_MOST = 100_000_000

_Labelled = TypeVar("_Labelled", xr.Dataset, xr.DataArray)


@dataclass(frozen=True)
class TimeAxis:
    """A regular time axis.

    Attributes
    ----------
    kind
        ``"float"`` (model time), ``"timedelta"``, ``"datetime"`` or ``"cftime"``.
    step
        Spacing: model time units for ``"float"``, seconds for all the others.
    units
        Units of the float model time (``""`` when the data give none), ``"s"`` for the others.
    calendar
        CF calendar; ``""`` for ``"float"`` and ``"timedelta"``.
    phase
        Time of the first step after 1970-01-01 00:00, in seconds, for a calendar: 43200 for daily means at noon. Other
        kinds of time have no origin, and no phase.
    months
        Months of the calendar from one time to the next, where these are equal and the seconds are not: 1, 3 for
        seasons, 12 for years; ``step`` is then the mean. 0 for all other axes.
    anchor
        From where the place of a time in its month is counted (`sdaxr.states.months.ANCHORS`).
    """

    kind: str
    step: float
    units: str
    calendar: str = ""
    phase: float = 0.0
    months: int = 0
    anchor: str = ""

    def __str__(self) -> str:
        """The step with its units."""
        if self.months:
            return f"{self.months} month{'s' if self.months > 1 else ''}"
        return f"{self.step:g} {self.units}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something, as a prior's file holds them."""
        return {key: value for key, value in vars(self).items() if key not in ("phase", "months", "anchor") or value}

    def at(self, origin: Any, numbers: np.ndarray) -> np.ndarray:
        """The times that lie some steps after ``origin``, or before; shape of ``numbers``, (n,), whole numbers."""
        if self.months:
            return months_after(origin, self.months * np.asarray(numbers, int), self.anchor)
        offsets = np.asarray(numbers) * self.step
        if self.kind == "float":
            return np.asarray(np.asarray(origin, float) + offsets)
        if self.kind == "cftime":
            return np.array([origin + datetime.timedelta(seconds=float(s)) for s in offsets], dtype=object)
        later: np.ndarray = origin + (offsets * 1e9).round().astype("timedelta64[ns]")
        return later

    def after(self, start: Any, count: int) -> np.ndarray:
        """``count`` times from ``start`` on, shape (count,).

        Raises
        ------
        DataError
            If these are more than any computer holds the states of.
        """
        if count > _MOST:
            raise DataError(
                f"found a window of {count:.3g} steps of {self}, expected at most {_MOST:,}; look for a wrong time"
            )
        return self.at(start, np.arange(count))

    def places(self, times: xr.DataArray, origin: Any) -> np.ndarray:
        """Number of steps from ``origin``, which is a step, to each of ``times``; not whole between two steps."""
        apart = elapsed(times, origin)
        if not self.months or not apart.size:
            return np.asarray(apart / self.step)
        ends = months_of(np.array([origin, times.values.min(), times.values.max()]))[0]
        first, last = (ends[1:] - ends[0]) // self.months
        numbers = np.arange(first - 1, last + 3)
        steps = xr.DataArray(self.at(origin, numbers), dims=TIME, name=TIME)
        return np.asarray(np.interp(apart, elapsed(steps, origin), numbers))

    def step_before(self, time: Any) -> Any:
        """The last step of a calendar that is not later than ``time``, up to `TOLERANCE`."""
        if self.kind == "datetime":
            origin = np.datetime64("1970-01-01", "ns") + np.timedelta64(round(self.phase * 1e9), "ns")
        else:
            origin = type(time)(1970, 1, 1) + datetime.timedelta(seconds=self.phase)
        place = self.places(xr.DataArray(np.array([time]), dims=TIME, name=TIME), origin)
        return self.at(origin, np.floor(place + TOLERANCE).astype(int))[0]

    def labelled(self, times: np.ndarray) -> np.ndarray:
        """The labels of the months of ``times``, (n,), where these lie anywhere in the month; else ``times``."""
        return month_labels(times) if self.anchor == ANYWHERE and times.size else times

    def steps(self, first: Any, last: Any) -> float:
        """Number of steps from one time to another; not whole where the latter is no step."""
        return float(self.places(xr.DataArray(np.array([last]), dims=TIME, name=TIME), first)[0])

    def same_step(self, other: TimeAxis) -> bool:
        """Whether two axes have the same step, up to `TOLERANCE`."""
        return self.months == other.months and (self.months > 0 or same_step(other.step, self.step))

    def fits(self, times: xr.DataArray) -> bool:
        """Whether ``times``, shape (n,), are consecutive times of this axis, up to `TOLERANCE`."""
        if time_kind(times) != self.kind:
            return False
        if self.anchor == ANYWHERE:
            return bool((np.diff(months_of(times.values)[0]) == self.months).all())
        expected = xr.DataArray(self.after(times.values[0], times.size), dims=TIME, name=TIME)
        apart = np.diff(elapsed(times, times.values[0]) - elapsed(expected, times.values[0]))
        return bool((np.abs(apart) <= TOLERANCE * self.step).all())


def time_kind(times: xr.DataArray) -> str:
    """``"float"``, ``"timedelta"``, ``"datetime"`` or ``"cftime"``: what the values of ``times`` are.

    Raises
    ------
    DataError
        If they are something else.
    """
    kind = times.dtype.kind
    if kind == "M":
        return "datetime"
    if kind == "m":
        return "timedelta"
    if kind in "fiu":
        return "float"
    if kind == "O" and times.size and hasattr(times.values.ravel()[0], "calendar"):
        return "cftime"
    raise DataError(
        f"'{times.name}' has dtype {times.dtype}, expected numbers, timedelta64, datetime64 or cftime; "
        "decode the times first (xr.decode_cf)"
    )


def check_kind(times: xr.DataArray, expected: str, *, of: str, like: str, calendar: str = "") -> None:
    """Raise `DataError` unless the times of ``of`` are of the kind, and of the calendar, that ``like`` has.

    Parameters
    ----------
    times
        Times of ``of``.
    expected
        The kind of the times of ``like`` (`time_kind`).
    of, like
        Whose times these are, for errors.
    calendar
        The CF calendar of ``like``; ``""`` where it is not known.
    """
    found = time_kind(times)
    if found != expected:
        raise DataError(
            f"the times of {of} are of kind {found}, those of {like} of kind {expected}, expected the same kind; "
            "convert one of them with ds.assign_coords(time=...)"
        )
    own = calendar_of(times)
    if calendar and own != calendar:
        raise DataError(
            f"the times of {of} have the calendar {own!r}, those of {like} {calendar!r}, expected the same calendar; "
            f"convert one of them, ds.convert_calendar({calendar!r})"
        )


def calendar_of(times: xr.DataArray) -> str:
    """CF calendar of times; ``""`` for numbers and timedeltas."""
    return str(times.dt.calendar) if time_kind(times) in ("datetime", "cftime") else ""


def since_epoch(time: Any) -> float:
    """Time since 1970-01-01 00:00 in the calendar of ``time``, a datetime64 or a cftime, in seconds."""
    if isinstance(time, np.datetime64):
        return float((time - np.datetime64("1970-01-01", "s")) / np.timedelta64(1, "s"))
    return float((time - type(time)(1970, 1, 1)).total_seconds())


def elapsed(times: xr.DataArray, since: Any) -> np.ndarray:
    """Time since ``since``: shape of ``times``, seconds, or model time units where time is a number."""
    values = np.asarray(times.values)
    difference: np.ndarray = values - since
    kind = time_kind(times)
    if kind == "float":
        return difference.astype(float)
    if kind == "cftime":
        return np.array([d.total_seconds() for d in difference.ravel()], float).reshape(values.shape)
    # One division, so that whole seconds are exact.
    return np.asarray(difference / np.timedelta64(1, "s"))


def time_axis(data: xr.Dataset | xr.DataArray) -> TimeAxis:
    """The regular time axis of ``data``.

    Raises
    ------
    DataError
        If there is no ``time`` coordinate, fewer than two times, or the spacing is not regular.
    """
    axis, stretches = time_stretches(data)
    if len(stretches) > 1:
        at = stretches[0].stop - 1
        step = elapsed(data[TIME][at : at + 2], data[TIME].values[at])[1]
        raise DataError(
            f"'time' is not regular: the step after {data[TIME].values[at]} is {step:g}, the others are {axis}; "
            "expected equal steps, so fill the gap or resample (ds.resample, ds.interp), or pass the regular "
            "stretches as separate trajectories"
        )
    return axis


def time_stretches(data: xr.Dataset | xr.DataArray) -> tuple[TimeAxis, list[slice]]:
    """The time axis of ``data``, and its regular stretches, in order: one where there is no gap.

    Times are regular in seconds (or model time), else in the months of their calendar.

    Raises
    ------
    DataError
        If there is no ``time`` coordinate, fewer than two times, times that do not increase, or no common step.
    """
    if TIME not in data.coords or TIME not in data.dims:
        raise DataError(
            f"found the dimensions {tuple(map(str, data.dims))}, expected a 'time' dimension with a coordinate; "
            "name it with ds.rename(...) or ds.assign_coords(time=...)"
        )
    times = data[TIME]
    kind = time_kind(times)
    if times.size < 2:
        raise DataError(f"'time' has {times.size} value, expected at least two, so that there is a step")
    units = str(times.attrs.get("units", "")) if kind == "float" else "s"
    steps = np.diff(elapsed(times, times.values[0]))
    if not (steps > 0).all():
        at = int((steps > 0).argmin())
        raise DataError(
            f"'time' is not regular: the step after {times.values[at]} is {steps[at]:g}, expected times that increase; "
            "sort them (ds.sortby('time')), and keep one of equal times (ds.drop_duplicates('time'))"
        )
    middle = float(np.median(steps))
    gaps, months, anchor = np.abs(steps - middle) > TOLERANCE * middle, 0, ""
    most = max(1, _MOST_GAPS * steps.size)
    if calendar_of(times) and gaps.any():
        apart, place = months_between(times.values)
        usual = int(np.median(apart))
        # Steps that are equal except for some gaps are not months at whatever day.
        if usual and (apart != usual).sum() < gaps.sum() and (place != ANYWHERE or gaps.sum() > most):
            gaps, months, anchor = apart != usual, usual, place
    if gaps.sum() > most:
        at = int(np.abs(steps - middle).argmax())
        raise DataError(
            f"'time' is not regular: the step after {times.values[at]} is {steps[at]:g}, the median step is "
            f"{middle:g}, and {int(gaps.sum())} of {steps.size} steps differ; expected equal steps: resample "
            "(ds.resample, ds.interp)"
        )
    ends = [0, *(np.flatnonzero(gaps) + 1).tolist(), times.size]
    axis = TimeAxis(kind, float(steps[~gaps].mean()), units, calendar_of(times), 0.0, months, anchor)
    axis = replace(axis, phase=_phase(axis, times.values[0]))
    return axis, [slice(*pair) for pair in pairwise(ends)]


def _phase(axis: TimeAxis, time: Any) -> float:
    """Time of the first step after 1970-01-01 00:00, in seconds; ``time`` is a step."""
    if axis.kind not in ("datetime", "cftime"):
        return 0.0
    if not axis.months:
        return since_epoch(time) % axis.step
    after = int(months_of(np.array([time]))[0][0]) - 12 * 1970
    return since_epoch(axis.at(time, np.array([-(after // axis.months)]))[0])


def same_step(found: float, expected: float) -> bool:
    """Whether two steps are the same, up to `TOLERANCE`."""
    return abs(found - expected) <= TOLERANCE * abs(expected)


def nearest_times(times: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest time of ``grid``, shape (m,), for each of ``times``, shape (n,), of one kind and calendar.

    Returns
    -------
    index, distance
        Shape (n,) each: the position in ``grid``, and how much later the time is, in steps of the grid.
    """
    origin = grid[0]
    asked, there = (elapsed(xr.DataArray(t, dims=TIME, name=TIME), origin) for t in (times, grid))
    return nearest_points(asked, there)


def match_times(
    wanted: xr.DataArray, available: xr.DataArray, *, of: str = "the estimate", like: str = "the truth"
) -> np.ndarray:
    """Positions in ``available`` (1-D) of the times ``wanted``, -1 where it has none; shape of ``wanted``.

    Two times are the same up to `TOLERANCE` of the spacing of ``available``.

    Raises
    ------
    DataError
        If they are of different kinds or calendars; ``of`` and ``like`` say whose they are.
    UnitsError
        If they are numbers in different units.
    """
    check_kind(wanted, time_kind(available), of=of, like=like, calendar=calendar_of(available))
    if time_kind(wanted) == "float":
        units = available.attrs.get("units")
        schema.check_units(TIME, wanted.attrs.get("units") or units, units, of)
    try:
        index, distance = nearest_times(wanted.values.ravel(), available.values)
    except TypeError as error:  # cftime refuses to subtract across calendars
        raise DataError(f"{of} and {like} have different calendars ({error}); convert one of them") from error
    return np.where(np.abs(distance) <= TOLERANCE, index, -1).reshape(wanted.shape)


def in_months_of(data: xr.Dataset, times: xr.DataArray) -> xr.Dataset:
    """``data`` with the labels of its months, where ``times`` are such labels and its own times lie anywhere in months.

    These labels are the times of states that are made by a prior with `TimeAxis.anchor` ``"anywhere"``.
    """
    if TIME not in data.dims or TIME not in data.coords or data.sizes[TIME] < 2 or not times.size:
        return data
    own, labels = data[TIME], times.values.ravel()
    if {time_kind(own), time_kind(times)} not in ({"datetime"}, {"cftime"}) or own.isnull().any():
        return data
    months, anchor = months_between(own.values)
    if anchor != ANYWHERE or (months < 1).any() or (month_labels(labels) != labels).any():
        return data
    return data.assign_coords({TIME: (TIME, month_labels(own.values), own.attrs)})


def onto_times(data: _Labelled, times: xr.DataArray, *, of: str, like: str) -> _Labelled:
    """``data`` at ``times`` (1-D), which are among its own, with their labels.

    Raises
    ------
    GridError
        If it has no data at some of them.
    DataError, UnitsError
        As `match_times`.
    """
    at = match_times(times, data[TIME], of=like, like=of)
    if (at < 0).any():
        raise GridError(
            f"{of} has {describe_points(data[TIME].values)} in time, expected {times.values[at < 0][0]} among them, as "
            f"in {like}; add it, or leave that time out"
        )
    return data.isel({TIME: at}).assign_coords({TIME: times.variable})


def phase(times: xr.DataArray, cycle: str) -> np.ndarray:
    """Phase of ``times`` in a cycle, in radians; shape of ``times``.

    Parameters
    ----------
    times
        Times of a calendar.
    cycle
        ``"hour_of_day"`` or ``"day_of_year"``, whose year has 365.25 days.

    Raises
    ------
    OptionError
        If there is no such cycle.
    DataError
        If the times have no calendar.
    """
    if cycle not in CYCLES:
        raise schema.OptionError(f"cycle {schema.nearest(cycle, CYCLES)}")
    if time_kind(times) not in ("datetime", "cftime"):
        raise DataError(f"'time' is {time_kind(times)}, expected a calendar for the cycle {cycle!r}")
    hours = times.dt.hour.values + times.dt.minute.values / 60 + times.dt.second.values / 3600
    if cycle == "hour_of_day":
        return 2 * np.pi * hours / 24
    return 2 * np.pi * (times.dt.dayofyear.values - 1 + hours / 24) / 365.25
