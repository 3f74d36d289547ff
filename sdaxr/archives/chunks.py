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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from zarr.abc.store import ByteRequest, Store
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


def counts_of(arrays: Mapping[str, Mapping[str, Any]], *, own: bool) -> dict[str, tuple[int, ...]]:
    """Number of chunks along each dimension of every array that holds all of them.

    That is every array except the status of units, whose missing chunks mean pending.

    Parameters
    ----------
    arrays
        Metadata of the arrays, by name.
    own
        Whether they are those of an archive in units of work.
    """
    counts = {}
    for name, about in arrays.items():
        try:
            grid = about["chunk_grid"]["configuration"]["chunk_shape"]
            counts[name] = tuple(math.ceil(size / width) for size, width in zip(about["shape"], grid, strict=True))
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ArchiveError(
                f"the metadata of the array '{name}' are damaged ({reason}); copy the archive"
            ) from error
    if own:
        counts.pop(STATUS, None)
    return counts


def chunk_counts(path: Path) -> dict[str, tuple[int, ...]]:
    """`counts_of` the Zarr directory ``path``."""
    return counts_of(_arrays(path), own=own_attrs(path) is not None)


def stored_of(counts: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The attribute `STORED` of a file that holds as many chunks."""
    return {STORED: json.dumps({name: list(count) for name, count in sorted(counts.items())})}


def stored_attr(path: Path) -> dict[str, str]:
    """The attribute `STORED` of a file that holds all of its chunks."""
    return stored_of(chunk_counts(path))


def holds_every_chunk(path: Path) -> bool:
    """Whether the file says that it holds every chunk."""
    said = read_metadata(path).get("attributes", {}).get(STORED)
    return said is not None and stored_attr(path)[STORED] == said


def missing_chunks(
    there: Path | Collection[str], counts: Mapping[str, tuple[int, ...]], units: Sequence[int] | None = None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and index of each chunk that is not there.

    Parameters
    ----------
    there
        The Zarr directory; or the keys of all chunks that a store has.
    counts
        Number of chunks along each dimension of the arrays that are looked at.
    units
        Positions along the first dimension that are looked at. Default: all.
    """
    for name, count in counts.items():
        ranges: list[Iterable[int]] = [range(size) for size in count]
        for index in itertools.product(*ranges if units is None else [units, *ranges[1:]]):
            key = _key(name, index)
            # One look at the file system each, without the objects of pathlib, for the sake of 1e5 chunks.
            if not (os.path.exists(os.path.join(there, key)) if isinstance(there, Path) else key in there):
                yield name, index


def _key(name: str, index: tuple[int, ...]) -> str:
    return "/".join([name, "c", *map(str, index)])


def missing_error(place: object, name: str, index: tuple[int, ...], *, own: bool) -> ArchiveError:
    """The error of a chunk that is not there; ``own`` as in `counts_of`."""
    return _error(place, _key(name, index), "is missing", own=own)


class CheckedStore(WrapperStore[Store]):
    """A Zarr store for reading, of which a chunk that is missing or damaged is an `ArchiveError`.

    Parameters
    ----------
    store
        The store.
    names
        Arrays that hold every chunk, each with a checksum.
    place
        Its name in errors.
    own
        Whether it is an archive in units of work.
    token
        What tells the store from another one that has the name later.
    """

    def __init__(self, store: Store, names: frozenset[str], place: str, *, own: bool, token: object) -> None:
        super().__init__(store)
        self._names, self._place, self._own, self._token = names, place, own, token

    @classmethod
    def of_directory(cls, path: Path) -> CheckedStore:
        """The store of a Zarr directory on this machine."""
        # Another file that gets the name has another inode or time.
        about = path.stat()
        token = (str(path), about.st_ino, about.st_mtime_ns)
        own = own_attrs(path) is not None
        names = frozenset(chunk_counts(path))
        return cls(LocalStore(path, read_only=True), names, str(path), own=own, token=token)

    def _with_store(self, store: Store) -> CheckedStore:
        return CheckedStore(store, self._names, self._place, own=self._own, token=self._token)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of one file, as `zarr.abc.store.Store.get` has them."""
        found = await self._store.get(key, prototype, byte_range)
        name, _, file = key.partition("/")
        if name not in self._names or file.partition("/")[0] != "c":
            return found
        if found is None:
            raise _error(self._place, key, "is missing", own=self._own)
        # Zarr verifies the checksum, too, but its error does not say which chunk it is.
        if byte_range is None and google_crc32c.value(found.as_numpy_array()) != _UNDAMAGED:
            raise _error(self._place, key, "is damaged (its checksum is not that of its bytes)", own=self._own)
        return found

    def __dask_tokenize__(self) -> tuple[str, object]:
        return type(self).__name__, self._token


def _error(place: object, key: str, problem: str, *, own: bool) -> ArchiveError:
    name, _, index = key.partition("/c")
    number = f"({index.strip('/').replace('/', ', ')})"
    remedy = "make the file anew (overwrite, --overwrite)"
    if own:
        remedy = f"remove '{key}' if it is there and run the same job again, which does its unit anew, or {remedy}"
    return ArchiveError(f"'{place}': the chunk {number} of '{name}' {problem}; {remedy}")


def _arrays(path: Path) -> dict[str, dict[str, Any]]:
    """Metadata of the arrays of a Zarr group of format 3, by name."""
    metadata = read_metadata(path)
    if metadata.get("consolidated_metadata"):
        return consolidated_arrays(metadata)
    found = {folder.name: read_metadata(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    return {name: about for name, about in found.items() if about.get("node_type") == "array"}


def consolidated_arrays(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metadata of the arrays of a Zarr group of format 3 that is consolidated, by name; empty if it is not."""
    found = (metadata.get("consolidated_metadata") or {}).get("metadata", {})
    return {name: about for name, about in found.items() if about.get("node_type") == "array"}
