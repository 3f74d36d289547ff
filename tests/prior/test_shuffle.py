"""The buffer of blocks: what it holds when, and what becomes of errors."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.prior.blocks import Block, Blocks
from sdaxr.prior.shuffle import Shuffled
from sdaxr.states.infer import infer_layout

CPU = torch.device("cpu")


class Recorded(Blocks):
    """Blocks that say which of them are read, by which thread, and that may fail."""

    def __init__(self, data: xr.Dataset, memory: float) -> None:
        super().__init__(data, infer_layout(data), 3, memory)
        self.seen: list[tuple[Block, str]] = []
        self.broken: set[int] = set()

    def read(self, block: Block, *args: object) -> None:  # type: ignore[override]
        self.seen.append((block, threading.current_thread().name))
        if len(self.seen) in self.broken:
            raise OSError("lost")
        super().read(block, *args)  # type: ignore[arg-type]


def test_the_oldest_block_makes_place_for_the_next_one() -> None:
    blocks = recorded(4 * 300)
    buffer = shuffled(blocks)
    held = [content(buffer, first) for first in range(3 * len(blocks))]
    for before, after in pairwise(held):
        # None, where one that is already there comes again in the next order.
        assert (before - after).total() == (after - before).total() <= 1
    # In each order of all blocks every one comes once.
    read = [str(block) for block, _ in blocks.seen]
    for epoch in range(3):
        assert set(read[epoch * len(blocks) : (epoch + 1) * len(blocks)]) == set(map(str, blocks))
    # What is read ahead is read by another thread, once.
    names = [name for _, name in blocks.seen]
    assert names[: buffer.used] == ["MainThread"] * buffer.used
    assert all(name.startswith("sdaxr-reader") for name in names[buffer.used :])
    assert len(names) <= len(held) + buffer.used + 2


def test_the_buffer_is_the_same_wherever_a_run_goes_on() -> None:
    one, other = shuffled(recorded(4 * 300)), shuffled(recorded(4 * 300))
    expected = {first: content(one, first) for first in range(60)}
    for first in (41, 3, 59, 40, 0):
        assert content(other, first) == expected[first]
    assert content(shuffled(recorded(4 * 300), seed=1), 0) != expected[0]


def test_a_buffer_that_is_not_renewed_reads_nothing_ahead() -> None:
    blocks = recorded(4 * 300)
    buffer = Shuffled(blocks, blocks.layout.context_array, seed=0, memory=4 * 300, renewed=False, device=CPU)
    assert content(buffer, 0) == content(buffer, 7)
    assert len(blocks.seen) == buffer.used


def test_a_block_that_cannot_be_read_is_read_again_when_it_is_needed() -> None:
    blocks, expected = recorded(4 * 300), shuffled(recorded(4 * 300))
    buffer = shuffled(blocks)
    blocks.broken = {buffer.used + 1}
    for first in range(3):
        assert content(buffer, first) == content(expected, first)
    twice = recorded(4 * 300)
    buffer, twice.broken = shuffled(twice), {*range(buffer.used + 1, 40)}
    buffer.at(0)
    for _ in range(2):
        with pytest.raises(OSError, match="lost"):
            buffer.at(1)
    twice.broken = set()
    assert content(buffer, 1) == content(expected, 1)


def test_gaps_are_filled_as_blocks_are_read() -> None:
    values = np.random.default_rng(0).normal(size=(6, 100))
    values[:, ::7] = np.nan
    data = xr.Dataset({"a": (("trajectory", "time"), values, {"units": "m"})}, {"time": np.arange(100.0)})
    blocks = Blocks(data, infer_layout(data, missing="masked"), 3, 4 * 300)
    buffer = shuffled(blocks)
    before = buffer.at(0)
    assert before.filled is None and blocks.streams
    buffer.fill(lambda states: states.nan_to_num(7.0))
    after = buffer.at(0)
    assert after.filled is not None and np.array_equal(after.starts, before.starts)
    for start, length in zip(after.starts, after.lengths, strict=True):
        part = slice(start, start + length)
        assert torch.equal(after.filled[part], after.states[part].nan_to_num(7.0))


def recorded(memory: float) -> Recorded:
    values = 1000.0 * np.arange(6)[:, None] + np.arange(100)
    data = xr.Dataset({"a": (("trajectory", "time"), values, {"units": "m"})}, {"time": np.arange(100.0)})
    return Recorded(data.chunk(trajectory=1, time=10), memory)


def shuffled(blocks: Blocks, seed: int = 0) -> Shuffled:
    return Shuffled(blocks, blocks.layout.context_array, seed=seed, memory=4 * 300, renewed=True, device=CPU)


def content(buffer: Shuffled, first: int) -> Counter[float]:
    """The values of all stretches of the buffer."""
    held = buffer.at(first)
    pairs = zip(held.starts, held.lengths, strict=True)
    return Counter(round(float(x), 4) for start, length in pairs for x in held.states[start : start + length, 0][:1])
