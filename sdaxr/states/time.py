"""Time axes: what kind of times they are, whether they are regular, and which of them are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import TIME, DataError, check_units


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
    """

    kind: str
    step: float
    units: str
    calendar: str = ""


def time_kind(times: xr.DataArray) -> str:
    """``"float"``, ``"timedelta"``, ``"datetime"`` or ``"cftime"``: what the values of ``times`` are."""
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


def elapsed(times: xr.DataArray, since: Any) -> np.ndarray:
    """Time since ``since``: shape of ``times``, seconds, or model time units where time is a number."""
    values = np.asarray(times.values)
    difference = values - since
    kind = time_kind(times)
    if kind == "float":
        return difference.astype(float)
    if kind == "cftime":
        return np.array([d.total_seconds() for d in difference.ravel()], float).reshape(values.shape)
    return difference / np.timedelta64(1, "ns") * 1e-9


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
    odd = np.flatnonzero(np.abs(steps - step) > 1e-3 * abs(step))
    if step <= 0 or odd.size:
        at = int(np.abs(steps - np.median(steps)).argmax()) if odd.size else 0
        raise DataError(
            f"'time' is not regular: the step after {times.values[at]} is {steps[at]:g}, the mean step is {step:g}; "
            "expected equal steps, so fill the gap or resample (ds.resample, ds.interp), or pass the regular "
            "stretches as separate trajectories"
        )
    units = str(times.attrs.get("units", "")) if kind == "float" else "s"
    calendar = str(times.dt.calendar) if kind in ("datetime", "cftime") else ""
    return TimeAxis(kind, step, units, calendar)


def match_times(wanted: xr.DataArray, available: xr.DataArray) -> np.ndarray:
    """Positions in ``available`` (1-D) of the times ``wanted``, with -1 where there is none.

    Times match when they differ by less than a thousandth of the spacing of ``available``.
    """
    kinds = time_kind(wanted), time_kind(available)
    if kinds[0] != kinds[1]:
        raise DataError(
            f"the times are {kinds[0]} in the estimate and {kinds[1]} in the truth, expected the same kind; "
            "convert one of them"
        )
    if kinds[0] == "float":
        check_units("time", wanted.attrs.get("units"), available.attrs.get("units"), "the estimate")
    origin = available.values[0]
    try:
        here, there = elapsed(wanted, origin), elapsed(available, origin)
    except TypeError as error:  # cftime refuses to subtract across calendars
        raise DataError(f"the estimate and the truth have different calendars: {error}") from error
    order = np.argsort(there)
    there = there[order]
    spacing = np.diff(there).min() if there.size > 1 else 1.0
    above = np.searchsorted(there, here).clip(max=there.size - 1)
    below = (above - 1).clip(min=0)
    nearest = np.where(np.abs(here - there[below]) < np.abs(here - there[above]), below, above)
    return np.where(np.abs(here - there[nearest]) <= 1e-3 * spacing, order[nearest], -1)
