"""Paths and URLs that users give. Every file that sdaxr reads or writes passes here.

A file is on this machine, or on a file system that it mounts, where ``~`` is the home folder; or it has a URL that
fsspec knows, such as ``s3://bucket/a.zarr``, or ``zip::s3://bucket/a.zip`` to read; or it is a mapping of fsspec or a
store of Zarr. A file of which only a path makes sense, such as a recipe, refuses a URL, because a path would take it
for a local folder of that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.mapping import FSMap
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from sdaxr.archives.remote import Remote
from sdaxr.schema import ArchiveError, OptionError

# Schemes have two letters or more. A Path has joined the two slashes to one. fsspec chains URLs with two colons.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[a-z0-9]+::")
_JOINED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_LOCAL = re.compile(r"(file|local):/+")
SUFFIXES = (".zarr", ".nc")

Location = Path | Remote


def located(path: object, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Where a file or an archive lies that a user gives.

    Parameters
    ----------
    path
        A path, a URL, a mapping of fsspec, a store of Zarr, or what this function has returned.
    storage_options
        Options of the file system of a URL, by their names in fsspec, as `xarray.open_zarr` takes them.

    Raises
    ------
    OptionError
        If ``path`` is none of these, or names nothing; or the options are no mapping.
    ArchiveError
        If the home folder is not known.
    """
    if storage_options is not None and not isinstance(storage_options, Mapping):
        raise OptionError(f"found storage_options={storage_options!r}, expected a mapping such as {{'anon': True}}")
    if isinstance(path, Remote):
        return path if not storage_options or path.held is not None else Remote(path.url, dict(storage_options))
    if isinstance(path, FSMap):
        return _of_file_system(path.fs, path.root)
    if isinstance(path, LocalStore):
        return Path(path.root)
    if isinstance(path, FsspecStore):
        return _of_file_system(path.fs, path.path)
    if isinstance(path, Store):
        text = str(path)
        return Remote(type(path).__name__ if " object at " in text else text, held=path)
    text = _text(path)
    if _LOCAL.match(text) and "::" not in text:
        return Path(re.sub(_LOCAL, "/", text, count=1))
    if _URL.match(text):
        return Remote(_JOINED.sub(r"\1://", text).rstrip("/"), dict(storage_options or {}))
    return local_path(path)


def with_storage(given: Any, storage_options: Mapping[str, Any] | None) -> Any:
    """``given`` with options of its file system where it is a URL; anything else, such as a name, as it is."""
    if isinstance(given, Remote) or (isinstance(given, str | os.PathLike) and _URL.match(str(given))):
        return located(given, storage_options)
    if storage_options is not None:
        located("unused", storage_options)
    return given


def with_storage_inside(given: Any, storage_options: Mapping[str, Any] | None) -> Any:
    """`with_storage` of each value of a ``dict`` of options, such as those of a method; anything else as it is."""
    if not isinstance(given, dict):
        return given
    return {key: with_storage(value, storage_options) for key, value in given.items()}


def local_path(path: object) -> Path:
    """The path of a file on this machine, with ``~`` expanded.

    Raises
    ------
    OptionError
        If ``path`` is no path, such as a store object of Zarr, or names nothing.
    ArchiveError
        If it is a URL, or the home folder is not known.
    """
    text = _text(path)
    if _URL.match(text):
        raise ArchiveError(f"found the URL '{text}', expected a path; copy the file to this machine, or mount it")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ArchiveError(f"cannot expand the path '{text}': {error}; give the path from the root") from error
    # Reading a pipe would wait for its writer, a device has no end.
    if path.is_fifo() or path.is_char_device() or path.is_block_device() or path.is_socket():
        raise ArchiveError(f"'{text}' is a pipe or a device, expected a file or a folder")
    return path


def store_path(
    store: object, suffixes: tuple[str, ...] = SUFFIXES, storage_options: Mapping[str, Any] | None = None
) -> Location:
    """Where a result lies, whose suffix is its format: one of ``suffixes``. A store of Zarr has none.

    Raises
    ------
    OptionError
        If the suffix is another one.
    OptionError, ArchiveError
        As `located`; or if nothing can be written to such a URL.
    """
    place = located(store, storage_options)
    if isinstance(place, Remote):
        place.check_writable()
        if place.held is not None and ".zarr" in suffixes:
            return place
    if place.suffix not in suffixes:
        raise OptionError(f"found store='{store}', expected a name that ends in {' or '.join(suffixes)}")
    return place


def _text(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"found a {type(path).__name__} as the path of a file, expected a text or a pathlib.Path")
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise OptionError(f"found {text!r} as the path of a file, expected the name of a file or a folder")
    return text


def _of_file_system(fs: Any, path: str) -> Location:
    """The place of a path in a file system of fsspec."""
    plain = getattr(fs, "sync_fs", fs)
    if isinstance(plain, LocalFileSystem):
        return Path(path)
    options = {key: value for key, value in plain.storage_options.items() if key not in ("asynchronous", "loop")}
    return Remote(plain.unstrip_protocol(path).rstrip("/"), options)
