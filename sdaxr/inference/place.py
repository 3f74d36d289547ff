"""Where the parts of a long job are kept, for a run that resumes and for several runs of the same job.

The parts are the windows of a cycle, or the truths of a calibration.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import CONFIG, difference, made_otherwise
from sdaxr.archives.finished import locked, remove, windows_of
from sdaxr.archives.paths import Location, store_path
from sdaxr.archives.reading import open_archive
from sdaxr.archives.remote import Remote
from sdaxr.archives.stores import check_free, is_there, written_whole
from sdaxr.schema import ArchiveError

P = ParamSpec("P")

# The settings of the job, in the folder of its parts. It is the lock of the folder, too.
_NOTE = "settings.json"


@dataclass(frozen=True)
class Place:
    """Where a result is written, by one process or by several that run the same job.

    Processes share the parts. The first one that has all joins them and removes their folder; another one then has its
    result.

    Attributes
    ----------
    store
        Path or URL of the result; None in memory.
    folder
        Folder of the parts that are complete; None in memory.
    overwrite
        Whether the result replaces another archive.
    about
        The settings of the job.
    """

    store: Location | None
    folder: Location | None
    overwrite: bool
    about: Mapping[str, Any]

    @classmethod
    def open(
        cls, store: str | Location | None, about: dict[str, Any], overwrite: bool, *, extend: bool = False
    ) -> Place | xr.Dataset:
        """The place of a job with the settings ``about``; or its result, where it is there already.

        Parameters
        ----------
        store
            Path or URL of the result; None for memory.
        about
            The settings.
        overwrite
            Replace another result, and parts that were made with other settings.
        extend
            Replace the result that is there by a larger one.

        Raises
        ------
        ArchiveError
            If there is something else, such as a result of other settings.
        """
        if store is None:
            return cls(None, None, overwrite, about)
        path, replace = store_path(store), overwrite or extend
        if is_there(path) and not replace:
            return _finished(path, about)
        check_free(path, replace)
        place = cls(path, parts_folder(path, about, overwrite), replace, about)
        # Another process may have removed its parts before this one made the folder anew.
        return _finished(path, about) if is_there(path) and not replace else place

    @contextlib.contextmanager
    def in_use(self, *, alone: bool = False) -> Iterator[None]:
        """Keep other processes from removing the parts; or from using them, too (``alone``).

        Object stores have no locks. There what fails because the parts are gone is taken for what it is.

        Raises
        ------
        Overtaken
            If another process has finished the job, or has another one at its place.
        """
        if self.store is None or self.folder is None:
            yield
            return
        with _held(self.folder, fcntl.LOCK_EX if alone else fcntl.LOCK_SH) as there:
            if not there:
                raise Overtaken(self)
            try:
                yield
            except ArchiveError as error:
                if (self.folder / _NOTE).exists() and (self.overwrite or not is_there(self.store)):
                    raise
                raise Overtaken(self) from error

    def part(self, name: str) -> Location | None:
        """Place of the archive of a part; None in memory."""
        return None if self.folder is None else self.folder / f"{name}.zarr"


class Overtaken(Exception):
    """Another process has joined the parts and removed them."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


def shared(function: Callable[P, xr.Dataset]) -> Callable[P, xr.Dataset]:
    """The result of another process, where one has finished the job that ``function`` does."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> xr.Dataset:
        try:
            return function(*args, **kwargs)
        except Overtaken as overtaken:
            place = overtaken.place
        assert place.store is not None
        if not is_there(place.store):
            raise ArchiveError(f"'{place.folder}' is gone or replaced; run the same job again to start anew")
        return _finished(place.store, place.about)

    return run


def parts_folder(store: Location, about: dict[str, Any], overwrite: bool) -> Location:
    """Folder of the parts. The parts of a killed call are kept if the settings are the same."""
    folder = windows_of(store)
    recorded = _recorded(folder)
    if recorded is not None and overwrite and difference(recorded, about):
        _clear(folder)
        recorded = None
    if recorded is None:
        try:
            with written_whole(folder / _NOTE, overwrite=False) as unfinished:
                unfinished.write_text(json.dumps(about, indent=1))
        except ArchiveError:
            recorded = _recorded(folder)
            if recorded is None:
                raise
            # Another process was faster.
    check_same(folder, recorded or about, about)
    return folder


def _finished(store: Location, about: Mapping[str, Any]) -> xr.Dataset:
    """The result of a job that is finished, without the parts that a call that was killed last may have left."""
    found = open_archive(store)
    check_same(store, recorded_in(found), about)
    folder = windows_of(store)
    if not difference(_recorded(folder) or about, about):
        _clear(folder)
    return found


def recorded_in(result: xr.Dataset) -> dict[Any, Any]:
    """The settings with which a result was made: its attributes, and its configuration where that is among them."""
    return {**result.attrs, **json.loads(result.attrs.get(CONFIG, "{}"))}


def _recorded(folder: Location) -> dict[str, Any] | None:
    """The settings of the job whose parts are in a folder; None if there is none."""
    try:
        return dict(json.loads((folder / _NOTE).read_text()))
    except FileNotFoundError:
        return None


def _clear(folder: Location) -> None:
    """Remove the parts when no process uses them."""
    with _held(folder, fcntl.LOCK_EX):
        remove(folder)


@contextlib.contextmanager
def _held(folder: Location, operation: int) -> Iterator[bool]:
    """Hold the lock of a folder, where its file system has locks; False if the folder is gone or another one."""
    if isinstance(folder, Remote):
        yield (folder / _NOTE).exists()
    else:
        with locked(folder / _NOTE, operation) as there:
            yield there


def check_same(where: str | Location, recorded: Mapping[Any, Any], about: Mapping[str, Any]) -> None:
    """Raise `ArchiveError`, with the differences, if settings that are recorded are not those of this call."""
    # Attributes of NetCDF files are numpy scalars.
    known = {key: recorded[key] for key in about if key in recorded}
    known = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    changes = difference(known, about)
    if changes:
        raise made_otherwise(where, changes)
