"""Times: of what kind they are, whether they are regular, and which of them are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.coordinates import TOLERANCE, describe_points, nearest_points

CYCLES = ("hour_of_day", "day_of_year")

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
    """

    kind: str
    step: float
    units: str
    calendar: str = ""
    phase: float = 0.0


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
    if TIME not in data.coords or TIME not in data.dims:
        raise DataError(
            f"found the dimensions {tuple(map(str, data.dims))}, expected a 'time' dimension with a coordinate; "
            "name it with ds.rename(...) or ds.assign_coords(time=...)"
        )
    times = data[TIME]
    kind = time_kind(times)
    if times.size < 2:
        raise DataError(f"'time' has {times.size} value, expected at least two, so that there is a step")
    offsets = elapsed(times, times.values[0])
    steps = np.diff(offsets)
    step = float(offsets[-1] / (times.size - 1))
    odd = np.flatnonzero(np.abs(steps - step) > TOLERANCE * abs(step))
    if step <= 0 or odd.size:
        at = int(np.abs(steps - np.median(steps)).argmax()) if odd.size else 0
        raise DataError(
            f"'time' is not regular: the step after {times.values[at]} is {steps[at]:g}, the mean step is {step:g}; "
            "expected equal steps, so fill the gap or resample (ds.resample, ds.interp), or pass the regular "
            "stretches as separate trajectories"
        )
    units = str(times.attrs.get("units", "")) if kind == "float" else "s"
    phase = since_epoch(times.values[0]) % step if kind in ("datetime", "cftime") else 0.0
    return TimeAxis(kind, step, units, calendar_of(times), phase)


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
        schema.check_units(TIME, wanted.attrs.get("units"), available.attrs.get("units"), of)
    try:
        index, distance = nearest_times(wanted.values.ravel(), available.values)
    except TypeError as error:  # cftime refuses to subtract across calendars
        raise DataError(f"{of} and {like} have different calendars ({error}); convert one of them") from error
    return np.where(np.abs(distance) <= TOLERANCE, index, -1).reshape(wanted.shape)


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
