"""Complete Datasets to files, Zarr or NetCDF by the suffix; `archive` holds those that grow unit by unit."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from sdaxr.archives.chunks import chunk_encoding, stored_attr
from sdaxr.archives.configuration import HASH
from sdaxr.archives.finished import publish, workspace
from sdaxr.archives.format import STORED, UNIT, VARIABLES, is_netcdf, open_group, shapes_attr, storage_errors
from sdaxr.archives.paths import local_path, store_path
from sdaxr.schema import ArchiveError
from sdaxr.states.attributes import plain

_log = logging.getLogger(__name__)


def check_free(store: str | Path | None, overwrite: bool) -> None:
    """Raise `ArchiveError` if ``store`` exists and may not be replaced, `OptionError` if it has no known suffix."""
    if store is None:
        return
    path = store_path(store)
    if path.exists() and not overwrite:
        raise ArchiveError(f"'{store}' exists; give another store, or overwrite it (overwrite, --overwrite)")
    if path.is_dir() and not (path / "zarr.json").exists():
        raise ArchiveError(f"'{store}' is a directory, but no Zarr archive, so it is not overwritten; move it away")


def save(data: xr.Dataset, store: str | Path, *, overwrite: bool = False) -> xr.Dataset:
    """Write ``data`` to Zarr or NetCDF by the suffix of ``store``.

    Parameters
    ----------
    data
        The whole Dataset; Dask arrays are computed chunk by chunk.
    store
        The file. It is there when all of it has been written, and not before.
    overwrite
        Replace a file of this name, which stays until the new one is complete.

    Returns
    -------
    ``data``, as it was given.

    Raises
    ------
    ArchiveError
        If the file cannot be written, or another process has written one of this name in the meantime.
    """
    with written_whole(store, overwrite=overwrite) as unfinished:
        if is_netcdf(unfinished):
            to_netcdf(plain(data), unfinished)
        else:
            _to_zarr(plain(data), unfinished)
    _log.info("wrote %s", store)
    return data


@contextlib.contextmanager
def written_whole(store: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """A path of the same suffix to write to; what is there at the end gets the name ``store``, all at once.

    Every writer has a path of its own. After an error, nothing is left of it, and a file of the name ``store`` is as it
    was.

    Parameters
    ----------
    store
        The final name.
    overwrite
        Replace a file of this name.

    Raises
    ------
    ArchiveError
        If the file cannot be written, or there is one of this name that may not be replaced.
    """
    final = Path(os.path.abspath(local_path(store)))
    with storage_errors("write", str(store)), workspace(final) as own:
        yield own / final.name
        publish(own / final.name, final, own, replace=overwrite)


def to_netcdf(data: xr.Dataset, path: Path, *, whole: bool = False) -> None:
    """Write a NetCDF file; ``whole`` notes in it that it holds a whole archive in units of work, and which."""
    bookkeeping = shapes_attr(data) if whole else {}
    dropped = () if whole else (HASH, UNIT, VARIABLES)
    data = data.drop_encoding().assign_attrs(bookkeeping)
    data.attrs = {key: value for key, value in data.attrs.items() if key not in dropped}
    # xarray marks gaps in all floats; CF has none in coordinates.
    data.to_netcdf(path, engine="netcdf4", encoding={name: {"_FillValue": None} for name in data.coords})


def _to_zarr(data: xr.Dataset, path: Path) -> None:
    import zarr

    # Zarr has no stable format for strings of fixed length.
    strings = {name: c.astype(object) for name, c in data.coords.items() if c.dtype.kind == "U"}
    data = data.assign_coords(strings).drop_encoding()
    # Zarr wants chunks of one size, which windows that are joined have not.
    lazy = {name: v for name, v in data.variables.items() if v.chunks is not None}
    data = data.assign({n: v.chunk({d: max(c) for d, c in v.chunksizes.items()}) for n, v in lazy.items()})
    # A Dataset that comes from an archive in units of work is none itself.
    data.attrs = {key: value for key, value in data.attrs.items() if key not in (HASH, UNIT, VARIABLES, STORED)}
    data.to_zarr(path, zarr_format=3, consolidated=False, encoding=chunk_encoding(data.variables))
    open_group(path, mode="r+").attrs.update(stored_attr(path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(str(path))
