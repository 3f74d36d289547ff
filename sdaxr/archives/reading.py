"""Opening the files of sdaxr, and other people's; what is unfinished or damaged is refused."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import xarray as xr

from sdaxr.archives.chunks import CheckedStore, chunk_counts, holds_every_chunk, missing_chunks, missing_error
from sdaxr.archives.finished import PARTIAL, is_unfinished, partial_of, windows_of
from sdaxr.archives.format import STATUS, STORED, UNIT, is_consolidated, own_attrs, read_metadata
from sdaxr.archives.paths import Location, located
from sdaxr.archives.ready import open_netcdf, opened
from sdaxr.archives.remote import Remote
from sdaxr.archives.remote_reading import open_remote, zipped
from sdaxr.archives.units import complete_units, shortfall
from sdaxr.schema import ArchiveError


def open_archive(
    path: str | PathLike[str] | Location | Any,
    *,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a Zarr archive or a NetCDF file lazily; a NetCDF file of up to 32 MB is read at once.

    Chunks of sdaxr's own Zarr files are looked for when the file is opened, and their checksums are verified when they
    are read: one that is missing or damaged is an error then, not NaN.

    Parameters
    ----------
    path
        A Zarr directory, a zip file of one, or a NetCDF file; its path or its URL, such as ``s3://bucket/a.zarr``; or a
        mapping of fsspec or a store of Zarr. It need not be sdaxr's own. A NetCDF file of a URL is copied.
    allow_incomplete
        Open an archive that is still being written, or has lost some of its chunks, too: the units that are complete,
        no others.
    storage_options
        Options of the file system of a URL (fsspec), such as ``{"anon": True}``.

    Returns
    -------
    xarray.Dataset
        With Dask arrays, one chunk per chunk on disk.

    Raises
    ------
    ArchiveError
        If there is nothing at ``path``, it is neither Zarr nor NetCDF, or it is unfinished or damaged.
    """
    final = located(path, storage_options)
    if isinstance(final, Remote):
        return open_remote(final, allow_incomplete=allow_incomplete)
    if final.is_file() and not is_unfinished(final):
        if zipfile.is_zipfile(final):
            return open_remote(zipped(final.absolute().as_uri()), allow_incomplete=allow_incomplete)
        return opened(final, open_netcdf, "a NetCDF file")
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
        return opened(where, _open_zarr, "a Zarr archive")
    if own is not None:
        return open_units(where, own[UNIT], allow_incomplete=allow_incomplete)
    for name, index in missing_chunks(where, chunk_counts(where)):
        raise missing_error(where, name, index, own=False)
    return opened(where, _open_checked, "a Zarr archive")


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
            f"{str(final)!r} is not finished: '{windows.name}' holds what is done; run the same job again to go on"
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
    data = open_every_unit(path)
    done = complete_units(path, data[STATUS].values)
    if len(done) == data.sizes[unit]:
        return data
    if not allow_incomplete:
        raise ArchiveError(f"{shortfall(path)}, or pass allow_incomplete=True")
    return data.isel({unit: done})


def open_every_unit(path: Path) -> xr.Dataset:
    """An archive of sdaxr in units of work, with those that are not complete, whose values cannot be read."""
    with warnings.catch_warnings():
        # The reasons of failed units lie beside the arrays.
        warnings.filterwarnings("ignore", message=".*not recognized as a component")
        return opened(path, _open_checked, "a Zarr archive")


def _open_zarr(path: Path) -> xr.Dataset:
    # Asked for rather than tried, because xarray warns where there is none.
    data: xr.Dataset = xr.open_zarr(path, chunks={}, consolidated=is_consolidated(path))
    return data


def _open_checked(path: Path) -> xr.Dataset:
    store = CheckedStore.of_directory(path)
    data: xr.Dataset = xr.open_zarr(store, chunks={}, consolidated=is_consolidated(path))
    # It says of the file what is not true of a Dataset that is made of it.
    data.attrs.pop(STORED, None)
    return data
