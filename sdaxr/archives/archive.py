"""Resumable Zarr archives that many processes fill in units of work and that cannot pretend to be complete.

One process creates the template, the coordinates and the configuration under ``<name>.partial``. Each unit (a
trajectory, a member) is checked, written into its own chunks, and only then marked in ``status``, whose chunks
hold one unit each, so that concurrent writers lose nothing. When all units are complete, and all of their chunks are
there, the archive is consolidated and renamed to ``<name>`` (`sdaxr.archives.finished`); an archive that had the name
stays until then. Running the same job again resumes it: only units that are not complete are done, and a different
configuration is refused. The same holds for a finished archive that has lost units or chunks.

An archive whose name ends in ``.nc`` is Zarr, too, until it is complete, and is then written as one NetCDF file.

The metadata of ``status``, which nobody writes again, are the lock: writers share it, and whoever finishes or replaces
the archive holds it alone, so that the directory is never pulled away under a writer. Network file systems lock files
that are open for writing, and no directories.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.chunks import chunk_counts, holds_every_chunk, missing_chunks, missing_error, stored_attr
from sdaxr.archives.configuration import CONFIG, HASH, difference, made_otherwise
from sdaxr.archives.finished import locked, partial_of, publish, remove_leftovers, workspace
from sdaxr.archives.format import (
    COMPLETE,
    FAILED,
    FAILURES,
    PENDING,
    ROUND,
    STATUS,
    VARIABLES,
    is_netcdf,
    open_group,
    own_attrs,
    status_of,
    storage_errors,
)
from sdaxr.archives.netcdf import to_netcdf
from sdaxr.archives.reading import open_archive, open_every_unit, open_units
from sdaxr.archives.template import write_template
from sdaxr.archives.units import check_round, check_unit, complete_units, shortfall, unit_count
from sdaxr.archives.writers import WRITERS, Writer
from sdaxr.schema import ArchiveError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A Zarr archive in units of work; small enough to travel to the workers.

    Use `sdaxr.archives.creation.create_archive`; the object holds names only, no open files.

    Attributes
    ----------
    path
        Where the finished archive will be.
    unit
        Dimension that counts the units; the first one of every data variable.
    digest
        Hash of the configuration. What is at ``path`` with another one is not this archive.
    finite
        Whether every value has to be finite (otherwise NaN may mark land, but infinity is still refused).
    round
        How often all units were begun anew (`restart`).
    """

    path: str
    unit: str
    digest: str
    finite: bool = True
    round: int = 0

    def begin(self, template: xr.Dataset, attrs: Mapping[str, Any], *, overwrite: bool) -> None:
        """Create the archive, or resume it; parameters and errors are those of `create_archive`.

        ``attrs`` has the configuration, the unit and the names of the variables, too.
        """
        with storage_errors("create", self.path):
            if overwrite or not self.complete:
                self._check_config(attrs, overwrite=overwrite)
                if not self._has(self._partial):
                    self._build(template, attrs, overwrite=overwrite)
            if self.complete:
                remove_leftovers(self._final)
            self._resume_damaged()
            self._mark_lost()
        if not (self._has(self._partial) or self._has(self._final)):
            # Another process was faster, with another configuration.
            self._check_config(attrs, overwrite=False)

    @property
    def complete(self) -> bool:
        """Whether the archive is finished: all units are there and it has its final name."""
        # In this order: an unfinished archive becomes a finished one at any moment, not the other way round.
        return not self._has(self._partial) and self._has(self._final)

    def status(self) -> np.ndarray:
        """Status of each unit, int8: `PENDING`, `COMPLETE` or `FAILED`.

        Raises
        ------
        ArchiveError
            If the archive is gone, or another one has its place.
        """
        with self._shared() as writable:
            return status_of(self._partial if writable else self._final)

    def pending(self) -> list[int]:
        """Units that are not complete; a failed unit is tried again. Raises as `status`."""
        return [] if self.complete else np.flatnonzero(self.status() != COMPLETE).tolist()

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Check one unit, write it and mark it complete.

        Parameters
        ----------
        index
            Which unit.
        arrays
            Every variable that has the unit's dimension, without that dimension, in the archive's dtype.

        Raises
        ------
        DataError
            If a variable is missing or unknown, or has another shape or dtype.
        DivergenceError
            If a value is not finite.
        ArchiveError
            If the archive cannot be written.
        """
        with storage_errors("write", self.path), self._shared() as writable:
            if not writable:
                return
            group = open_group(self._partial, mode="r+")
            check_round(self.path, group.attrs.get(ROUND, 0), self.round)
            check_unit(group, self.unit, index, arrays, finite=self.finite)
            for name, array in arrays.items():
                # Zarr would leave out a chunk that equals the fill value, as if it had never been written.
                group[name].with_config({"write_empty_chunks": True})[index] = array
            (self._partial / FAILURES / str(index)).unlink(missing_ok=True)
            group[STATUS][index] = COMPLETE

    def units(self, numbers: Sequence[int]) -> xr.Dataset:
        """Units that are complete, given by their numbers; an `ArchiveError` where one is not."""
        with self._shared() as writable:
            if not writable:
                return open_archive(self._final).isel({self.unit: list(numbers)}).load()
            # Of all units: which others are complete may change at any moment.
            found = open_every_unit(self._partial).isel({self.unit: list(numbers)}).load()
        if (found[STATUS] != COMPLETE).any():
            raise ArchiveError(f"{shortfall(self._partial)}; units {list(numbers)} were asked for")
        return found

    def is_complete(self, index: int) -> bool:
        """Whether one unit is done, by this process or another one."""
        with self._shared() as writable:
            return not writable or int(open_group(self._partial)[STATUS][index]) == COMPLETE

    def fail(self, index: int, message: str) -> None:
        """Mark a unit as failed, with the reason; the next run tries it again."""
        with storage_errors("write", self.path), self._shared() as writable:
            if not writable:
                return
            status = open_group(self._partial, mode="r+")[STATUS]
            if int(status[index]) == COMPLETE:
                return
            folder = self._partial / FAILURES
            folder.mkdir(exist_ok=True)
            (folder / str(index)).write_text(message)
            status[index] = FAILED

    def restart(self, attrs: Mapping[str, Any]) -> Archive:
        """The archive with all units pending and attributes that say why; nobody writes by the old one any more."""
        with storage_errors("write", self.path), self._locked(fcntl.LOCK_EX) as there:
            if there:
                group = open_group(self._partial, mode="r+")
                check_round(self.path, group.attrs.get(ROUND, 0), self.round)
                for index in range(unit_count(self._partial)):
                    group[STATUS][index] = PENDING
                group.attrs.update({**attrs, ROUND: self.round + 1})
        return replace(self, round=self.round + 1)

    def sign(self, units: range) -> None:
        """Leave a note in an unfinished archive that this process does some units (`sdaxr.archives.writers`)."""
        writer = Writer.here(units)
        with storage_errors("write", self.path), self._shared() as writable:
            if writable:
                (self._partial / WRITERS).mkdir(exist_ok=True)
                (self._partial / WRITERS / writer.name).write_bytes(writer.to_bytes())

    def note(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Add attributes to an unfinished archive, where it does not have them; `notes` with them."""
        with storage_errors("write", self.path), self._locked(fcntl.LOCK_EX) as there:
            new = {key: value for key, value in attrs.items() if key not in self.notes()}
            if there and new:
                open_group(self._partial, mode="r+").attrs.update(new)
        return self.notes()

    def notes(self) -> dict[str, Any]:
        """Attributes of the unfinished archive; empty where there is none."""
        return dict(own_attrs(self._partial) or {})

    def finalise(self, attrs: Mapping[str, Any] | None = None) -> Path:
        """Consolidate the archive and give it its name; does nothing if that has happened already.

        Parameters
        ----------
        attrs
            Attributes to add, such as statistics.

        Raises
        ------
        ArchiveError
            If units are missing or have failed (they are listed), or the archive cannot be written.
        """
        with storage_errors("finish", self.path), self._locked(fcntl.LOCK_EX) as there:
            if not there:
                self._check_complete()
                return self._final
            if len(complete_units(self._partial, status_of(self._partial))) < unit_count(self._partial):
                raise ArchiveError(shortfall(self._partial))
            self._consolidate(dict(attrs or {}))
            with workspace(self._final) as own:
                # An archive of the name is one that may be replaced, or `create` had refused it.
                replace = self._attrs_of(self._final) is not None
                if is_netcdf(self._final):
                    to_netcdf(open_units(self._partial, self.unit), own / self._final.name, whole=True)
                    publish(own / self._final.name, self._final, own, replace=replace)
                    os.rename(self._partial, own / "units")
                else:
                    publish(self._partial, self._final, own, replace=replace)
        return self._final

    @property
    def _final(self) -> Path:
        return Path(self.path)

    @property
    def _partial(self) -> Path:
        return partial_of(self._final)

    @property
    def _lock(self) -> Path:
        return self._partial / STATUS / "zarr.json"

    def _has(self, where: Path) -> bool:
        """Whether what is at ``where`` is this archive."""
        return (self._attrs_of(where) or {}).get(HASH) == self.digest

    def _attrs_of(self, where: Path) -> dict[str, Any] | None:
        """Attributes of an archive in units of work, None for anything else, such as what was made of a part of it."""
        attrs = own_attrs(where)
        return attrs if attrs is None or where == self._partial or where.is_file() or holds_every_chunk(where) else None

    def _check_config(self, about: Mapping[str, Any], *, overwrite: bool) -> None:
        """Raise `ArchiveError` unless nothing is there, or what is there may be resumed or replaced."""
        for where in (self._partial, self._final):
            attrs = self._attrs_of(where)
            if attrs is None:
                if os.path.lexists(where):
                    refused = "not overwritten, move it away" if overwrite else "choose another path, or move it away"
                    raise ArchiveError(f"'{where}' exists and is no archive of sdaxr; {refused}")
            elif not overwrite:
                if attrs[HASH] == self.digest:
                    return
                raise made_otherwise(where, difference(json.loads(attrs[CONFIG]), json.loads(about[CONFIG])))

    def _build(self, template: xr.Dataset, attrs: Mapping[str, Any], *, overwrite: bool) -> None:
        # Built aside and renamed, so that nobody resumes half a template and only one creator wins.
        with workspace(self._final) as own:
            new = own / "template"
            write_template(new, template, self.unit, attrs)
            # The first lock waits for writers of another configuration.
            with locked(self._lock), locked(self._final.parent):
                if self._has(self._partial) or (self._has(self._final) and not overwrite):
                    return
                if self._partial.exists():
                    os.rename(self._partial, own / "other")
                os.rename(new, self._partial)

    def _resume_damaged(self) -> None:
        """Take the name from a finished archive that has lost units, so that they are done anew."""
        if not self.complete or self._final.is_file():
            return
        variables = (own_attrs(self._final) or {})[VARIABLES]
        labels = {name: count for name, count in chunk_counts(self._final).items() if name not in variables}
        for name, index in missing_chunks(self._final, labels):
            raise missing_error(self._final, name, index, own=True)
        lost = unit_count(self._final) - len(complete_units(self._final, status_of(self._final)))
        if not lost:
            return
        _log.warning("'%s' has lost %d units (%s), which are done anew", self.path, lost, self.unit)
        with locked(self._final.parent):
            if self.complete:
                os.rename(self._final, self._partial)

    def _mark_lost(self) -> None:
        """Mark units as pending that are marked complete and have lost chunks."""
        with self._locked(fcntl.LOCK_SH) as there:
            if there:
                status = open_group(self._partial, mode="r+")[STATUS]
                marked = np.asarray(status[:])
                for index in set(np.flatnonzero(marked == COMPLETE)) - set(complete_units(self._partial, marked)):
                    status[int(index)] = PENDING

    def _consolidate(self, attrs: dict[str, Any]) -> None:
        import zarr

        for folder in (FAILURES, WRITERS):
            shutil.rmtree(self._partial / folder, ignore_errors=True)
        # What a killed writer left of a chunk that was then written again.
        for leftover in self._partial.rglob("*.partial"):
            leftover.unlink()
        open_group(self._partial, mode="r+").attrs.update(attrs | stored_attr(self._partial))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(str(self._partial))

    @contextlib.contextmanager
    def _shared(self) -> Iterator[bool]:
        with self._locked(fcntl.LOCK_SH) as there:
            if not there:
                self._check_complete()
            yield there

    def _check_complete(self) -> None:
        if not self.complete:
            raise ArchiveError(f"{str(self._partial)!r} is gone or replaced; run the job again to start anew")

    @contextlib.contextmanager
    def _locked(self, operation: int) -> Iterator[bool]:
        """Hold the lock; False if the archive has meanwhile been finished, removed or replaced."""
        with locked(self._lock, operation) as there:
            yield there and self._has(self._partial)
