"""Blocks of training data: every window is in one of them, and hardly a chunk is read twice."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.prior.blocks import Blocks, needed_bytes
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout

WINDOW = 5


@pytest.mark.parametrize(
    ("number", "steps", "chunks", "memory"),
    [
        (6, 200, (1, 200), 4 * 400),  # a trajectory a chunk, larger than a block may be
        (40, 20, (1, 20), 4 * 300),  # short trajectories
        (12, 100, (3, 10), 4 * 500),  # chunks of several trajectories
        (12, 30, (12, 1), 4 * 200),  # chunks of all trajectories at one time
        (5, 300, (1, 7), 4 * 700),
        (5, 300, None, 4 * 700),  # in memory
        (None, 900, (50,), 4 * 500),  # one series
    ],
)
def test_every_window_is_in_one_block(
    number: int | None, steps: int, chunks: tuple[int, ...] | None, memory: float
) -> None:
    data, layout = series(number, steps, chunks)
    # Two gaps.
    kept = data.isel(time=[i for i in range(steps) if i not in (9, steps // 2)])
    blocks = Blocks(kept, layout, WINDOW, memory)
    assert blocks.streams
    found: Counter[tuple[int, float]] = Counter()
    for block in blocks:
        members = range(block.members.start, block.members.stop) if block.members else [0]
        times = kept.time.values[block.times]
        assert np.array_equal(times, np.arange(times[0], times[0] + block.length))  # without a gap
        found.update((m, t) for m in members for t in times[: block.length - WINDOW + 1])
    whole = [t for t in range(steps - WINDOW + 1) if not {9, steps // 2} & set(range(t, t + WINDOW))]
    assert found == Counter((m, t) for m in range(number or 1) for t in whole)
    assert blocks.starts == len(whole) * (number or 1)


def test_blocks_end_where_chunks_do() -> None:
    """A block of m chunks reads the window's rest of the next one, and no more."""
    data, layout = series(2, 1000, (1, 10))
    blocks = Blocks(data, layout, WINDOW, 4 * 1000)
    firsts = [block.times.start for block in blocks]
    assert all(first % 10 == 0 for first in firsts) and len(firsts) > 2 * 16
    assert {block.length for block in blocks if block.times.stop < 1000} == {20 + WINDOW - 1}
    # A chunk that is larger than usual, but not too large, is a block; a larger one is cut.
    one = Blocks(*series(2, 960, (1, 48)), WINDOW, 4 * 1000)
    assert {block.times.start % 48 for block in one} == {0}


def test_short_trajectories_are_read_together_and_long_ones_are_not() -> None:
    short = Blocks(*series(100, 10, (1, 10)), WINDOW, 4 * 900)
    assert {block.count for block in short} == {2}
    shared = Blocks(*series(12, 100, (3, 10)), WINDOW, 4 * 1100)
    assert {(block.members.start % 3, block.count) for block in shared if block.members} == {(0, 3)}


def test_blocks_are_read_as_they_are(trajectories: xr.Dataset) -> None:
    """States of several trajectories follow each other, whatever the chunks."""
    layout = infer_layout(trajectories, variables=["u", "v"])
    blocks = Blocks(trajectories.chunk(trajectory=1, time=2), layout, 2, 1.0)
    expected = layout.to_array(trajectories)
    assert blocks.streams
    for block in blocks:
        states = torch.full((block.states, layout.channels, *layout.shape), torch.nan)
        context = torch.full((block.states, layout.context_channels, *layout.shape), torch.nan)
        blocks.read(block, states, context, layout.context_array)
        assert block.members is not None
        wanted = expected[block.members, block.times].reshape(states.shape)
        np.testing.assert_array_equal(states, wanted)
        once = layout.context_array(blocks.times(block))
        np.testing.assert_array_equal(context, np.concatenate([once] * block.count))


def test_only_the_chunks_of_a_block_are_read() -> None:
    """And none of them twice."""
    read: Counter[tuple[int, ...]] = Counter()

    def chunk(block_info: dict) -> np.ndarray:  # type: ignore[type-arg]
        read.update([block_info[None]["chunk-location"]])
        return np.random.default_rng(block_info[None]["num-chunks"]).normal(size=(1, 10))

    values = da.map_blocks(chunk, chunks=((1,) * 4, (10,) * 50), dtype=float, meta=np.zeros((0, 0)))
    data = xr.Dataset({"a": (("trajectory", "time"), values, {"units": "m"})}, {"time": np.arange(500.0)})
    layout = infer_layout(data)
    read.clear()
    blocks = Blocks(data, layout, WINDOW, 4 * 1000)
    assert not read
    block = blocks[3]
    blocks.read(block, torch.empty(block.states, 1), None, layout.context_array)
    assert block.members is not None
    first = block.times.start // 10
    assert read == Counter((block.members.start, first + i) for i in range(-(-block.length // 10)))


def test_chunks_that_are_read_many_times_are_told(caplog: pytest.LogCaptureFixture) -> None:
    Blocks(*series(2, 1000, (1, 10)), WINDOW, 4 * 1000)
    assert not caplog.text
    Blocks(*series(2, 2000, (1, 2000)), WINDOW, 4 * 1000)
    assert "chunks have 2000 states, of which only 31 fit into the memory of the training at once" in caplog.text


def test_data_that_fit_are_not_streamed() -> None:
    data, layout = series(4, 100, (1, 50))
    needed = needed_bytes(data, layout)
    assert needed == 4 * 400
    assert not Blocks(data, layout, WINDOW, 8 * needed).streams and Blocks(data, layout, WINDOW, needed / 4).streams


def series(number: int | None, steps: int, chunks: tuple[int, ...] | None) -> tuple[xr.Dataset, StateLayout]:
    dims = ("time",) if number is None else ("trajectory", "time")
    values = np.random.default_rng(0).normal(size=(steps,) if number is None else (number, steps))
    data = xr.Dataset({"a": (dims, values, {"units": "m"})}, {"time": np.arange(float(steps))})
    layout = infer_layout(data)
    return (data if chunks is None else data.chunk(dict(zip(dims, chunks, strict=True)))), layout
