"""How far an archive in units of work is: which units are there, since when, and who does them; and its end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sdaxr.archives.archive import Archive
from sdaxr.archives.configuration import HASH
from sdaxr.archives.creation import UnitArchive
from sdaxr.archives.finished import PARTIAL, partial_of
from sdaxr.archives.format import COMPLETE, STATUS, UNIT, is_netcdf, own_attrs, status_of
from sdaxr.archives.object_archive import ObjectArchive
from sdaxr.archives.objects import Objects
from sdaxr.archives.paths import Location, located
from sdaxr.archives.reading import open_archive
from sdaxr.archives.remote import Remote, local_copy, remote_errors
from sdaxr.archives.remote_reading import SIGNED, failures_from, look, lost_chunks, own_attrs_of, status_from
from sdaxr.archives.units import complete_units, failures, without
from sdaxr.archives.writers import WRITERS, Writer, read_writers
from sdaxr.schema import ArchiveError


@dataclass(frozen=True)
class Progress:
    """How far an archive is.

    Attributes
    ----------
    name
        Its path or URL.
    unit
        Dimension that counts the units.
    finished
        Whether it has its end: other software finds it.
    complete
        Numbers of the units that are there with all of their chunks.
    pending
        Numbers of the others, without those that failed.
    failed
        Why units failed, by number.
    written
        When units were written; empty where the store does not tell.
    writers
        Processes that fill it, or did; none are known of a finished archive.
    """

    name: str
    unit: str
    finished: bool
    complete: list[int]
    pending: list[int]
    failed: dict[int, str]
    written: dict[int, datetime]
    writers: list[Writer]

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.complete) + len(self.pending) + len(self.failed)


def progress(path: str | Location, storage_options: Mapping[str, Any] | None = None) -> Progress:
    """How far the archive at ``path`` is.

    Parameters
    ----------
    path
        Path or URL of an archive in units of work, such as the store of `sdaxr.assimilate` or `sdaxr.generate`, under
        its final name.
    storage_options
        Options of the file system of a URL (fsspec).

    Raises
    ------
    ArchiveError
        If there is none.
    """
    place = _final(path, storage_options)
    return _in_store(place) if isinstance(place, Remote) else _on_disk(place)


def finish(path: str | Location, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Finish an archive whose units are all there; parameters are those of `progress`.

    The last process that fills an archive finishes it. This is for an archive of which that process was killed in
    between. A finished archive stays as it is.

    Returns
    -------
    Where the archive is.

    Raises
    ------
    ArchiveError
        If units are missing or have failed, which are named; if there is no archive.
    """
    place = _final(path, storage_options)
    found = progress(place)
    archive = _archive(place, found.unit)
    if not found.finished:
        return archive.finalise()
    open_archive(place).close()  # An archive that has lost chunks since then is an error.
    return place


def _final(path: str | Location, storage_options: Mapping[str, Any] | None) -> Location:
    place = located(path, storage_options)
    if isinstance(place, Remote):
        return place
    return Path(os.path.abspath(place.with_suffix("") if place.suffix == PARTIAL else place))


def _archive(place: Location, unit: str) -> UnitArchive:
    if isinstance(place, Remote):
        found = look(Objects.of(_root(place)))
        return ObjectArchive(place, unit, own_attrs_of(found.current).get(HASH, ""))
    return Archive(str(place), unit, (own_attrs(partial_of(place)) or own_attrs(place) or {}).get(HASH, ""))


def _on_disk(final: Path) -> Progress:
    # An unfinished archive that is to replace a finished one is what is being done.
    where = next((each for each in (partial_of(final), final) if own_attrs(each) is not None), None)
    if where is None:
        raise _none_at(final)
    status = status_of(where)
    done = complete_units(where, status) if where.is_dir() else np.flatnonzero(status == COMPLETE).tolist()
    times = dict[int, datetime]()
    for index in done if where.is_dir() else []:
        times[index] = datetime.fromtimestamp((where / STATUS / "c" / str(index)).stat().st_mtime, UTC)
    writers = read_writers(note.read_bytes() for note in (where / WRITERS).glob("*"))
    unit = (own_attrs(where) or {})[UNIT]
    return _progress(str(final), unit, where == final, status, done, failures(where, status), times, writers)


def _in_store(place: Remote) -> Progress:
    root = _root(place)
    objects = Objects.of(root)
    found = look(objects)
    metadata, own = found.current, own_attrs_of(found.current)
    if metadata is None or not own:
        if is_netcdf(place) and place.is_file():
            with local_copy(place) as file:
                if own_attrs(file) is not None:
                    return replace(_on_disk(file), name=str(place))
        raise _none_at(place)
    keys = objects.keys("")
    status = status_from(metadata, keys)
    done = without(lost_chunks(metadata, keys), status)
    writers = read_writers(objects.get(key) or b"" for key in keys if key.startswith(f"{SIGNED}/"))
    failed = failures_from(objects, status)
    return _progress(str(place), own[UNIT], found.finished, status, done, failed, _times(root), writers)


def _root(place: Remote) -> Remote:
    """Where the units are."""
    return partial_of(place) if place.held is None and is_netcdf(place) else place


def _times(root: Remote) -> dict[int, datetime]:
    """When the objects were written that mark units complete; empty where the store does not tell."""
    if root.held is not None:
        return {}
    with remote_errors("list", root):
        fs, path = root.fs()
        about = fs.find(f"{path}/{STATUS}/c", detail=True)
    found = dict[int, datetime]()
    for key, each in about.items():
        number = key.rpartition("/")[2]
        # File systems of fsspec call it by different names, as a moment or in seconds.
        when = next((each[name] for name in ("LastModified", "updated", "mtime", "created") if each.get(name)), None)
        if isinstance(when, int | float):
            when = datetime.fromtimestamp(when, UTC)
        if isinstance(when, datetime) and number.isdecimal():
            found[int(number)] = when if when.tzinfo else when.replace(tzinfo=UTC)
    return found


def _progress(
    name: str, unit: str, finished: bool, status: np.ndarray, done: list[int], failed: dict[int, str],
    times: dict[int, datetime], writers: list[Writer],
) -> Progress:  # fmt: skip
    pending = sorted(set(range(status.size)) - set(done) - set(failed))
    written = {index: times[index] for index in done if index in times}
    return Progress(name, unit, finished, done, pending, failed, written, writers)


def _none_at(place: Location) -> ArchiveError:
    try:
        open_archive(place).close()
    except ArchiveError as error:
        return error
    return ArchiveError(f"'{place}' is complete, and was not written in units of work; 'sdaxr info' describes it")
