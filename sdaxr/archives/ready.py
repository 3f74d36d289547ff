"""Files of any kind as Datasets that are worked with, and what the libraries below say of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import xarray as xr

from sdaxr.archives.format import STORED
from sdaxr.archives.remote import Remote
from sdaxr.schema import ArchiveError
from sdaxr.states.attributes import with_typed_flags

P = TypeVar("P", Path, Remote)

# What an encoding says about the values; the rest is the layout of one file.
_ENCODING = ("units", "calendar", "dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")

# Bytes of a NetCDF file that is read as a whole when it is opened.
_HELD = 32e6


def ready(data: xr.Dataset) -> xr.Dataset:
    """``data`` as it is worked with.

    Small coordinates are in memory, texts as objects: zarr's own string type is not known everywhere yet. The layout of
    the file is forgotten, so that the data can be rechunked, and written in another format.
    """
    for variable in data.variables.values():
        variable.encoding = {key: value for key, value in variable.encoding.items() if key in _ENCODING}
        variable.attrs = with_typed_flags(variable.attrs, variable.dtype)
    labels = {name: c.variable for name, c in data.coords.items() if c.ndim <= 1 and name not in data.xindexes}
    loaded = {}
    for name, variable in labels.items():
        values = variable.values
        loaded[name] = variable.copy(data=values.astype(object) if values.dtype.kind in "TU" else values)
    return data.assign_coords(loaded)


def open_netcdf(path: Path) -> xr.Dataset:
    """A NetCDF file, in memory where it is small."""
    # HDF5 2.2 crashes where a file with texts is open twice and one of them is closed: small files are not kept open.
    if path.is_file() and path.stat().st_size <= _HELD:
        return xr.load_dataset(path).chunk()
    data: xr.Dataset = xr.open_dataset(path, chunks={})
    data.attrs.pop(STORED, None)
    return data


def opened(place: P, opener: Callable[[P], xr.Dataset], kind: str, name: object = None) -> xr.Dataset:
    """What ``opener`` makes of ``place``, which errors call by ``name``.

    Raises
    ------
    ArchiveError
        If it cannot be read as ``kind``, or has its variables in groups.
    """
    try:
        data = ready(opener(place))
        groups = [] if data.variables else _groups(place)
    except ArchiveError:
        raise
    except Exception as error:  # the libraries below raise whatever they like on a broken file
        reason = " ".join(str(error).split())
        if reason.startswith("did not find a match in any of xarray's"):  # a list of all engines follows
            reason = "its first bytes are those of no such file"
        raise ArchiveError(f"{str(name or place)!r} cannot be read as {kind}: {reason}") from error
    if groups:
        raise ArchiveError(
            f"{str(name or place)!r} has its variables in the groups {groups}, expected variables outside of groups; "
            f"write a group to a file of its own, xr.open_dataset(path, group={groups[0]!r}).to_netcdf(...)"
        )
    return data


def _groups(place: Path | Remote) -> list[str]:
    import zarr

    if isinstance(place, Remote):
        return sorted(zarr.open_group(place.store(read_only=True), mode="r").group_keys()) if place.lists else []
    if place.is_dir():
        return sorted(zarr.open_group(place, mode="r").group_keys())
    return sorted(name.strip("/") for name in xr.open_groups(place) if name != "/")
