"""Datasets as NetCDF files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import xarray as xr

from sdaxr.archives.configuration import HASH
from sdaxr.archives.format import UNIT, VARIABLES, shapes_attr


def to_netcdf(data: xr.Dataset, path: Path, *, whole: bool = False) -> None:
    """Write a NetCDF file; ``whole`` notes in it that it holds a whole archive in units of work, and which.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    bookkeeping = shapes_attr(data) if whole else {}
    dropped = () if whole else (HASH, UNIT, VARIABLES)
    data = data.drop_encoding().assign_attrs(bookkeeping)
    data.attrs = {key: value for key, value in data.attrs.items() if key not in dropped}
    # xarray marks gaps in all floats; CF has none in coordinates.
    try:
        data.to_netcdf(path, engine="netcdf4", encoding={name: {"_FillValue": None} for name in data.coords})
    except RuntimeError as error:
        raise _reason(path, error) from error


def _reason(path: Path, error: RuntimeError) -> OSError:
    """What the file system says, which the NetCDF library does not tell: some bytes more are written to the file."""
    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found
    return OSError(errno.EIO, f"{' '.join(str(error).split())} in the NetCDF library")
