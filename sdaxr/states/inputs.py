"""What users hand in, as a Dataset, or an error that says how to make one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import xarray as xr
from xarray.indexes import PandasMultiIndex

from sdaxr.schema import DataError
from sdaxr.states.attributes import plain


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
    return plain(data)


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
