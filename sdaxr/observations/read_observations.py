"""Observations from other people's files and tables, in the point form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import xarray as xr

from sdaxr.archives.paths import located
from sdaxr.archives.remote import Remote
from sdaxr.observations.matching import ERROR
from sdaxr.observations.readers.point_form import Errors, point_form, with_errors, with_units
from sdaxr.observations.readers.registry import is_own, opened, reader_of
from sdaxr.observations.readers.roles import QUALITY, Columns, assign_roles
from sdaxr.schema import OptionError


def read_observations(
    source: str | PathLike[str] | Any,
    *,
    columns: Columns | None = None,
    variables: Sequence[str] | None = None,
    errors: Errors | None = None,
    units: Mapping[str, str] | None = None,
    bad: str = "error",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Observations from a file or an object, with errors, flags and source.

    ===========================  ======================================================================================
    table                        CSV and other text, Parquet (needs pyarrow), or a DataFrame; wide, or long with the
                                 columns ``observation`` and ``variable``; units in the header, ``t2m [K]``
    discrete sampling geometry   points, time series, trajectories, profiles of the CF conventions (1.11, chapter 9)
    IODA                         the groups ``MetaData``, ``ObsValue``, ``ObsError``, ``PreQC`` of JEDI; a file, or a
                                 DataTree
    observation sequence         of DART, in ASCII; variables are named after the types
    along-track altimetry        level 3 of AVISO and of the Copernicus Marine Service
    fields                       on a grid, NaN = not observed (the grid form)
    ===========================  ======================================================================================

    Observations of sdaxr are returned as they are.

    Parameters
    ----------
    source
        Path or URL of a file or of a Zarr store, a DataFrame, a Dataset or a DataTree.
    columns
        Columns of the source by the name that they get, such as ``{"time": "date", "t2m": "temperature"}``. For long
        tables and observation sequences also entries of the column ``variable``, one or several, such as
        ``{"t": ["ACARS_TEMPERATURE", "RADIOSONDE_TEMPERATURE"]}``. A column that is not named is recognised by its name
        or its attributes.
    variables
        Measured variables that are wanted. Default: all.
    errors
        One standard deviation of the error, in the units of the variable: a number, or one for each variable, or one
        for each variable and entry of the column ``source``. It takes the place of what the source says.
    units
        Units of variables that have none in the source. For times: a unit since a date, such as
        ``"seconds since 1970-01-01"``, or a format, such as ``"%Y%m%d%H"``. Nothing is converted.
    bad
        ``"error"``, or ``"drop"`` to leave out rows without a time or a position, or with text in the place of a
        number. The attribute ``rows_dropped`` counts them.
    storage_options
        Options of the file system of a URL (fsspec).

    Returns
    -------
    xarray.Dataset
        Point form: ``<variable>``, ``<variable>_error`` and ``<variable>_qc`` on (obs), with the coordinates ``time``,
        ``lat`` and ``lon`` (or what ``columns`` calls them), levels, stations, ``source``. Rows without any value are
        left out; the attribute ``rows_without_values`` counts them.

    Raises
    ------
    DataError
        If there is no time, position, value or error, or a row is bad.
    UnitsError
        If units are missing, or differ from those in ``units``.
    OptionError
        If an option names something that does not exist.
    ArchiveError
        If the file cannot be read.
    """
    path = located(source, storage_options) if isinstance(source, str | PathLike | Remote) else None
    data = opened(source if path is None else path)
    reader = reader_of(data)
    if reader is None:
        return _as_given(data, columns, variables, errors, units)
    title = reader.title if path is None else f"'{path.name}' ({reader.title})"
    chosen = [c for of in (columns or {}).values() for c in ([of] if isinstance(of, str) else of)]
    table = reader.read(data, [*chosen, *(variables or ())])
    table = assign_roles(table, columns, variables)
    return with_errors(with_units(point_form(table, units=units or {}, bad=bad, source=title), units or {}), errors)


def _as_given(
    data: xr.Dataset,
    columns: Columns | None,
    variables: Sequence[str] | None,
    errors: Errors | None,
    units: Mapping[str, str] | None,
) -> xr.Dataset:
    """Observations of sdaxr, or fields on a grid."""
    if columns is not None:
        bad = [of for of in columns.values() if not isinstance(of, str) or of not in data.variables]
        if bad:
            raise OptionError(f"columns= names {bad[0]!r}, expected one of {list(map(str, data.variables))}")
        names = {f"{of}{end}": f"{name}{end}" for name, of in columns.items() for end in ("", ERROR, QUALITY)}
        data = data.rename({old: new for old, new in names.items() if old in data.variables})
    if variables is not None:
        missing = [n for n in variables if n not in data]
        if missing:
            raise OptionError(f"variables= names {missing[0]!r}, expected some of {list(map(str, data.data_vars))}")
        data = data[[v + end for v in variables for end in ("", ERROR, QUALITY) if v + end in data]]
    if errors is None and (is_own(data) or units is None):
        return data
    return with_errors(with_units(data, units or {}), errors)
