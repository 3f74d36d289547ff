"""Resumable archives in object stores, which many processes fill without renames and without locks.

The arrays lie where they stay. One unit is checked, its chunks are written, and last the chunk of ``status`` that marks
it complete; an object is there as a whole or not at all, so that a unit is, too. The archive itself is complete when
its metadata, ``zarr.json``, are there, which are written when all chunks of all units are; until then they lie in
``sdaxr.partial`` (`sdaxr.archives.objects`), with the reasons of failures. What a unit costs does not depend on the
number of units: which are complete is asked of one listing.

Two writers of one configuration write the same objects. A writer whose archive has been replaced by one of another
configuration finds this out before each unit. There is nothing that holds it back between this look and its writing:
whoever overwrites an archive ends its writers first. An archive that is overwritten is gone from then on, because its
objects have the names of those that come.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import MemoryStore

from sdaxr.archives.chunks import consolidated_arrays, counts_of, missing_chunks, missing_error, stored_of
from sdaxr.archives.configuration import CONFIG, HASH, difference, made_otherwise
from sdaxr.archives.finished import partial_of
from sdaxr.archives.format import COMPLETE, ROUND, STATUS, STORED, VARIABLES, is_netcdf, whole_netcdf_attrs
from sdaxr.archives.netcdf import to_netcdf
from sdaxr.archives.objects import ROOT, UNFINISHED, WRITER, Objects, UnfinishedStore
from sdaxr.archives.remote import Remote, local_copy
from sdaxr.archives.remote_reading import (
    FAILED_UNITS,
    SIGNED,
    UNFINISHED_ROOT,
    Found,
    failures_from,
    look,
    lost_chunks,
    open_remote,
    own_attrs_of,
    status_from,
    units_of,
)
from sdaxr.archives.template import write_template
from sdaxr.archives.units import check_round, check_unit, shortfall_of, without
from sdaxr.archives.writers import Writer
from sdaxr.schema import ArchiveError

_log = logging.getLogger(__name__)

# Variables of a unit that are written at once.
_TOGETHER = 8


@dataclass(frozen=True)
class ObjectArchive:
    """An archive in units of work by URL; small enough to travel to the workers, which open the store themselves.

    Attributes
    ----------
    place
        Where the finished archive will be.
    unit, digest, finite, round
        As of `sdaxr.archives.archive.Archive`, whose methods it has.
    """

    place: Remote
    unit: str
    digest: str
    finite: bool = True
    round: int = 0

    def begin(self, template: xr.Dataset, attrs: Mapping[str, Any], *, overwrite: bool) -> None:
        """Create the archive, or resume it; as `sdaxr.archives.archive.Archive.begin`."""
        if self._resumes(attrs, overwrite=overwrite):
            self._mark_lost()
        else:
            self._build(template, attrs)

    @property
    def path(self) -> str:
        """The URL."""
        return str(self.place)

    @property
    def complete(self) -> bool:
        """Whether the archive is finished."""
        if self._netcdf:
            there = self.place.is_file() and not self._objects.has(UNFINISHED_ROOT)
            return there and self._digest_of(self._netcdf_metadata()) == self.digest
        found = look(self._objects)
        return found.finished and self._digest_of(found.root) == self.digest

    def status(self) -> np.ndarray:
        """Status of each unit, int8. Raises `ArchiveError` if the archive is gone, or another one has its place."""
        metadata = self._mine()
        if metadata is None:
            return np.asarray(open_remote(self.place)[STATUS].values)
        return status_from(metadata, self._objects.keys(f"{STATUS}/c/") | self._objects.keys(f"{FAILED_UNITS}/"))

    def pending(self) -> list[int]:
        """Units that are not complete; a failed unit is tried again. Raises as `status`."""
        return [] if self.complete else np.flatnonzero(self.status() != COMPLETE).tolist()

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Check one unit, write it and mark it complete; as `sdaxr.archives.archive.Archive.write`."""
        metadata = self._mine()
        if metadata is None:
            return
        check_round(self.place, metadata["attributes"].get(ROUND, 0), self.round)
        check_unit(self._group, self.unit, index, arrays, finite=self.finite)

        def put(name: str) -> None:
            self._group[name].with_config({"write_empty_chunks": True})[index] = arrays[name]

        # The store is waited for, variable beside variable.
        with ThreadPoolExecutor(_TOGETHER) as threads:
            list(threads.map(put, arrays))
        self._group[STATUS][index] = COMPLETE

    def units(self, numbers: Sequence[int]) -> xr.Dataset:
        """Units that are complete, given by their numbers."""
        if self._mine() is None:
            return open_remote(self.place).isel({self.unit: list(numbers)}).load()
        data, done = units_of(self._root, self._objects, self._objects.keys(""))
        return data.isel({self.unit: [done.index(number) for number in numbers]}).load()

    def is_complete(self, index: int) -> bool:
        """Whether one unit is done, by this process or another one."""
        return self._objects.has(f"{STATUS}/c/{index}") or (self._netcdf and self.complete)

    def fail(self, index: int, message: str) -> None:
        """Mark a unit as failed, with the reason; the next run tries it again."""
        if self._mine() is not None and not self.is_complete(index):
            self._objects.put({f"{FAILED_UNITS}/{index}": message.encode()})

    def restart(self, attrs: Mapping[str, Any]) -> ObjectArchive:
        """Mark all units as pending, then add attributes; as `sdaxr.archives.archive.Archive.restart`."""
        metadata = self._mine()
        if metadata is not None:
            check_round(self.place, metadata["attributes"].get(ROUND, 0), self.round)
            # Other writers are told before their units go.
            self._publish(UNFINISHED_ROOT, metadata, {ROUND: self.round + 1})
            for prefix in (f"{STATUS}/c/", f"{FAILED_UNITS}/"):
                self._objects.clear(prefix)
            self._publish(UNFINISHED_ROOT, metadata, {**attrs, ROUND: self.round + 1})
        return replace(self, round=self.round + 1)

    def sign(self, units: range) -> None:
        """Leave a note in an unfinished archive that this process does some units (`sdaxr.archives.writers`)."""
        writer = Writer.here(units)
        if self._mine() is not None:
            self._objects.put({f"{SIGNED}/{writer.name}": writer.to_bytes()})

    def note(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Add attributes to an unfinished archive, where it does not have them; `notes` with them."""
        metadata = self._mine()
        if metadata is not None:
            new = {key: value for key, value in attrs.items() if key not in metadata["attributes"]}
            if new:
                self._publish(UNFINISHED_ROOT, metadata, new)
        return self.notes()

    def notes(self) -> dict[str, Any]:
        """Attributes of the unfinished archive; empty where there is none."""
        return own_attrs_of(self._objects.metadata(UNFINISHED_ROOT))

    def finalise(self, attrs: Mapping[str, Any] | None = None) -> Remote:
        """Say that the archive is complete, by its metadata; does nothing if that has happened already.

        Raises
        ------
        ArchiveError
            If units are missing or have failed (they are listed), or the archive cannot be written.
        """
        metadata = self._mine()
        if metadata is None:
            return self.place
        keys = self._objects.keys("")
        status, counts = status_from(metadata, keys), counts_of(consolidated_arrays(metadata), own=True)
        lost = lost_chunks(metadata, keys)
        if lost or not (status == COMPLETE).all():
            failed = failures_from(self._objects, status)
            raise ArchiveError(shortfall_of(self.place, self.unit, status, lost, failed, finished=False))
        if self._netcdf:
            self._to_netcdf(dict(attrs or {}))
        else:
            self._publish(ROOT, metadata, dict(attrs or {}) | stored_of(counts))
            if self._digest_of(self._objects.metadata(UNFINISHED_ROOT)) not in (self.digest, None):
                self._objects.delete(ROOT)
                raise ArchiveError(f"'{self.place}' is gone or replaced; run the job again to start anew")
        self._objects.clear("" if self._netcdf else f"{UNFINISHED}/")
        return self.place

    @property
    def _netcdf(self) -> bool:
        return self.place.held is None and is_netcdf(self.place)

    @property
    def _root(self) -> Remote:
        """Where the units are."""
        return partial_of(self.place) if self._netcdf else self.place

    @cached_property
    def _objects(self) -> Objects:
        return Objects.of(self._root, read_only=False)

    @cached_property
    def _group(self) -> Any:
        """The Zarr group, with the metadata of its arrays, which do not change while it is filled."""
        import zarr

        return zarr.open_group(UnfinishedStore(self._objects.store), mode="r+", use_consolidated=True)

    def __getstate__(self) -> dict[str, Any]:
        # No open store travels.
        return {name: getattr(self, name) for name in ("place", "unit", "digest", "finite", "round")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _mine(self) -> dict[str, Any] | None:
        """Metadata of the unfinished archive; None if it is finished, and an error if it is another one's place."""
        unfinished = self._objects.metadata(UNFINISHED_ROOT)
        if self._digest_of(unfinished) == self.digest:
            return unfinished
        if not self.complete:
            raise ArchiveError(f"'{self.place}' is gone or replaced; run the job again to start anew")
        return None

    @staticmethod
    def _digest_of(metadata: Mapping[str, Any] | None) -> str | None:
        return own_attrs_of(metadata).get(HASH)

    def _resumes(self, about: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether there is an archive that is resumed or is finished; else there is nothing left of another one.

        Raises
        ------
        ArchiveError
            If there is something that may not be replaced.
        """
        found, keys, writer = self._look(), set[str](), None
        if not own_attrs_of(found.current):
            # Another process may create it, too. Its note is the first object there and the last to go: what is listed
            # before the note is looked for has a note, or is an archive by now.
            keys, writer = self._objects.keys(""), self._objects.get(WRITER)
            found = self._look()
        attrs = own_attrs_of(found.current)
        if not attrs:
            if writer is None and (found.root is not None or keys or self._is_object()):
                refused = "not overwritten, remove it" if overwrite else "choose another path, or remove it"
                raise ArchiveError(f"'{self.place}' exists and is no archive of sdaxr; {refused}")
            if writer is None or writer.decode() == self.digest:
                # Another process may be about to create the same archive, of the same objects.
                return False
        elif attrs[HASH] == self.digest and not (overwrite and found.finished):
            return True
        elif not overwrite:
            raise made_otherwise(self.place, difference(json.loads(attrs[CONFIG]), json.loads(about[CONFIG])))
        self._objects.take(self.digest.encode())
        return False

    def _look(self) -> Found:
        """What is there, the finished NetCDF file in the place of the finished group."""
        found = look(self._objects)
        return Found(self._netcdf_metadata(), found.unfinished) if self._netcdf and self.place.is_file() else found

    def _is_object(self) -> bool:
        return self.place.held is None and self.place.is_file()

    def _build(self, template: xr.Dataset, attrs: Mapping[str, Any]) -> None:
        import zarr

        memory = MemoryStore()
        write_template(memory, template, self.unit, attrs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(memory)
        written = Objects(memory)
        objects = {key: written.get(key) or b"" for key in written.keys("")}
        last = objects.pop(ROOT)
        self._objects.put_last(WRITER, self.digest.encode())
        self._objects.put_kept(objects)
        self._objects.put_last(UNFINISHED_ROOT, last)

    def _mark_lost(self) -> None:
        """Mark units as pending that are marked complete and have lost chunks; take the end from a finished archive."""
        found = look(self._objects)
        metadata = found.current
        if self._netcdf and metadata is None:
            return
        assert metadata is not None
        keys, counts = self._objects.keys(""), counts_of(consolidated_arrays(metadata), own=True)
        status, variables = status_from(metadata, keys), metadata["attributes"][VARIABLES]
        for name, index in missing_chunks(keys, {n: c for n, c in counts.items() if n not in variables}):
            raise missing_error(self.place, name, index, own=True)
        marked = np.flatnonzero(status == COMPLETE).tolist()
        lost = list(missing_chunks(keys, {name: counts[name] for name in variables}, marked))
        done = without(lost, status)
        if found.finished and len(done) < status.size:
            lacking = status.size - len(done)
            _log.warning("'%s' has lost %d units (%s), which are done anew", self.place, lacking, self.unit)
            kept = {k: v for k, v in metadata["attributes"].items() if k != STORED}
            self._objects.put_last(UNFINISHED_ROOT, json.dumps(metadata | {"attributes": kept}, indent=2).encode())
            self._objects.delete(ROOT)
        for unit in set(marked) - set(done):
            self._objects.delete(f"{STATUS}/c/{unit}")

    def _publish(self, key: str, metadata: dict[str, Any], attrs: Mapping[str, Any]) -> None:
        full = metadata | {"attributes": metadata["attributes"] | dict(attrs)}
        self._objects.put_last(key, json.dumps(full, indent=2).encode())

    def _to_netcdf(self, attrs: dict[str, Any]) -> None:
        data, _ = units_of(self._root, self._objects, self._objects.keys(""))
        with TemporaryDirectory(prefix="sdaxr-") as folder:
            file = Path(folder) / self.place.name
            to_netcdf(data.assign_attrs(attrs), file, whole=True)
            self.place.put(file)

    def _netcdf_metadata(self) -> dict[str, Any]:
        with local_copy(self.place) as file:
            return {"attributes": whole_netcdf_attrs(file)}
