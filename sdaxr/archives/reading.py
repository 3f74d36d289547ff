"""Opening the files of sdaxr, and other people's; what is unfinished or damaged is refused."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import xarray as xr
from zarr.storage import LocalStore

from sdaxr.archives.chunks import CheckedStore, chunk_counts, holds_every_chunk, missing_chunks, missing_error
from sdaxr.archives.finished import PARTIAL, is_unfinished, partial_of, windows_of
from sdaxr.archives.format import STATUS, STORED, UNIT, is_consolidated, own_attrs, read_metadata
from sdaxr.archives.paths import local_path
from sdaxr.archives.units import complete_units, shortfall
from sdaxr.schema import ArchiveError
from sdaxr.states.attributes import with_typed_flags

# What an encoding says about the values; the rest is the layout of one file.
_ENCODING = ("units", "calendar", "dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")

# Bytes of a NetCDF file that is read as a whole when it is opened.
_HELD = 32e6


def open_archive(path: str | PathLike[str], *, allow_incomplete: bool = False) -> xr.Dataset:
    """Open a Zarr archive or a NetCDF file lazily; a NetCDF file of up to 32 MB is read at once.

    Chunks of sdaxr's own Zarr files are looked for when the file is opened, and their checksums are verified when they
    are read: one that is missing or damaged is an error then, not NaN.

    Parameters
    ----------
    path
        A Zarr directory, or a NetCDF file. It need not be sdaxr's own.
    allow_incomplete
        Open an archive that is still being written, or has lost some of its chunks, too: the units that are complete,
        no others.

    Returns
    -------
    xarray.Dataset
        With Dask arrays, one chunk per chunk on disk.

    Raises
    ------
    ArchiveError
        If there is nothing at ``path``, it is neither Zarr nor NetCDF, or it is unfinished or damaged.
    """
    final = local_path(path)
    if final.is_file() and not is_unfinished(final):
        if zipfile.is_zipfile(final):
            raise ArchiveError(f"{str(final)!r} is a zip file, expected a Zarr directory or a NetCDF file; unpack it")
        return _opened(final, _open_netcdf, "a NetCDF file")
    where = _find(final)
    if not (where / "zarr.json").exists() and not (where / ".zgroup").exists():
        raise ArchiveError(f"{str(where)!r} is a directory without Zarr metadata; expected a Zarr archive")
    if (where / "zarr.json").exists() and read_metadata(where).get("node_type") != "group":
        raise ArchiveError(f"the metadata of {str(where)!r} are damaged, or not those of a Zarr group; copy it again")
    own = own_attrs(where)
    if is_unfinished(where):
        if own is None:
            raise _left_behind(where)
        if not allow_incomplete:
            raise ArchiveError(f"{shortfall(where)}, or pass allow_incomplete=True")
        return open_units(where, own[UNIT], allow_incomplete=True)
    if not holds_every_chunk(where):
        return _opened(where, _open_zarr, "a Zarr archive")
    if own is not None:
        return open_units(where, own[UNIT], allow_incomplete=allow_incomplete)
    for name, index in missing_chunks(where, chunk_counts(where)):
        raise missing_error(where, name, index)
    return _opened(where, _open_checked, "a Zarr archive")


def _find(final: Path) -> Path:
    """Where the archive of this name lies, finished or not."""
    if final.suffix == PARTIAL and not final.exists():
        final = final.with_suffix("")
    if final.is_file():
        raise _left_behind(final)
    if final.exists():
        return final
    if own_attrs(partial_of(final)) is not None:
        return partial_of(final)
    windows = windows_of(final)
    if windows.exists():
        raise ArchiveError(
            f"{str(final)!r} is not finished: '{windows.name}' holds the windows of a cycle; run it again to go on"
        )
    pattern = "; a pattern is not expanded: join the files, xr.open_mfdataset" if set("*?[") & set(final.name) else ""
    raise ArchiveError(f"there is nothing at {str(final)!r}; expected a Zarr directory or a NetCDF file{pattern}")


def _left_behind(path: Path) -> ArchiveError:
    return ArchiveError(
        f"{str(path)!r} is not finished: its writer is still at work, or was killed; run the job again. If the file is "
        "of other software and complete, give it a name that does not end in .partial"
    )


def open_units(path: Path, unit: str, *, allow_incomplete: bool = False) -> xr.Dataset:
    """An archive of sdaxr in units of work: all of them, or those that are complete."""
    with warnings.catch_warnings():
        # The reasons of failed units lie beside the arrays.
        warnings.filterwarnings("ignore", message=".*not recognized as a component")
        data = _opened(path, _open_checked, "a Zarr archive")
    done = complete_units(path, data[STATUS].values)
    if len(done) == data.sizes[unit]:
        return data
    if not allow_incomplete:
        raise ArchiveError(f"{shortfall(path)}, or pass allow_incomplete=True")
    return data.isel({unit: done})


def _ready(data: xr.Dataset) -> xr.Dataset:
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


def _open_netcdf(path: Path) -> xr.Dataset:
    # HDF5 2.2 crashes where a file with texts is open twice and one of them is closed: small files are not kept open.
    if path.is_file() and path.stat().st_size <= _HELD:
        return xr.load_dataset(path).chunk()
    data: xr.Dataset = xr.open_dataset(path, chunks={})
    data.attrs.pop(STORED, None)
    return data


def _open_zarr(path: Path) -> xr.Dataset:
    # Asked for rather than tried, because xarray warns where there is none.
    data: xr.Dataset = xr.open_zarr(path, chunks={}, consolidated=is_consolidated(path))
    return data


def _open_checked(path: Path) -> xr.Dataset:
    store = CheckedStore(LocalStore(path, read_only=True))
    data: xr.Dataset = xr.open_zarr(store, chunks={}, consolidated=is_consolidated(path))
    # It says of the file what is not true of a Dataset that is made of it.
    data.attrs.pop(STORED, None)
    return data


def _opened(path: Path, opener: Callable[[Path], xr.Dataset], kind: str) -> xr.Dataset:
    try:
        data = _ready(opener(path))
        groups = [] if data.variables else _groups(path)
    except ArchiveError:
        raise
    except Exception as error:  # the libraries below raise whatever they like on a broken file
        reason = " ".join(str(error).split())
        if reason.startswith("did not find a match in any of xarray's"):  # a list of all engines follows
            reason = "its first bytes are those of no such file"
        raise ArchiveError(f"{str(path)!r} cannot be read as {kind}: {reason}") from error
    if groups:
        raise ArchiveError(
            f"{str(path)!r} has its variables in the groups {groups}, expected variables outside of groups; write a "
            f"group to a file of its own, xr.open_dataset(path, group={groups[0]!r}).to_netcdf(...)"
        )
    return data


def _groups(path: Path) -> list[str]:
    import zarr

    if path.is_dir():
        return sorted(zarr.open_group(path, mode="r").group_keys())
    return sorted(name.strip("/") for name in xr.open_groups(path) if name != "/")
