"""What users hand in, as a Dataset, or an error that says how to make one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import xarray as xr
from xarray.indexes import PandasMultiIndex

from sdaxr.schema import TIME, DataError
from sdaxr.states.attributes import plain

_LATITUDE = {"standard_name": "latitude", "units": "degrees_north"}
_LONGITUDE = {"standard_name": "longitude", "units": "degrees_east"}
_COORDINATES = {
    TIME: {"standard_name": "time", "long_name": "time"},
    **dict.fromkeys(("lat", "latitude"), _LATITUDE),
    **dict.fromkeys(("lon", "longitude"), _LONGITUDE),
}


def as_dataset(data: Any, what: str) -> xr.Dataset:
    """``data`` as a Dataset whose attributes every file can hold (`sdaxr.states.attributes.plain`).

    Parameters
    ----------
    data
        A Dataset, or a DataArray with a name.
    what
        What it is, for errors: ``"the truth"``.

    Raises
    ------
    DataError
        If ``data`` is of another type, a DataArray without a name, or has a dimension with several labels.
    """
    if isinstance(data, xr.DataArray):
        if data.name is None:
            raise DataError(f"{what}: found a DataArray without a name, expected one; set it, da.rename('t2m')")
        if data.name in data.coords:
            raise DataError(f"{what}: found the coordinate '{data.name}', expected a variable with coordinates")
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset):
        raise DataError(f"{what}: found a {_type(data)}, expected an xarray Dataset; {_remedy(data)}")
    for index in data.xindexes.values():
        if isinstance(index, PandasMultiIndex):
            raise DataError(
                f"{what}: '{index.dim}' has several labels, {list(index.index.names)}, expected one; make them "
                f"dimensions with ds.unstack('{index.dim}'), or coordinates with ds.reset_index('{index.dim}')"
            )
    return _named(plain(data))


def _named(data: xr.Dataset) -> xr.Dataset:
    """The Dataset, in which time, latitude and longitude of other people's files say what they are (CF conventions)."""
    for name, attrs in _COORDINATES.items():
        if name in data.coords and (name != TIME or _are_dates(data[name])):
            data[name].attrs = attrs | data[name].attrs
    return data


def _are_dates(times: xr.DataArray) -> bool:
    first = times.values.flat[0] if times.dtype == object and times.size else None
    return times.dtype.kind == "M" or hasattr(first, "calendar")  # the latter of cftime


def _type(data: Any) -> str:
    kind = type(data)
    return f"{kind.__module__.partition('.')[0]} {kind.__name__}" if kind.__module__ != "builtins" else kind.__name__


def _remedy(data: Any) -> str:
    if isinstance(data, str | os.PathLike):
        return f"open the file, sdaxr.open_archive({os.fspath(data)!r})"
    if isinstance(data, xr.DataTree):
        return "take one node of the tree, tree['name'].to_dataset()"
    if isinstance(data, Mapping):
        return "take one entry of the mapping, or join them with xr.merge"
    if type(data).__module__.partition(".")[0] == "pandas":
        return (
            "a table of observations is read by sdaxr.read_observations(table), a table of fields by "
            "table.set_index(['time', 'lat', 'lon']).to_xarray()"
        )
    return "give arrays their labels, xr.Dataset({'t2m': (('time', 'lat', 'lon'), values)}, coords)"
