"""Along-track altimetry: files of level 3 of AVISO and of the Copernicus Marine Service.

A file has one dimension, ``time``, with latitude, longitude, cycle and track of each measurement. Sea level anomalies
are there filtered and unfiltered: the same measurement twice. Corrections and the mean dynamic topography are carried.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.places import OBS
from sdaxr.schema import TIME, DataError
from sdaxr.states.axes import is_latitude, is_longitude

_LEVELS = ("sla", "adt", "ssh", "ssha")  # How the names of measured sea levels begin.


def is_altimetry(data: Any) -> bool:
    """Whether a Dataset holds sea levels along the tracks of a satellite."""
    if not isinstance(data, xr.Dataset) or not _sea_levels(data):
        return False
    places = [v for n, v in data.variables.items() if is_latitude(n, v.attrs) or is_longitude(n, v.attrs)]
    return len(places) == 2 and all(v.dims == (TIME,) for v in places)


def read_altimetry(data: xr.Dataset, chosen: Collection[str]) -> xr.Dataset:
    """Measurements along tracks as a table, on (obs).

    Parameters
    ----------
    data
        Variables along ``time``.
    chosen
        Names of the file that the caller asks for.

    Raises
    ------
    DataError
        If there are several sea levels, and the caller has not chosen one.
    """
    levels = _sea_levels(data)
    wanted = [n for n in levels if n in chosen] or levels
    if len(wanted) > 1:
        raise DataError(
            f"found {wanted}, the same measurement {len(wanted)} times, expected one; choose it and its name in the "
            f"prior with columns={{'sla': {wanted[-1]!r}}}"
        )
    along = data.drop_vars([n for n in levels if n not in wanted]).compute().reset_coords()
    columns = {n: (OBS, v.values, v.attrs) for n, v in along.variables.items() if v.dims == (TIME,)}
    table = xr.Dataset(columns, attrs=data.attrs)
    error = [n for n in table.variables if str(n).endswith(("_error", "_err", "_uncertainty"))]
    table = table.set_coords([n for n in table.variables if n not in (*wanted, *error)])
    platform = data.attrs.get("platform", data.attrs.get("mission"))
    if platform and "source" not in table:
        table = table.assign_coords(source=(OBS, np.full(table.sizes[OBS], str(platform), object)))
    return table


def _sea_levels(data: xr.Dataset) -> list[str]:
    along = [str(n) for n, v in data.data_vars.items() if v.dims == (TIME,) and v.dtype.kind in "fiu"]
    found = [n for n in along if n.lower().split("_")[0] in _LEVELS]
    return [n for n in found if not n.lower().endswith(("error", "err", "uncertainty", "qc", "flag"))]
