"""Paths that users give. Every file that sdaxr reads or writes passes here.

Files are on this machine, or on a file system that it mounts. ``~`` is the home folder. A URL is refused, because a
path would take it for a local folder of that name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sdaxr.schema import ArchiveError, OptionError

# Schemes have two letters or more. A Path has joined the two slashes to one. fsspec chains URLs with two colons.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|[a-z0-9]+::")
SUFFIXES = (".zarr", ".nc")


def local_path(path: object) -> Path:
    """The path of a file on this machine, with ``~`` expanded.

    Raises
    ------
    OptionError
        If ``path`` is no path, such as a store object of Zarr, or names nothing.
    ArchiveError
        If it is a URL, or the home folder is not known.
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"found a {type(path).__name__} as the path of a file, expected a text or a pathlib.Path")
    text = os.fspath(path)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise OptionError(f"found {text!r} as the path of a file, expected the name of a file or a folder")
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


def store_path(store: object, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The path of a result, whose suffix is its format: one of ``suffixes``.

    Raises
    ------
    OptionError
        If the suffix is another one.
    OptionError, ArchiveError
        As `local_path`.
    """
    path = local_path(store)
    if path.suffix not in suffixes:
        raise OptionError(f"found store='{store}', expected a name that ends in {' or '.join(suffixes)}")
    return path
