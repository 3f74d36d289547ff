"""What the columns of a table of observations are: times, places, labels, measured values, their errors and flags.

A column is recognised by its name, by its attributes (CF conventions), or because the caller says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR
from sdaxr.observations.places import OBS
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.axes import is_latitude, is_longitude, layer_dimension

QUALITY = "_qc"
VALUE, VARIABLE = "observation", "variable"

Columns = Mapping[str, str | Sequence[str]]

# Names in lower case; a name is looked for where no attribute tells.
_TIMES = ("time", "datetime", "date_time", "valid_time", "timestamp", "obs_time", "time_utc", "date", "juld")
_LATITUDES, _LONGITUDES = ("lat", "latitude", "nav_lat"), ("lon", "longitude", "long", "lng", "nav_lon")
LABELS = (
    *("station", "station_id", "station_name", "stationid", "id", "name", "wmo", "wmo_id", "callsign", "call_sign"),
    *("platform", "platform_number", "source", "network", "instrument", "satellite", "type", "class"),
)
_AUXILIARY = (
    *("elevation", "elev", "station_elevation", "cycle", "cycle_number", "track", "orbit", "pass", "channel"),
    *("sensor_index", "scan_angle", "solza", "satza"),
)
# How the column of a value's error, or of its flag, ends.
_ERRORS = ("_error", "_err", "_stderr", "_std", "_sd", "_uncertainty")
_FLAGS = ("_qc", "_flag", "_quality", "_quality_flag", "_status")
# The columns of a long table, which has a row for each value of each variable.
_LONG = {VALUE: (VALUE, "value"), VARIABLE: (VARIABLE, "parameter")}
_LONG_ERRORS = ("error", "uncertainty", VALUE + ERROR, "value" + ERROR)
_LONG_FLAGS, _LONG_UNITS = ("qc", "quality", "flag", VALUE + QUALITY, "value" + QUALITY), ("units", "unit")
_HEADER = re.compile(r"(.+?)\s*[\[(]([^\])]*)[\])]\s*")


def with_units_of_header(table: xr.Dataset) -> xr.Dataset:
    """Columns ``t2m [K]`` or ``t2m (K)`` as ``t2m`` with the attribute ``units``."""
    found = {str(n): _HEADER.fullmatch(str(n)) for n in table.variables}
    names = {n: match[1] for n, match in found.items() if match}
    renamed = table.rename_vars(names)
    for name, match in found.items():
        if match:
            renamed[names[name]].attrs.setdefault("units", match[2])
    return renamed


def assign_roles(table: xr.Dataset, columns: Columns | None, variables: Sequence[str] | None) -> xr.Dataset:
    """A table in the order of the point form: positions and labels are coordinates, the rest are values.

    Parameters
    ----------
    table
        Columns along ``obs``. Coordinates are known not to be measured.
    columns
        Column of each name of the result; in a long table, also entries of its column ``variable``.
    variables
        Measured variables that are wanted; the others are left out.

    Returns
    -------
    The table with the coordinates ``time``, ``lat`` and ``lon`` (or the names that ``columns`` gives them), and with
    ``<variable>``, ``<variable>_error`` and ``<variable>_qc``.

    Raises
    ------
    OptionError
        If a column or variable does not exist.
    DataError
        If there is no measured variable.
    """
    named = {name: [c] if isinstance(c, str) else list(c) for name, c in (columns or {}).items()}
    table, entries = _renamed(_ancillaries_named(table), named)
    table = _positions_named(table, fixed=named)
    if _is_long(table):
        table = _wide(table, entries)
    elif entries:
        raise OptionError(f"columns= names {nearest(next(iter(entries.values()))[0], map(str, table.variables))}")
    table = _ancillaries_named(table)
    table = table.set_coords([n for n in map(str, table.data_vars) if _is_coordinate(n, table[n])])
    # The flag of a position is no flag of a measured value.
    table = table.set_coords([n for n in measured(table) if n.lower().endswith((ERROR, QUALITY))])
    found = measured(table)
    if variables is not None:
        for name in variables:
            if name not in found:
                raise OptionError(f"variables= names {nearest(name, found)}")
        out = [n for n in found if n not in variables]
        table = table.drop_vars([k for n in out for k in (n, n + ERROR, n + QUALITY) if k in table])
    if not found:
        raise DataError(
            f"found the columns {list(map(str, table.variables))}, expected at least one of measured numbers; name it "
            'with columns={"t2m": "the column"}'
        )
    return table


def measured(table: xr.Dataset) -> list[str]:
    """Names of the measured variables: all except errors and quality flags."""
    names = [str(n) for n in table.data_vars]
    aside = {n + end for n in names for end in (ERROR, QUALITY)}
    return [n for n in names if n not in aside]


def _renamed(table: xr.Dataset, columns: dict[str, list[str]]) -> tuple[xr.Dataset, dict[str, list[str]]]:
    # The columns that are there get their names, their errors and flags too; what is left are entries of a long table.
    here = {name: of[0] for name, of in columns.items() if len(of) == 1 and of[0] in table.variables}
    beside = {n + end: old + end for n, old in here.items() for end in (ERROR, QUALITY) if old + end in table.variables}
    names = beside | here
    taken = [n for n in names if n in table.variables and n not in names.values()]
    table = table.drop_vars(taken).rename_vars({old: new for new, old in names.items() if old != new})
    return table, {name: of for name, of in columns.items() if name not in here}


def _positions_named(table: xr.Dataset, fixed: Collection[str]) -> xr.Dataset:
    """Times, latitudes and longitudes are called so, unless the caller has named them."""
    names = {}
    rules = ((TIME, _TIMES, is_time), ("lat", _LATITUDES, is_latitude), ("lon", _LONGITUDES, is_longitude))
    for role, known, rule in rules:
        found = [str(n) for n, v in table.variables.items() if rule(str(n), v.attrs)]
        found = found or [n for k in known for n in map(str, table.variables) if n.lower() == k]
        if found and role not in table.variables and not set(found) & set(fixed):
            names[found[0]] = role
    return table.rename_vars(names)


def is_level(name: str, attrs: Mapping[Any, Any]) -> bool:
    """Whether a column is a level, by its name or its attributes, as in the states."""
    return layer_dimension(xr.DataArray([0.0], {name: (name, [0.0], dict(attrs))}, name)) is not None


def is_place(name: str, attrs: Mapping[Any, Any]) -> bool:
    """Whether a column is a latitude, a longitude or a level, by its name or its attributes."""
    return is_latitude(name, attrs) or is_longitude(name, attrs) or is_level(name, attrs)


def is_time(name: str, attrs: Mapping[Any, Any]) -> bool:
    """Whether a column is the time, by its name or its attributes."""
    return name == TIME or attrs.get("standard_name") == TIME or attrs.get("axis") == "T"


def _is_coordinate(name: str, column: xr.DataArray) -> bool:
    if name in (TIME, "y", "x") or name.lower() in (*LABELS, *_AUXILIARY) or is_place(name, column.attrs):
        return True
    if name.endswith((ERROR, QUALITY)):
        return False
    return column.dtype.kind not in "fiu" and not _mostly_numbers(column.values)


def _mostly_numbers(values: np.ndarray) -> bool:
    """Whether at least half of the texts are numbers; the others are then bad rows."""
    import pandas as pd

    if values.dtype.kind not in "OSU":
        return False
    given = pd.Series(values).dropna()
    return bool(given.size and pd.to_numeric(given, errors="coerce").notna().mean() >= 0.5)


def _ancillaries_named(table: xr.Dataset) -> xr.Dataset:
    """Columns of errors and flags get the names of the point form."""
    lower = {str(n).lower(): str(n) for n in table.variables}
    names: dict[str, str] = {}
    for name in map(str, table.variables):
        listed = str(table[name].attrs.get("ancillary_variables", "")).split()
        for end, endings in ((ERROR, _ERRORS), (QUALITY, _FLAGS)):
            by_attribute = [n for n in listed if n in table.variables and _is_ancillary(end, table[n].attrs)]
            by_name = [lower[name.lower() + e] for e in endings if name.lower() + e in lower]
            found = (by_attribute or by_name)[:1]
            names |= {n: name + end for n in found if n not in names and name not in names}
    table = table.rename_vars({old: new for old, new in names.items() if old != new})
    return table.reset_coords([n for n in names.values() if n in table.coords])


def _is_ancillary(end: str, attrs: Mapping[Any, Any]) -> bool:
    name = str(attrs.get("standard_name", ""))
    return "standard_error" in name if end == ERROR else "flag" in name or "flag_values" in attrs


# Long tables


def _is_long(table: xr.Dataset) -> bool:
    return all(_first(table, names) is not None for names in _LONG.values())


def _first(table: xr.Dataset, names: Sequence[str]) -> str | None:
    lower = {str(n).lower(): str(n) for n in table.variables}
    return next((lower[n] for n in names if n in lower), None)


def _wide(table: xr.Dataset, columns: Mapping[str, Sequence[str]]) -> xr.Dataset:
    """One row for each time, place and label, and one column for each variable; no value is lost.

    Values of several variables with the same labels share a row. Where a variable is there twice with the same labels,
    its second value has a row of its own.
    """
    import pandas as pd

    value, variable = (_first(table, names) for names in _LONG.values())
    beside = {ERROR: _first(table, _LONG_ERRORS), QUALITY: _first(table, _LONG_FLAGS)}
    units = _first(table, _LONG_UNITS)
    aside = {value, variable, units, *beside.values()}
    labels = {str(n): table[n].values for n in table.variables if n not in aside}
    kinds = pd.Series(table[variable].values).astype(str)
    for name, entries in columns.items():
        for entry in entries:
            if entry not in set(kinds):
                raise OptionError(f"columns= names {nearest(entry, [*map(str, table.variables), *set(kinds)])}")
        kinds = kinds.where(~kinds.isin(list(entries)), name)
    frame = pd.DataFrame(labels)
    label = frame.groupby(list(labels), sort=False, dropna=False).ngroup()
    again = pd.DataFrame({"label": label, "kind": kinds}).groupby(["label", "kind"], sort=False).cumcount()
    row = pd.DataFrame({"label": label, "again": again}).groupby(["label", "again"], sort=False).ngroup().to_numpy()
    first = np.unique(row, return_index=True)[1]
    out = table[list(labels)].isel({OBS: first})
    for kind in pd.unique(kinds):
        here = (kinds == kind).to_numpy()
        for end, column in {"": value, **beside}.items():
            if column is None:
                continue
            values = table[column].values
            full = np.full(first.size, np.nan, float if values.dtype.kind in "fiu" else object)
            full[row[here]] = values[here]
            out[f"{kind}{end}"] = (OBS, full, dict(table[column].attrs))
        if units is not None:
            given = set(pd.Series(table[units].values[here]).dropna().astype(str))
            if len(given) > 1:
                raise DataError(f"'{kind}' has the units {sorted(given)}, expected one; convert the values first")
            out[kind].attrs |= {"units": given.pop()} if given else {}
    return out
