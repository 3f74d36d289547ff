"""Names, exceptions and checks that the rest of sdaxr shares.

Everything a person sees is a plain xarray object. This module says what the dimensions are called, how
they are recognised in data that nobody has renamed, and which exception is raised when something is off.
Every message names what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

TRAJECTORY = "trajectory"
MEMBER = "member"
TIME = "time"
LEAD_TIME = "lead_time"
INIT_TIME = "init_time"
VALID_TIME = "valid_time"
WINDOW_BOUND = "bound"

SPLITS = ("train", "valid", "test")

_ENSEMBLE = {TRAJECTORY, MEMBER, "realization", "ensemble", "number"}
_LAYER = {"layer", "level", "lev", "pressure_level", "isobaricInhPa", "height", "depth", "plev"}
_LATITUDE = {"lat", "latitude"}
_LONGITUDE = {"lon", "longitude"}


class SdaxrError(Exception):
    """Base of every error that sdaxr raises on bad input; the command line turns it into exit code 2."""


class DataError(SdaxrError, ValueError):
    """A Dataset that does not have the variables, dimensions, values or times it needs."""


class UnitsError(DataError):
    """Two quantities that should be comparable have different units."""


class GridError(DataError):
    """Two objects live on different grids."""


class OptionError(SdaxrError, ValueError):
    """An unknown or impossible option; the message offers the nearest right name."""


class OperatorError(SdaxrError, ValueError):
    """An observation operator that cannot be applied, composed, read or saved."""


class ArchiveError(SdaxrError, OSError):
    """An archive that is unfinished, foreign, differently configured, or cannot be written."""


class PriorError(SdaxrError, ValueError):
    """A prior file that is truncated, foreign or does not fit the data."""


class DivergenceError(SdaxrError, ArithmeticError):
    """A sampler produced values that are not finite."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``name`` beside the allowed choices, with the nearest one offered, for error messages."""
    options = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), options, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r}; expected one of {', '.join(options)}.{hint}"


def layer_dimension(variable: xr.DataArray) -> Hashable | None:
    """Name of the layer or level dimension of ``variable``, or None."""
    for dim in variable.dims:
        axis = str(variable[dim].attrs.get("axis", "")) if dim in variable.coords else ""
        positive = dim in variable.coords and "positive" in variable[dim].attrs
        if str(dim).lower() in _LAYER or axis.upper() == "Z" or positive:
            return dim
    return None


def space_dimensions(variable: xr.DataArray) -> tuple[Hashable, ...]:
    """Horizontal dimensions of ``variable``: what is neither ensemble, time nor layer, in order."""
    layer = layer_dimension(variable)
    skip = _ENSEMBLE | {TIME, LEAD_TIME}
    return tuple(d for d in variable.dims if str(d) not in skip and d != layer)


def ensemble_dimension(data: xr.Dataset | xr.DataArray) -> Hashable | None:
    """Name of the dimension that counts trajectories or members, or None."""
    found = [d for d in data.dims if str(d) in _ENSEMBLE]
    if len(found) > 1:
        raise DataError(
            f"found the ensemble dimensions {found}, expected at most one of {sorted(_ENSEMBLE)}; "
            "stack or select one of them"
        )
    return found[0] if found else None


def is_latitude(name: Hashable, attrs: Mapping[Hashable, Any] = {}) -> bool:
    """Whether a coordinate is latitude, by its CF attributes or its name."""
    return attrs.get("standard_name") == "latitude" or str(name).lower() in _LATITUDE


def is_longitude(name: Hashable, attrs: Mapping[Hashable, Any] = {}) -> bool:
    """Whether a coordinate is longitude, by its CF attributes or its name."""
    return attrs.get("standard_name") == "longitude" or str(name).lower() in _LONGITUDE


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


def check_units(name: str, found: Any, expected: Any, where: str = "the observation") -> None:
    """Raise `UnitsError` if both units are given and differ; nothing is converted silently."""
    if found is None or expected is None or str(found) == str(expected):
        return
    raise UnitsError(
        f"'{name}' has units {found!r} in {where}, expected {expected!r}; convert it and set "
        f"ds['{name}'].attrs['units'] = {str(expected)!r}"
    )


def version() -> str:
    """Version of sdaxr, for provenance."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("sdaxr")
    except PackageNotFoundError:
        return "unknown"
