"""Datasets as NetCDF files."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from sdaxr.archives.configuration import HASH
from sdaxr.archives.format import UNIT, VARIABLES, shapes_attr


def to_netcdf(data: xr.Dataset, path: Path, *, whole: bool = False) -> None:
    """Write a NetCDF file; ``whole`` notes in it that it holds a whole archive in units of work, and which."""
    bookkeeping = shapes_attr(data) if whole else {}
    dropped = () if whole else (HASH, UNIT, VARIABLES)
    data = data.drop_encoding().assign_attrs(bookkeeping)
    data.attrs = {key: value for key, value in data.attrs.items() if key not in dropped}
    # xarray marks gaps in all floats; CF has none in coordinates.
    data.to_netcdf(path, engine="netcdf4", encoding={name: {"_FillValue": None} for name in data.coords})
