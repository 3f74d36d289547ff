"""The point form of observations, made of a table whose columns have roles, with every row checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.observations.matching import ERROR
from sdaxr.observations.places import OBS
from sdaxr.observations.readers.roles import QUALITY, is_level, is_place, measured
from sdaxr.schema import TIME, DataError, OptionError, UnitsError, nearest
from sdaxr.states.axes import is_latitude, is_longitude

_log = logging.getLogger(__name__)

Errors = float | Mapping[str, float | Mapping[str, float]]

_PLACES = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}
_SHOWN = 3  # Reasons that an error message lists.


def point_form(table: xr.Dataset, *, units: Mapping[str, str], bad: str, source: str) -> xr.Dataset:
    """The point form of a table, without the rows that hold no value.

    Parameters
    ----------
    table
        Result of `sdaxr.observations.readers.roles.assign_roles`, on (obs).
    units
        Units of what has none, by name; for times a unit since a date, or a format such as ``"%Y%m%d%H"``.
    bad
        ``"error"``, or ``"drop"`` for rows without a time or a position, or with text in the place of a number.
    source
        Where the table comes from.

    Raises
    ------
    DataError
        If there is no time, position or value, or a row is bad.
    UnitsError
        If units of times are missing, or differ from those in ``units``.
    OptionError
        If ``bad`` is unknown.
    """
    if bad not in ("error", "drop"):
        raise OptionError(f"bad is {nearest(bad, ('error', 'drop'))}")
    names = measured(table)
    reasons: dict[str, np.ndarray] = {}
    numbers = [n for n in (*names, *(n + ERROR for n in names), *_position_names(table)) if n in table.variables]
    for name in numbers:
        table, reasons[f"text in the place of a number as '{name}'"] = _numbers(table, name)
    empty = np.logical_and.reduce([table[n].isnull().values for n in names])
    text = np.logical_or.reduce(list(reasons.values()))
    table, reasons = _rows(table, reasons, ~empty | text)
    if table.sizes[OBS] == 0:
        raise DataError(f"{source} has no value of {names}, expected at least one row with a value")
    table, reasons["no time that can be read"] = _times(table, units.get(TIME))
    reasons |= _misplaced(table)
    table, dropped = _without_bad(table, reasons, bad, source)
    table = table.drop_vars([n for n in table.coords if bool(table[n].isnull().all())])
    table = table.assign({n + QUALITY: _flags(table[n + QUALITY]) for n in names if n + QUALITY in table})
    lost = {"rows_without_values": int((empty & ~text).sum()), "rows_dropped": dropped}
    attrs = provenance_attrs("Observations", source, featureType="point", **{k: n for k, n in lost.items() if n})
    return _described(table).assign_attrs(attrs)


def _described(table: xr.Dataset) -> xr.Dataset:
    """Every column with a standard name, or a long name."""
    out = table.assign_coords({n: table[n].assign_attrs(a) for n, a in _PLACES.items() if n in table})
    if out[TIME].dtype.kind != "f":
        out[TIME].attrs.setdefault("standard_name", TIME)
    for name, column in out.variables.items():
        if not {"standard_name", "long_name"} & set(column.attrs):
            column.attrs["long_name"] = str(name).replace("_", " ")
    return out


def with_units(observations: xr.Dataset, units: Mapping[str, str]) -> xr.Dataset:
    """Observations whose measured variables all have units: their own, or those that ``units`` states.

    Raises
    ------
    UnitsError
        If there are none, or the two differ. Values are not converted.
    OptionError
        If ``units`` names something that does not exist.
    """
    out = observations.copy()
    for name, text in units.items():
        if name not in out.variables:
            raise OptionError(f"units= names {nearest(name, map(str, out.variables))}")
        if name != TIME:
            # What has no units gets those that are stated.
            schema.check_units(name, out[name].attrs.get("units") or text, text, "the source")
            out[name].attrs["units"] = str(text)
    for name in measured(out):
        if not out[name].attrs.get("units"):
            raise UnitsError(
                f"'{name}' has no units, expected them; state them with units={{{name!r}: 'K'}}, in the shell with "
                f"""--reading 'units={{"{name}": "K"}}'"""
            )
    return out


def with_errors(observations: xr.Dataset, errors: Errors | None) -> xr.Dataset:
    """Observations with ``<variable>_error``: that of ``errors`` where it is given, else their own.

    Raises
    ------
    DataError
        If a variable has none.
    OptionError
        If an error is not a positive number, or ``errors`` names something that does not exist.
    """
    out, names = observations.copy(), measured(observations)
    given: Mapping[str, Any] = errors if isinstance(errors, Mapping) else dict.fromkeys(names, errors)
    for name in given:
        if name not in names:
            raise OptionError(f"errors= names {nearest(str(name), names)}")
    for name in names:
        units = out[name].attrs.get("units")
        stated = given.get(name)
        if stated is not None:
            out[name + ERROR] = _error(out, name, stated)
        elif name + ERROR not in out:
            raise DataError(
                f"'{name}' has no '{name}{ERROR}', expected one standard deviation of its error; give it with "
                f"errors={{{name!r}: 1.0}}, in {units or 'the units of the variable'}"
            )
        title = out[name].attrs.get("long_name", out[name].attrs.get("standard_name", name))
        error = out[name + ERROR]
        schema.check_units(name + ERROR, error.attrs.get("units") or units, units, "the source")
        error.attrs |= {"long_name": f"standard deviation of the error of {title}", "units": units}
        if "standard_name" in out[name].attrs:
            error.attrs["standard_name"] = f"{out[name].attrs['standard_name']} standard_error"
        beside = [name + end for end in (ERROR, QUALITY) if name + end in out]
        out[name].attrs["ancillary_variables"] = " ".join(beside)
    return out


def _error(observations: xr.Dataset, name: str, error: float | Mapping[str, float]) -> xr.DataArray:
    if not isinstance(error, Mapping):
        schema.check_positive(f"errors[{name!r}]", error, f" in the units of '{name}'")
        return xr.full_like(observations[name], float(error), dtype=float).drop_attrs()
    if "source" not in observations.coords:
        raise OptionError(f"errors[{name!r}] is {error}, but there is no column 'source'; expected one number")
    sources = observations["source"].values.astype(str)
    for each, number in error.items():
        schema.check_positive(f"errors[{name!r}][{each!r}]", number, f" in the units of '{name}'")
    for each in map(str, np.unique(sources)):
        if each not in error:
            raise OptionError(f"errors[{name!r}] has no entry for the source {nearest(each, error)}")
    return xr.DataArray(np.array([float(error[s]) for s in sources]), dims=observations["source"].dims)


# Rows


def _rows(
    table: xr.Dataset, reasons: Mapping[str, np.ndarray], keep: np.ndarray
) -> tuple[xr.Dataset, dict[str, np.ndarray]]:
    return table.isel({OBS: keep}), {why: mask[keep] for why, mask in reasons.items()}


def _without_bad(table: xr.Dataset, reasons: Mapping[str, np.ndarray], bad: str, source: str) -> tuple[xr.Dataset, int]:
    found = {why: mask for why, mask in reasons.items() if mask.any()}
    wrong = np.logical_or.reduce(list(reasons.values()))
    count = int(wrong.sum())
    if not count:
        return table, 0
    shown = [f"{int(mask.sum())} with {why} (the first in row {int(mask.argmax())})" for why, mask in found.items()]
    listed = ", ".join(shown[:_SHOWN])
    if bad == "error":
        raise DataError(
            f"{count} of {wrong.size} rows of {source} cannot be used: {listed}; correct them, or pass bad='drop' to "
            "leave them out"
        )
    if count == wrong.size:
        raise DataError(f"none of the {count} rows of {source} can be used: {listed}; name its columns with columns=")
    _log.warning("%s: %d of %d rows are left out: %s", source, count, wrong.size, listed)
    return table.isel({OBS: ~wrong}), count


def _numbers(table: xr.Dataset, name: str) -> tuple[xr.Dataset, np.ndarray]:
    import pandas as pd

    column = table[name]
    if column.dtype.kind in "fiu":
        return table, np.zeros(column.size, bool)
    given = pd.Series(column.values)
    parsed = pd.to_numeric(given, errors="coerce")
    values = parsed.to_numpy(float, na_value=np.nan)
    return table.assign({name: (OBS, values, column.attrs)}), (parsed.isna() & given.notna()).to_numpy()


def _flags(flags: xr.DataArray) -> xr.DataArray:
    """Flags as whole numbers where they are digits (as in Argo), or floats because others were missing."""
    values = flags.values
    if values.dtype.kind in "OSU":
        text = [v.decode().strip() if isinstance(v, bytes) else str(v).strip() for v in values]
        values = np.array(text, np.int32 if all(t.isdigit() for t in text) else object)
    elif values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        values = values.astype(np.int32)
    out = flags.copy(data=values)
    if "flag_values" in out.attrs and values.dtype.kind in "iuf":
        # CF wants the two to be of one type.
        out.attrs["flag_values"] = np.asarray(out.attrs["flag_values"]).astype(values.dtype)
    return out


def _times(table: xr.Dataset, units: str | None) -> tuple[xr.Dataset, np.ndarray]:
    if TIME not in table.variables:
        raise DataError(
            f"found the columns {list(map(str, table.variables))}, expected a time; name it with "
            'columns={"time": "the column"}'
        )
    column = table[TIME]
    units = units or str(column.attrs.get("units", ""))
    attrs = {k: v for k, v in column.attrs.items() if k != "axis"}
    if column.dtype.kind in "Mm" or (column.dtype.kind == "O" and hasattr(column.values[0], "calendar")):
        values = column.values.astype("M8[ns]") if column.dtype.kind == "M" else column.values
    elif column.dtype.kind in "fiu" and "%" not in units:
        values, attrs = _counted(column, units)
    else:
        values, attrs = _written(column, units if "%" in units else "ISO8601"), {"standard_name": TIME}
    table = table.assign_coords({TIME: (OBS, values, attrs)})
    return table, table[TIME].isnull().values


def _counted(column: xr.DataArray, units: str) -> tuple[np.ndarray, dict[Any, Any]]:
    """Times that are numbers: since a date, or model times."""
    if not units:
        raise UnitsError(
            f"'time' holds numbers ({column.values[0]}) without units, expected units, or ISO dates; state them with "
            "units={'time': 'seconds since 1970-01-01'}, or a format such as '%Y%m%d%H'"
        )
    raw = xr.Dataset({TIME: (OBS, column.values, column.attrs | {"units": units})})
    decoded = xr.decode_cf(raw)[TIME]
    return decoded.values, decoded.attrs


def _written(column: xr.DataArray, form: str) -> np.ndarray:
    """Times that are texts in this format, or whole numbers such as 2019030112."""
    import pandas as pd

    given = pd.Series(column.values)
    text = given.astype("Int64").astype("string") if column.dtype.kind in "fiu" else given
    parsed = pd.to_datetime(text, format=form, errors="coerce", utc=True).dt.tz_localize(None)
    return np.array(parsed.to_numpy("M8[ns]"))


def _position_names(table: xr.Dataset) -> list[str]:
    """Coordinates that say where a measurement was made, the level included."""
    return [str(n) for n, c in table.coords.items() if n in ("y", "x") or is_place(str(n), c.attrs)]


def _misplaced(table: xr.Dataset) -> dict[str, np.ndarray]:
    names = _position_names(table)
    pair = [any(rule(n, table[n].attrs) for n in names) for rule in (is_latitude, is_longitude)]
    if not names or pair[0] != pair[1]:
        raise DataError(
            f"found the columns {list(map(str, table.variables))}, expected the position of each measurement; name it "
            'with columns={"lat": "the column", "lon": "another"}'
        )
    reasons = {}
    for name in names:
        values = table[name].values
        missing = ~np.isfinite(values)
        # A level that is there for no row at all says nothing.
        if not (missing.all() and is_level(name, table[name].attrs)):
            reasons[f"no '{name}'"] = missing
        limit = 90 if is_latitude(name, table[name].attrs) else 360 if is_longitude(name, table[name].attrs) else np.inf
        reasons[f"'{name}' beyond {limit} degrees"] = np.abs(np.where(missing, 0, values)) > limit
    return reasons
