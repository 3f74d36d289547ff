"""Stores of Zarr that are not directories of this machine: their objects, and groups that are not finished yet.

Nothing is renamed in an object store, and nobody holds a lock. What is written last tells that a group is finished: the
metadata of the group itself, ``zarr.json``. Until then they lie in ``sdaxr.partial/zarr.json``, so that no reader, of
sdaxr or other software, finds a group.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from sdaxr.archives.remote import LOST, TRIES, Remote, remote_errors
from sdaxr.schema import ArchiveError

ROOT = "zarr.json"
UNFINISHED = "sdaxr.partial"
# Who writes here: the first object that is written and the last one that is removed, so that what a killed writer has
# left is known.
WRITER = f"{UNFINISHED}/writer"
# As many objects are written at once.
_TOGETHER = 16


class GuardedStore(WrapperStore[Store]):
    """A store whose errors are each an `ArchiveError` of one line.

    Parameters
    ----------
    store
        The store.
    place
        Its name in errors.
    """

    def __init__(self, store: Store, place: str) -> None:
        super().__init__(store)
        self._place = place

    def _with_store(self, store: Store) -> GuardedStore:
        return type(self)(store, self._place)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of one object, None if there is none."""
        with remote_errors("read", self._place):
            return await self._store.get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects."""
        with remote_errors("read", self._place):
            return await self._store.get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        with remote_errors("read", self._place):
            return await self._store.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object as a whole."""
        with remote_errors("write", self._place):
            await self._store.set(key, value)

    async def delete(self, key: str) -> None:
        """Remove one object, if it is there."""
        with remote_errors("write", self._place):
            await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects beneath ``prefix``."""
        with remote_errors("write", self._place):
            await self._store.delete_dir(prefix)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str]:
        """The keys of all objects beneath ``prefix``."""
        with remote_errors("list", self._place):
            async for key in self._store.list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str]:
        """The next part of the keys beneath ``prefix``."""
        with remote_errors("list", self._place):
            async for key in self._store.list_dir(prefix):
                yield key


class UnfinishedStore(WrapperStore[Store]):
    """A store with a group that is not finished: its ``zarr.json`` lies beneath `UNFINISHED`."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of one object, None if there is none."""
        return await self._store.get(_held_back(key), prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return await self._store.exists(_held_back(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object."""
        await self._store.set(_held_back(key), value)

    async def delete(self, key: str) -> None:
        """Remove one object."""
        await self._store.delete(_held_back(key))

    async def list_dir(self, prefix: str) -> AsyncGenerator[str]:
        """The next part of the keys beneath ``prefix``."""
        async for key in self._store.list_dir(prefix):
            if key.strip("/") != UNFINISHED:
                yield key


def _held_back(key: str) -> str:
    return f"{UNFINISHED}/{ROOT}" if key == ROOT else key


class Objects:
    """The objects of a store, by key, without the event loop of Zarr.

    Parameters
    ----------
    store
        The store, whose errors are those of `GuardedStore`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def of(cls, place: Remote, *, read_only: bool = True) -> Objects:
        """Those of a place."""
        return cls(GuardedStore(place.store(read_only=read_only), str(place)))

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, None if there is none."""
        found = _run(self.store.get(key, default_buffer_prototype()))
        return None if found is None else bytes(found.to_bytes())

    def has(self, key: str) -> bool:
        """Whether there is an object."""
        return bool(_run(self.store.exists(key)))

    def metadata(self, key: str) -> dict[str, Any] | None:
        """The JSON object at ``key``; None if there is none, and empty where it is something else."""
        found = self.get(key)
        if found is None:
            return None
        try:
            parsed = json.loads(found)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    def keys(self, prefix: str) -> set[str]:
        """The keys of all objects beneath ``prefix``."""
        # Zip files list their folders, too.
        return {key for key in _run(_collected(self.store.list_prefix(prefix))) if not key.endswith("/")}

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, several at once."""
        _run(_written(self.store, objects))

    def put_kept(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, and see that the store keeps them.

        Raises
        ------
        ArchiveError
            If the store cannot be written, or does not keep what is written.
        """
        waiting = dict(objects)
        for _ in range(TRIES):
            self.put(waiting)
            there = self.keys("")
            waiting = {key: data for key, data in waiting.items() if key not in there}
            if not waiting:
                return
        raise ArchiveError(f"cannot write {', '.join(map(repr, waiting))}: {LOST}; run the same job again")

    def put_last(self, key: str, data: bytes) -> None:
        """Write the object that says that the others are there, and see that the store keeps it.

        Raises
        ------
        ArchiveError
            If the store cannot be written, or does not keep what is written.
        """
        for _ in range(TRIES):
            self.put({key: data})
            if self.get(key) == data:
                return
        raise ArchiveError(f"cannot write '{key}': {LOST}; run the same job again")

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        _run(self.store.delete(key))

    def clear(self, prefix: str = "") -> None:
        """Remove all objects beneath ``prefix``, one by one: a bucket stays where the prefix is all of it."""
        _run(_removed(self.store, self.keys(prefix)))

    def take(self, writer: bytes) -> None:
        """Remove what is there, for a writer of this name; at any moment of it nobody finds a group."""
        self.put_last(WRITER, writer)
        self.delete(ROOT)
        _run(_removed(self.store, self.keys("") - {WRITER}))


def _run(coroutine: Any) -> Any:
    return sync(coroutine)


async def _collected(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]


async def _written(store: Store, objects: Mapping[str, bytes]) -> None:
    buffer = default_buffer_prototype().buffer
    await _together(store.set(key, buffer.from_bytes(data)) for key, data in objects.items())


async def _removed(store: Store, keys: Iterable[str]) -> None:
    await _together(store.delete(key) for key in keys)


async def _together(tasks: Iterable[Awaitable[None]]) -> None:
    bound = asyncio.Semaphore(_TOGETHER)

    async def one(task: Awaitable[None]) -> None:
        async with bound:
            await task

    await asyncio.gather(*map(one, tasks))
