"""Opening archives and files of a URL or of a store of Zarr; what is unfinished or damaged is refused.

A finished archive costs one request for its metadata, one for those of an unfinished archive, which are not there, and
one for each thousand objects that are listed. Where nothing can be listed (``https://``), a chunk that is missing is an
error when it is read.
"""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.chunks import (
    CheckedStore,
    consolidated_arrays,
    counts_of,
    missing_chunks,
    missing_error,
    stored_of,
)
from sdaxr.archives.configuration import CONFIG, HASH
from sdaxr.archives.finished import partial_of
from sdaxr.archives.format import COMPLETE, FAILED, FAILURES, PENDING, STATUS, STORED, UNIT, VARIABLES, is_netcdf
from sdaxr.archives.objects import ROOT, UNFINISHED, GuardedStore, Objects, UnfinishedStore
from sdaxr.archives.ready import open_netcdf, opened
from sdaxr.archives.remote import Remote, kept_copy
from sdaxr.archives.units import Lost, shortfall_of, without
from sdaxr.archives.writers import WRITERS
from sdaxr.schema import ArchiveError

UNFINISHED_ROOT = f"{UNFINISHED}/{ROOT}"
FAILED_UNITS = f"{UNFINISHED}/{FAILURES}"
SIGNED = f"{UNFINISHED}/{WRITERS}"


@dataclass(frozen=True)
class Found:
    """The metadata of a group that is finished, and of one that is not; None where there are none."""

    root: dict[str, Any] | None
    unfinished: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the group is finished: what is unfinished beside it is nothing else than this one was."""
        if self.root is None or self.unfinished is None:
            return self.root is not None
        return own_attrs_of(self.root).get(HASH) == own_attrs_of(self.unfinished).get(HASH)

    @property
    def current(self) -> dict[str, Any] | None:
        """The metadata that count."""
        return self.root if self.finished else self.unfinished


def look(objects: Objects) -> Found:
    """What is there."""
    return Found(objects.metadata(ROOT), objects.metadata(UNFINISHED_ROOT))


def own_attrs_of(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes of an archive in units of work; empty for anything else."""
    attrs = dict((metadata or {}).get("attributes", {}))
    return attrs if {CONFIG, HASH, UNIT, VARIABLES} <= set(attrs) else {}


def status_from(metadata: Mapping[str, Any], keys: Collection[str]) -> np.ndarray:
    """Status of each unit, int8 ``(unit,)``, by the objects that are there."""
    count = consolidated_arrays(metadata)[STATUS]["shape"][0]
    status = np.full(count, PENDING, np.int8)
    for prefix, value in ((f"{FAILED_UNITS}/", FAILED), (f"{STATUS}/c/", COMPLETE)):
        status[[int(key.removeprefix(prefix)) for key in keys if key.startswith(prefix)]] = value
    return status


def lost_chunks(metadata: Mapping[str, Any], keys: Collection[str]) -> Lost:
    """Chunks of units that are marked complete, but are not there."""
    counts = counts_of(consolidated_arrays(metadata), own=True)
    marked = np.flatnonzero(status_from(metadata, keys) == COMPLETE).tolist()
    variables = metadata["attributes"][VARIABLES]
    return list(missing_chunks(keys, {name: counts[name] for name in variables}, marked))


def failures_from(objects: Objects, status: np.ndarray) -> dict[int, str]:
    """Why units failed, by index."""
    failed = np.flatnonzero(status == FAILED).tolist()
    return {index: (objects.get(f"{FAILED_UNITS}/{index}") or b"").decode() for index in failed}


def open_remote(place: Remote, *, allow_incomplete: bool = False) -> xr.Dataset:
    """Open what is at ``place``, as `sdaxr.open_archive`.

    Raises
    ------
    ArchiveError
        If there is nothing, it is neither Zarr nor NetCDF, or it is unfinished or damaged.
    """
    if place.held is None and place.suffix != ".zarr" and "::" not in place.url and place.is_file():
        return _open_file(place, allow_incomplete)
    objects = Objects.of(place)
    found = look(objects)
    metadata = found.current
    if metadata is None:
        return _open_other(place, objects, allow_incomplete)
    own = own_attrs_of(metadata)
    if not found.finished and not own:
        raise ArchiveError(
            f"'{place}' is not finished: its writer is still at work, or was killed; run the job again, or overwrite it"
        )
    if metadata.get("node_type") != "group":
        raise ArchiveError(f"the metadata of '{place}' are damaged, or not those of a Zarr group; copy it again")
    counts = counts_of(consolidated_arrays(metadata), own=bool(own))
    if found.finished and metadata.get("attributes", {}).get(STORED) != stored_of(counts)[STORED]:
        return _open_zarr(place, bool(metadata.get("consolidated_metadata")))
    keys = objects.keys("") if place.lists else None
    if own:
        return _open_own(place, objects, metadata, keys, found.finished, allow_incomplete)
    for name, index in missing_chunks(keys, counts) if keys is not None else ():
        raise missing_error(place, name, index, own=False)
    return _checked(place, objects, counts, own=False, finished=True)


