"""Chunks of sdaxr's own Zarr files: all of them are there, and each carries a checksum.

Zarr leaves a chunk out whose values all equal the fill value, and reads a chunk that is missing as fill values. Nobody
can then tell a chunk that was lost from land, which is NaN. Files of sdaxr hold every chunk, and say so when they are
finished, in the attribute ``sdaxr_chunks``: the number of chunks along each dimension of each array. It counts for
arrays of exactly that shape, so that what other software has made of such a file is not held to it.

Each chunk ends with the CRC-32C of its bytes (Zarr's codec ``crc32c``), which every reader of Zarr format 3 verifies.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from zarr.abc.store import ByteRequest
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from sdaxr.archives.format import STATUS, STORED, own_attrs, read_metadata
from sdaxr.schema import ArchiveError

# CRC-32C of any bytes that are followed by their own CRC-32C (little-endian): a constant of the polynomial.
_UNDAMAGED = 0x48674BC7


def chunk_encoding(names: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Encoding of these variables for `xarray.Dataset.to_zarr`: zarr's usual compression, a checksum, every chunk."""
    compressors = (ZstdCodec(level=0), Crc32cCodec())
    return {name: {"compressors": compressors, "write_empty_chunks": True} for name in names}


def chunk_counts(path: Path) -> dict[str, tuple[int, ...]]:
    """Number of chunks along each dimension of every array that holds all of them.

    That is every array except the status of units, whose missing chunks mean pending.
    """
    counts = {}
    for name, about in _arrays(path).items():
        try:
            grid = about["chunk_grid"]["configuration"]["chunk_shape"]
            counts[name] = tuple(math.ceil(size / width) for size, width in zip(about["shape"], grid, strict=True))
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ArchiveError(f"the metadata of '{name}' in {str(path)!r} are damaged ({reason}); copy it") from error
    if own_attrs(path) is not None:
        counts.pop(STATUS, None)
    return counts


def stored_attr(path: Path) -> dict[str, str]:
    """The attribute `STORED` of a file that holds all of its chunks."""
    return {STORED: json.dumps({name: list(count) for name, count in sorted(chunk_counts(path).items())})}


def holds_every_chunk(path: Path) -> bool:
    """Whether the file says that it holds every chunk."""
    said = read_metadata(path).get("attributes", {}).get(STORED)
    return said is not None and stored_attr(path)[STORED] == said


def missing_chunks(
    path: Path, counts: Mapping[str, tuple[int, ...]], units: Sequence[int] | None = None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and index of each chunk that is not there.

    Parameters
    ----------
    path
        The Zarr directory.
    counts
        Number of chunks along each dimension of the arrays that are looked at.
    units
        Positions along the first dimension that are looked at. Default: all.
    """
    for name, count in counts.items():
        ranges: list[Iterable[int]] = [range(size) for size in count]
        for index in itertools.product(*ranges if units is None else [units, *ranges[1:]]):
            # One look at the file system each, without the objects of pathlib, for the sake of 1e5 chunks.
            if not os.path.exists(os.path.join(path, _key(name, index))):
                yield name, index


def _key(name: str, index: tuple[int, ...]) -> str:
    return "/".join([name, "c", *map(str, index)])


def missing_error(path: Path, name: str, index: tuple[int, ...]) -> ArchiveError:
    """The error of a chunk that is not there."""
    return _error(path, _key(name, index), "is missing")


class CheckedStore(WrapperStore[LocalStore]):
    """A Zarr directory for reading, of which a chunk that is missing or damaged is an `ArchiveError`.

    Parameters
    ----------
    store
        The directory.
    names
        Arrays that hold every chunk, each with a checksum; default: those of `chunk_counts`.
    """

    def __init__(self, store: LocalStore, names: frozenset[str] | None = None) -> None:
        super().__init__(store)
        self._names = frozenset(chunk_counts(store.root)) if names is None else names

    def _with_store(self, store: LocalStore) -> CheckedStore:
        return CheckedStore(store, self._names)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of one file, as `zarr.abc.store.Store.get` has them."""
        found = await self._store.get(key, prototype, byte_range)
        name, _, file = key.partition("/")
        if name not in self._names or file.partition("/")[0] != "c":
            return found
        if found is None:
            raise _error(self._store.root, key, "is missing")
        # Zarr verifies the checksum, too, but its error does not say which chunk it is.
        if byte_range is None and google_crc32c.value(found.as_numpy_array()) != _UNDAMAGED:
            raise _error(self._store.root, key, "is damaged (its checksum is not that of its bytes)")
        return found

    def __dask_tokenize__(self) -> tuple[str, str, int, int]:
        # Another file that gets the name has another inode or time.
        about = self._store.root.stat()
        return type(self).__name__, str(self._store.root), about.st_ino, about.st_mtime_ns


def _error(path: Path, key: str, problem: str) -> ArchiveError:
    name, _, index = key.partition("/c")
    number = f"({index.strip('/').replace('/', ', ')})"
    remedy = "make the file anew (overwrite, --overwrite)"
    if own_attrs(path) is not None:
        remedy = f"remove '{key}' if it is there and run the same job again, which does its unit anew, or {remedy}"
    return ArchiveError(f"'{path}': the chunk {number} of '{name}' {problem}; {remedy}")


def _arrays(path: Path) -> dict[str, dict[str, Any]]:
    """Metadata of the arrays of a Zarr group of format 3, by name."""
    consolidated = read_metadata(path).get("consolidated_metadata")
    if consolidated:
        found = consolidated["metadata"]
    else:
        found = {folder.name: read_metadata(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    return {name: about for name, about in found.items() if about.get("node_type") == "array"}
