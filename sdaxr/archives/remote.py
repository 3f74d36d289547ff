"""Files and archives that are not on this machine: URLs of fsspec, with their options, and stores of Zarr.

A `Remote` has the names and the questions of a `pathlib.Path`, as far as sdaxr asks them. It holds a URL and options,
no open connection, so that it travels to workers, which open it themselves. What fsspec and the packages beneath it
raise becomes an `ArchiveError` of one line.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from sdaxr.schema import ArchiveError, SdaxrError

# Schemes of which nothing is ever listed or written.
_READ_ONLY = ("http", "https")
# Schemes whose first folder is a bucket, which has to be there.
_BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "az")
# What is raised where the bytes themselves are wrong.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
_LONGEST = 300
LOST = "the store has not kept what was written"
# As often is written again what a store has not kept.
TRIES = 3


@dataclass(frozen=True)
class Remote:
    """A file or an archive by URL, or a store of Zarr that was given as an object.

    Attributes
    ----------
    url
        The URL; of a store that has none, its description.
    options
        Options of the file system of fsspec, such as ``endpoint_url``. They may hold secrets and are never shown.
    held
        The store itself, where there is no URL.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    held: Store | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Remote:
        return replace(self, url=f"{self.url}/{name}")

    def __rtruediv__(self, _: object) -> Remote:
        # As a path from the root, which stays what it is beneath any folder.
        return self

    @property
    def scheme(self) -> str:
        """The first protocol of the URL; empty for a store."""
        return self.url.partition("::")[0].partition("://")[0] if self.held is None else ""

    @property
    def _path(self) -> PurePosixPath:
        # Of a chain, zip::s3://bucket/a.zip, the first link that has a path.
        links = [link.partition("://")[2] or link * ("://" not in link and "/" in link) for link in self._links]
        return PurePosixPath(next((link for link in links if link), self.url).partition("?")[0])

    @property
    def _links(self) -> list[str]:
        return self.url.split("::")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The ending of the name, such as ``.zarr``."""
        return self._path.suffix

    def with_name(self, name: str) -> Remote:
        """What has this name beside it.

        Raises
        ------
        ArchiveError
            If nothing can lie beside it, because it is a store or a chain of URLs.
        """
        if self.held is not None or len(self._links) > 1 or not self.url.endswith(self.name):
            raise ArchiveError(f"nothing can be written beside '{self}', expected a URL such as s3://bucket/{name}")
        return replace(self, url=self.url.removesuffix(self.name) + name)

    def with_stem(self, stem: str) -> Remote:
        """What has this stem, and the same suffix, beside it."""
        return self.with_name(stem + self.suffix)

    def exists(self) -> bool:
        """Whether there is a file or an archive, finished or not."""
        if self.held is not None:
            return not sync(self.held.is_empty(""))
        with remote_errors("read", self):
            fs, path = self.fs()
            return bool(fs.exists(path))

    def is_file(self) -> bool:
        """Whether there is a single object of this name."""
        if self.held is not None:
            return False
        with remote_errors("read", self):
            fs, path = self.fs()
            return bool(fs.isfile(path))

    def is_dir(self) -> bool:
        """Whether there are objects beneath this name."""
        return not self.is_file() and self.exists()

    def size(self) -> int:
        """Bytes of the file, or of all beneath it."""
        if self.held is not None:
            return 0
        with remote_errors("read", self):
            fs, path = self.fs()
            return int(fs.du(path, total=True))

    def read_bytes(self) -> bytes:
        """The bytes of the file; `FileNotFoundError` where there is none."""
        with remote_errors("read", self, missing=True):
            fs, path = self.fs()
            return bytes(fs.cat_file(path))

    def read_text(self) -> str:
        """The text of the file; `FileNotFoundError` where there is none."""
        return self.read_bytes().decode()

    def fetch(self, target: Path) -> None:
        """Copy the file to this machine."""
        with remote_errors("read", self, missing=True):
            fs, path = self.fs()
            fs.get_file(path, str(target))

    def put(self, source: Path) -> None:
        """Write the file, which is there when all of it has been written: an object has its name at the end only.

        It is written again where it is not there afterwards: the store has not kept it, or another process has replaced
        or removed it.
        """
        self.check_writable()
        with remote_errors("write", self):
            fs, path = self.fs()
            # Object stores have no folders; others need that of the file.
            if self.scheme not in _BUCKETS:
                fs.makedirs(fs._parent(path), exist_ok=True)
            for _ in range(TRIES):
                fs.put_file(str(source), path)
                if _size(fs, path) == source.stat().st_size:
                    return
            raise OSError(errno.EIO, LOST)

    def remove(self) -> None:
        """Remove the file, or all beneath it, if it is there."""
        with remote_errors("remove", self), contextlib.suppress(FileNotFoundError):
            fs, path = self.fs()
            fs.rm(path, recursive=True)

    def check_writable(self) -> None:
        """Raise `ArchiveError` if nothing can be written to such a URL or store."""
        if self.held is not None and type(self.held).__module__.startswith("icechunk"):
            raise ArchiveError(
                "an Icechunk store can be read, but not written: it takes no objects beside those of Zarr; write to a "
                "path or a URL, and copy the result with open_archive(...).to_zarr(session.store)"
            )
        if self.held is not None and self.held.read_only:
            raise ArchiveError(f"the store '{self}' can be read, but not written; open it for writing, or give a path")
        if self.held is None and (self.scheme in _READ_ONLY or len(self._links) > 1):
            raise ArchiveError(f"'{self}' can be read, but not written; choose a path, or a URL such as s3://bucket/a")

    @property
    def lists(self) -> bool:
        """Whether what lies beneath it can be listed."""
        return self.scheme not in _READ_ONLY

    def store(self, *, read_only: bool) -> Store:
        """The store of Zarr."""
        if self.held is not None:
            held = self.held.with_read_only(read_only) if self.held.read_only != read_only else self.held
            if not held._is_open:
                # Stores of zip files do not open by themselves.
                sync(held._open())
            return held
        with remote_errors("open", self):
            found = FsspecStore.from_url(self.url, storage_options=self._options())
            return found.with_read_only(read_only)

    def fs(self) -> tuple[Any, str]:
        """The file system of fsspec and the path in it."""
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(self.url, **self._options())
        return fs, path

    def about_nothing(self) -> str:
        """What is missing where nothing is found: the bucket, or what should be in it."""
        if self.held is None and self.scheme in _BUCKETS:
            with remote_errors("read", self):
                fs, path = self.fs()
                bucket = path.strip("/").partition("/")[0]
                if not fs.exists(bucket):
                    return f"there is no bucket '{bucket}' for '{self}'; check its name, the endpoint and the account"
        return f"there is nothing at '{self}'"

    def _options(self) -> dict[str, Any]:
        # Listings that fsspec remembers would hide what other writers do. Options of a chain are by protocol.
        own: dict[str, Any] = {} if len(self._links) > 1 else {"use_listings_cache": False}
        if self.scheme in ("s3", "s3a"):
            # Else s3fs asks for the size of each object before it reads it: chunks are read side by side anyway.
            own["max_concurrency"] = 1
        return own | dict(self.options)


def _size(fs: Any, path: str) -> int | None:
    """Bytes of a file; None if there is none."""
    try:
        return int(fs.size(path))
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def remote_errors(action: str, place: object, *, missing: bool = False) -> Iterator[None]:
    """Turn what a file system of fsspec raises into `ArchiveError`, with the remedy.

    Parameters
    ----------
    action
        What fails, a verb.
    place
        Of what.
    missing
        Let `FileNotFoundError` pass.
    """
    try:
        yield
    except SdaxrError:
        raise
    except FileNotFoundError as error:
        if missing:
            raise
        raise _failed(action, place, error, "create the bucket or folder first, or choose another URL") from error
    except PermissionError as error:
        remedy = "check the permissions and the credentials (storage_options, --storage-option, or the environment)"
        raise _failed(action, place, error, remedy) from error
    except ImportError as error:
        raise ArchiveError(f"cannot {action} '{place}': {_short(error)} ({_packages(str(place))})") from error
    except Exception as error:  # packages of object stores have errors of their own
        raise _failed(action, place, error, _remedy(error)) from error


def _failed(action: str, place: object, error: Exception, remedy: str) -> ArchiveError:
    return ArchiveError(f"cannot {action} '{place}': {_short(error)}; {remedy}")


def _remedy(error: Exception) -> str:
    text = f"{type(error).__name__} {error}"
    if isinstance(error, ValueError) and "rotocol" in text:
        return "expected a path, or a URL of a protocol that fsspec knows, such as s3://, gs://, https:// or memory://"
    if "Credentials" in text:
        return "give credentials (storage_options, --storage-option, or the environment of the file system)"
    if isinstance(error, TypeError):
        return "check the names of the storage options"
    if isinstance(error, _DAMAGED):
        return "the file is damaged, or its writer has not closed it; copy it again"
    return "check the endpoint and the network, and run the same job again"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _packages(url: str) -> str:
    names = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
    wanted = [names[s] for s in (link.partition("://")[0] for link in url.split("::")) if s in names]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(absent or wanted)}" if wanted else "install this package"


@contextlib.contextmanager
def local_copy(place: Path | Remote) -> Iterator[Path]:
    """A file on this machine with the bytes and the name of ``place``; a copy of a remote file ends with the block."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="sdaxr-") as folder:
        target = Path(folder) / place.name
        place.fetch(target)
        yield target


def kept_copy(place: Remote) -> Path:
    """A copy of a remote file that stays until the process ends, for Datasets that are read from it lazily."""
    target = Path(tempfile.mkdtemp(dir=_folder(os.getpid()))) / place.name
    place.fetch(target)
    return target


@cache
def _folder(process: int) -> str:
    import atexit

    folder = tempfile.mkdtemp(prefix=f"sdaxr-{process}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
