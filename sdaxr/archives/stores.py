"""Complete Datasets to files, Zarr or NetCDF by the suffix; `archive` holds those that grow unit by unit."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.abc.store import Store

from sdaxr.archives.chunks import chunk_encoding, consolidated_arrays, counts_of, missing_chunks, stored_attr, stored_of
from sdaxr.archives.configuration import HASH
from sdaxr.archives.finished import finished_name, publish, workspace
from sdaxr.archives.format import STORED, UNIT, VARIABLES, is_netcdf, open_group, storage_errors
from sdaxr.archives.netcdf import to_netcdf
from sdaxr.archives.objects import ROOT, UNFINISHED, WRITER, Objects, UnfinishedStore
from sdaxr.archives.paths import Location, located, store_path
from sdaxr.archives.remote import LOST, Remote
from sdaxr.archives.remote_reading import UNFINISHED_ROOT, look, own_attrs_of
from sdaxr.schema import ArchiveError
from sdaxr.states.attributes import plain

_log = logging.getLogger(__name__)


def check_free(store: str | Location | None, overwrite: bool) -> None:
    """Raise `ArchiveError` if ``store`` exists and may not be replaced, `OptionError` if it has no known suffix."""
    if store is None:
        return
    path = store_path(store)
    if isinstance(path, Remote):
        exists = is_there(path)
        other = not exists and path.exists() and not Objects.of(path).has(WRITER)
    else:
        exists = os.path.lexists(path)  # a link to nothing, too
        other = path.is_dir() and not (path / ROOT).exists()
    if (exists or other) and not overwrite:
        raise ArchiveError(f"'{store}' exists; give another store, or overwrite it (overwrite, --overwrite)")
    if other:
        raise ArchiveError(f"'{store}' is a directory, but no Zarr archive, so it is not overwritten; move it away")


def is_there(place: Location) -> bool:
    """Whether there is a file, or an archive; what a killed writer of a whole file has left in a store is none."""
    if isinstance(place, Remote) and not is_netcdf(place):
        found = look(Objects.of(place))
        return found.root is not None or bool(own_attrs_of(found.unfinished))
    return place.exists()


def is_finished(place: Location) -> bool:
    """Whether a file of any kind, or an archive, is there and finished: on a file system, by its name alone."""
    if isinstance(place, Remote) and place.suffix == ".zarr":
        return look(Objects.of(place)).finished
    return place.exists()


def save(
    data: xr.Dataset,
    store: str | Location,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Write ``data`` to Zarr or NetCDF by the suffix of ``store``.

    Parameters
    ----------
    data
        The whole Dataset; Dask arrays are computed chunk by chunk.
    store
        The file, by its path or its URL. It is there when all of it has been written, and not before.
    overwrite
        Replace a file of this name, which stays until the new one is complete. A Zarr archive in an object store is
        gone at once.
    storage_options
        Options of the file system of a URL (fsspec).

    Returns
    -------
    ``data``, as it was given.

    Raises
    ------
    ArchiveError
        If the file cannot be written, or another process has written one of this name in the meantime.
    """
    place = located(store, storage_options)
    if isinstance(place, Remote) and not is_netcdf(place):
        check_free(place, overwrite)
        _to_objects(plain(data), place)
    else:
        with written_whole(place, overwrite=overwrite) as unfinished:
            if is_netcdf(unfinished):
                to_netcdf(plain(data), unfinished)
            else:
                _to_zarr(plain(data), unfinished)
    _log.info("wrote %s", store)
    return data


@contextlib.contextmanager
def written_whole(store: str | Location, *, overwrite: bool) -> Iterator[Path]:
    """A path of the same suffix to write to; what is there at the end gets the name ``store``, all at once.

    Every writer has a path of its own. After an error, nothing is left of it, and a file of the name ``store`` is as it
    was. The file of a URL is written on this machine, and copied when it is complete.

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
    place = located(store)
    if isinstance(place, Remote):
        place.check_writable()
        with storage_errors("write", str(place)), tempfile.TemporaryDirectory(prefix="sdaxr-") as folder:
            yield Path(folder) / place.name
            if not overwrite and place.exists():
                raise ArchiveError(f"'{place}' exists; give another store, or overwrite it (overwrite, --overwrite)")
            place.put(Path(folder) / place.name)
        return
    final = Path(os.path.abspath(place))
    with storage_errors("write", str(store)), workspace(final) as own:
        yield own / final.name
        publish(own / final.name, final, own, replace=overwrite)


@contextlib.contextmanager
def written_to(place: Location) -> Iterator[Path]:
    """A path to write a file to that need not be complete at once: that of ``place`` itself, unless it has a URL.

    Raises
    ------
    ArchiveError
        If the file cannot be written.
    """
    if isinstance(place, Remote):
        with written_whole(place, overwrite=True) as unfinished:
            yield unfinished
    else:
        with storage_errors("write", str(finished_name(place))):
            place.parent.stat()  # A folder that is not there is an error before anything is computed.
            yield place


def _to_zarr(data: xr.Dataset, path: Path) -> None:
    _write_zarr(data, path)
    open_group(path, mode="r+").attrs.update(stored_attr(path))
    _consolidate(str(path))


def _to_objects(data: xr.Dataset, place: Remote) -> None:
    """Write a Zarr archive whose metadata come last; what is there is removed first."""
    objects, own = Objects.of(place, read_only=False), uuid.uuid4().hex.encode()
    objects.take(own)
    unfinished = UnfinishedStore(objects.store)
    _write_zarr(data, unfinished, mode="a")  # beside the note of the writer
    _consolidate(unfinished)
    metadata, keys = objects.metadata(UNFINISHED_ROOT) or {}, objects.keys("")
    counts = counts_of(consolidated_arrays(metadata), own=False)
    if objects.get(WRITER) != own:
        raise ArchiveError(f"'{place}' is written by another process, too; choose another store, or run one at a time")
    if not metadata or next(missing_chunks(keys, counts), None) is not None:
        raise ArchiveError(f"cannot write '{place}': {LOST}; run the same job again")
    full = metadata | {"attributes": metadata["attributes"] | stored_of(counts)}
    objects.put_last(ROOT, json.dumps(full, indent=2).encode())
    objects.clear(f"{UNFINISHED}/")


def _write_zarr(data: xr.Dataset, target: Path | Store, mode: Any = "w-") -> None:
    # Zarr has no stable format for strings of fixed length.
    strings = {name: c.astype(object) for name, c in data.coords.items() if c.dtype.kind == "U"}
    data = data.assign_coords(strings).drop_encoding()
    # Zarr wants chunks of one size, which windows that are joined have not.
    lazy = {name: v for name, v in data.variables.items() if v.chunks is not None}
    data = data.assign({n: v.chunk({d: max(c) for d, c in v.chunksizes.items()}) for n, v in lazy.items()})
    # A Dataset that comes from an archive in units of work is none itself.
    data.attrs = {key: value for key, value in data.attrs.items() if key not in (HASH, UNIT, VARIABLES, STORED)}
    encoding = chunk_encoding(data.variables)
    data.to_zarr(target, mode=mode, zarr_format=3, consolidated=False, encoding=encoding)


def _consolidate(target: str | Store) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(target)