def units_of(place: Remote, objects: Objects, keys: Collection[str]) -> tuple[xr.Dataset, list[int]]:
    """The units of an unfinished archive that are complete, and their numbers."""
    metadata = objects.metadata(UNFINISHED_ROOT)
    if metadata is None:
        raise ArchiveError(f"'{place}' is gone or replaced; run the job again to start anew")
    return _units(place, objects, metadata, keys, finished=False)


def zipped(url: str, options: Mapping[str, Any] | None = None) -> Remote:
    """The content of a zip file, or of the only folder that it holds."""
    chained = {url.partition("://")[0]: dict(options)} if options else {}
    whole = Remote(f"zip::{url}", chained)
    keys = Objects.of(whole).keys("")
    folders = {key.partition("/")[0] for key in keys}
    if keys & {ROOT, ".zgroup"} or len(folders) != 1:
        return whole
    return Remote(f"zip://{folders.pop()}::{url}", chained)


def _open_own(
    place: Remote,
    objects: Objects,
    metadata: Mapping[str, Any],
    keys: Collection[str] | None,
    finished: bool,
    allow_incomplete: bool,
) -> xr.Dataset:
    if keys is None:
        return _checked(place, objects, _counts(metadata), own=True, finished=finished)
    if not finished and not allow_incomplete:
        raise ArchiveError(f"{_shortfall(place, objects, metadata, keys, finished)}, or pass allow_incomplete=True")
    data, done = _units(place, objects, metadata, keys, finished=finished)
    if len(done) < _size(metadata) and not allow_incomplete:
        raise ArchiveError(f"{_shortfall(place, objects, metadata, keys, finished)}, or pass allow_incomplete=True")
    return data


def _units(
    place: Remote, objects: Objects, metadata: Mapping[str, Any], keys: Collection[str], *, finished: bool
) -> tuple[xr.Dataset, list[int]]:
    """The units that are complete, and their numbers. Their status is asked of the keys, not read one by one."""
    unit, status = metadata["attributes"][UNIT], status_from(metadata, keys)
    data = _checked(place, objects, _counts(metadata), own=True, finished=finished, status=(unit, status))
    done = without(lost_chunks(metadata, keys), status)
    return (data if len(done) == status.size else data.isel({unit: done})), done


def _shortfall(
    place: Remote, objects: Objects, metadata: Mapping[str, Any], keys: Collection[str], finished: bool
) -> str:
    status = status_from(metadata, keys)
    lost, failed = lost_chunks(metadata, keys), failures_from(objects, status)
    return shortfall_of(place, metadata["attributes"][UNIT], status, lost, failed, finished=finished)


def _counts(metadata: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return counts_of(consolidated_arrays(metadata), own=True)


def _size(metadata: Mapping[str, Any]) -> int:
    return int(consolidated_arrays(metadata)[STATUS]["shape"][0])


def _checked(
    place: Remote,
    objects: Objects,
    names: Collection[str],
    *,
    own: bool,
    finished: bool,
    status: tuple[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """A Zarr group whose chunks are all there; ``status`` is that of the units, along a dimension, if it is known."""
    inner = objects.store if finished else UnfinishedStore(objects.store)
    # The same URL may hold something else later.
    store = CheckedStore(inner, frozenset(names), str(place), own=own, token=uuid.uuid4().hex)

    def opener(_: Remote) -> xr.Dataset:
        data: xr.Dataset = xr.open_zarr(store, chunks={}, consolidated=True)
        data.attrs.pop(STORED, None)
        return data if status is None else data.assign_coords({STATUS: (*status, data[STATUS].attrs)})

    return opened(place, opener, "a Zarr archive")


def _open_zarr(place: Remote, consolidated: bool) -> xr.Dataset:
    store = GuardedStore(place.store(read_only=True), str(place))
    return opened(place, lambda _: xr.open_zarr(store, chunks={}, consolidated=consolidated), "a Zarr archive")


def _open_other(place: Remote, objects: Objects, allow_incomplete: bool) -> xr.Dataset:
    """What has no metadata of Zarr format 3."""
    if objects.has(".zmetadata") or objects.has(".zgroup"):
        return _open_zarr(place, objects.has(".zmetadata"))
    if place.is_file() and "::" not in place.url:
        return _open_file(place, allow_incomplete)
    if is_netcdf(place) and place.held is None and look(Objects.of(partial_of(place))).unfinished is not None:
        return open_remote(partial_of(place), allow_incomplete=allow_incomplete)
    raise ArchiveError(f"{place.about_nothing()}; expected a Zarr archive or a NetCDF file")


def _open_file(place: Remote, allow_incomplete: bool) -> xr.Dataset:
    if place.suffix == ".zip":
        return open_remote(zipped(place.url, place.options), allow_incomplete=allow_incomplete)
    copy = kept_copy(place)
    if zipfile.is_zipfile(copy):
        return open_remote(zipped(copy.as_uri()), allow_incomplete=allow_incomplete)
    return opened(copy, open_netcdf, "a NetCDF file", name=place)
