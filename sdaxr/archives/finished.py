"""What a finished file is, and how a file or a directory gets its name. Every file on this machine passes here.

A file that has its final name is finished: it gets the name by one rename after all of it has been written, and
nothing is written or removed beneath the name afterwards. What is being written lies under a name that ends in
``.partial`` and never opens as finished:

``<name>.partial``
    An archive in units of work (`sdaxr.archives.archive`), which several processes fill and a later run resumes.
``<name>.windows``
    A folder with the windows of a cycle, finished archives themselves, or with the archive of the truths of a
    calibration.
``.<name>.<32 hexadecimal digits>.partial``
    The workspace of one writer: a directory with what this writer writes as a whole, and what it replaces.

A file is replaced by another finished one only: the old file is moved into the workspace, the new one gets the name,
then the old one is removed. A kill between the two renames leaves neither under the name; the next writer puts the old
file back. Workspaces are locked (`flock`) by their writers, and a lock dies with its process, so that the next
writer of the same name knows which workspaces are abandoned, and removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from sdaxr.archives.remote import Remote
from sdaxr.schema import ArchiveError

PlaceT = TypeVar("PlaceT", Path, Remote, Path | Remote)

PARTIAL = ".partial"
_WORKSPACE = re.compile(rf"\.(?P<name>.+)\.[0-9a-f]{{32}}{re.escape(PARTIAL)}")
_REPLACED = "replaced"
# Locked by the writer. The workspace itself is not, because it is the folder of what is written in it.
_ALIVE = ".alive"


def partial_of(final: PlaceT) -> PlaceT:
    """Where an archive in units of work lies while it is unfinished."""
    return final.with_name(final.name + PARTIAL)


def is_unfinished(path: Path) -> bool:
    """Whether ``path`` can only be something that is being written, or was when its writer was killed."""
    return path.suffix == PARTIAL or _WORKSPACE.fullmatch(path.parent.name) is not None


def finished_name(path: Path) -> Path:
    """The name that ``path`` gets when it is finished, where it lies in a workspace."""
    return path.parent.parent / path.name if _WORKSPACE.fullmatch(path.parent.name) else path


def windows_of(final: PlaceT) -> PlaceT:
    """Where the windows of a cycle, or the truths of a calibration, lie until all are there; archives of their own."""
    return final.with_name(f"{final.name}.windows")


@contextlib.contextmanager
def workspace(final: Path) -> Iterator[Path]:
    """A directory beside ``final`` that belongs to this writer alone, removed at the end.

    What killed writers of the same name have left is removed first. The folder of ``final`` is made if it is missing.

    Raises
    ------
    OSError
        If the directory cannot be made.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    own = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PARTIAL}")
    with contextlib.ExitStack() as held:
        # Under the folder's lock, so that nobody takes the new workspace for an abandoned one.
        with locked(final.parent):
            _remove_leftovers(final)
            own.mkdir()
            (own / _ALIVE).touch()
            held.enter_context(locked(own / _ALIVE))
        try:
            yield own
        finally:
            with locked(final.parent):
                _put_back(own, final)
            shutil.rmtree(own, ignore_errors=True)


def remove_leftovers(final: Path) -> None:
    """Remove what killed writers have left beside ``final``; what they were about to replace gets its name back."""
    with locked(final.parent):
        _remove_leftovers(final)


def publish(new: Path, final: Path, own: Path, *, replace: bool) -> None:
    """Give ``new``, which is written completely, the name ``final``.

    Parameters
    ----------
    new
        The file or directory, on the same file system as ``final``.
    final
        The final name.
    own
        The `workspace` of this writer, where an old file is moved.
    replace
        Whether a file that has the name may be replaced.

    Raises
    ------
    ArchiveError
        If there is a file of this name that may not be replaced.
    OSError
        If the file cannot be renamed.
    """
    with locked(final.parent):
        if os.path.lexists(final):
            if not replace:
                raise ArchiveError(
                    f"'{final}' has been written by another process in the meantime, and stays; choose another store, "
                    "or overwrite it (overwrite, --overwrite)"
                )
            if final.is_dir() or new.is_dir():
                os.rename(final, own / _REPLACED)
        # A file replaces a file in one step.
        os.replace(new, final)


def remove(path: Path | Remote) -> None:
    """Remove a file or a directory, if it is there: on this machine never file by file under its own name."""
    if isinstance(path, Remote):
        path.remove()
    elif os.path.lexists(path):
        with workspace(path) as own, contextlib.suppress(FileNotFoundError):
            os.rename(path, own / "removed")


@contextlib.contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock of a directory or file; False if it is not there, or has another name or is gone since.

    Parameters
    ----------
    path
        The directory or file itself is the lock.
    operation
        `fcntl.LOCK_EX` for one holder, `fcntl.LOCK_SH` for several.
    """
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        yield False
        return
    try:
        # Some network file systems lock a directory for nobody alone, or lock nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, operation)
        yield _is_still(path, descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """A descriptor of a directory, or of a file, which network file systems lock only where it is open for writing."""
    if path.is_file() and os.access(path, os.W_OK):
        return os.open(path, os.O_RDWR)
    return os.open(path, os.O_RDONLY)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_leftovers(final: Path) -> None:
    for there in final.parent.iterdir():
        found = _WORKSPACE.fullmatch(there.name)
        if found is not None and found["name"] == final.name:
            with _taken_over(there) as abandoned:
                if abandoned:
                    _put_back(there, final)
                    shutil.rmtree(there, ignore_errors=True)


@contextlib.contextmanager
def _taken_over(own: Path) -> Iterator[bool]:
    """Hold the lock of a workspace; False if its writer lives, or the file system has no locks that would tell."""
    try:
        descriptor = os.open(own / _ALIVE, os.O_RDONLY)
    except FileNotFoundError:  # killed before it was locked, or while it was removed
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _put_back(own: Path, final: Path) -> None:
    """Give its name back to a file that was to be replaced, unless the new one has it."""
    replaced = own / _REPLACED
    if os.path.lexists(replaced) and not os.path.lexists(final):
        os.rename(replaced, final)
