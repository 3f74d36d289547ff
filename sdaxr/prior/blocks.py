"""Blocks: the parts of training data that are read together, and how their states become tensors.

A block is a stretch of consecutive times of one trajectory, or of a few that share their chunks. Blocks begin and end
where chunks do, as far as chunks fit into memory, so that hardly a chunk is read twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.schema import TIME
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import time_stretches

_log = logging.getLogger(__name__)

# Fractions of the memory that a block of streamed data has, and that it may have where its chunks are large: those that
# are held at a time are a dozen or more, so that a batch has windows of many.
_USUAL, _MOST = 1 / 32, 1 / 16
# Numbers that are normalised at once: some 100 MB with what is computed in between.
_AT_ONCE = 2**22
# A block of which so many times its own bytes are read is worth a word.
_WASTED = 4.0


@dataclass(frozen=True)
class Block:
    """Consecutive times of some trajectories, each of which is a stretch that windows are drawn from.

    Attributes
    ----------
    members
        Which trajectories; None where there is no such dimension.
    times
        Which times.
    """

    members: slice | None
    times: slice

    @property
    def count(self) -> int:
        """Number of trajectories."""
        return 1 if self.members is None else self.members.stop - self.members.start

    @property
    def length(self) -> int:
        """Number of times."""
        return int(self.times.stop - self.times.start)

    @property
    def states(self) -> int:
        """Number of states."""
        return self.count * self.length


class Blocks(Sequence[Block]):
    """The blocks of one split of the training data.

    Parameters
    ----------
    data
        One split of the trajectories, lazily opened.
    layout
        How states become tensors.
    length
        Number of states in a window.
    memory
        Bytes of data that are held at once. Data that fit are blocks of one trajectory each, none larger than an eighth
        of it.

    Attributes
    ----------
    streams
        Whether the data do not fit into the memory.
    """

    def __init__(self, data: xr.Dataset, layout: StateLayout, length: int, memory: float) -> None:
        self.data, self.layout, self.window = data, layout, length
        self._ensemble = ensemble_dimension(data)
        self._blocks = self._held(memory)
        longest = max(block.states for block in self._blocks)
        room = max(1, int(memory / 2 // (self.state_bytes * longest)))
        self.streams = len(self._blocks) > 2 * room
        if self.streams:
            # Gaps may be filled beside the states that have them.
            self._blocks = self._streamed(memory / (self.state_bytes * (1 + layout.gappy)))

    def __getitem__(self, index: int) -> Block:  # type: ignore[override]
        return self._blocks[index]

    def __len__(self) -> int:
        return len(self._blocks)

    @cached_property
    def state_bytes(self) -> int:
        """Bytes of one state, float32, and of its context where that changes in time."""
        return _state_bytes(self.layout)

    @cached_property
    def states(self) -> int:
        """Number of states of all blocks."""
        return sum(block.states for block in self)

    @cached_property
    def starts(self) -> int:
        """Number of states at which a window begins."""
        return sum(block.count * (block.length - self.window + 1) for block in self)

    def times(self, block: Block) -> xr.DataArray:
        """The times of a block."""
        return self.data[TIME][block.times]

    def read(self, block: Block, states: Tensor, context: Tensor | None, known: Callable[..., np.ndarray]) -> None:
        """Read a block into tensors on any device, a few chunks at a time.

        Parameters
        ----------
        block
            What is read.
        states
            Is set to the normalised states, (trajectory * time, channel, *space), NaN where a value is missing.
        context
            Is set to the context of each of them, if there is one, (trajectory * time, context channel, *space).
        known
            Context by time, (time, context channel, *space).
        """
        data = self.data[list(self.layout.variables)]
        if block.members is not None:
            data = data.isel({self._ensemble: block.members})
        whole = states.unflatten(0, (block.count, block.length))
        beside = None if context is None else context.unflatten(0, (block.count, block.length))
        for run in self._runs(block):
            held = data.isel({TIME: run}).load()
            for part in self._pieces(run, block.count):
                piece = held.isel({TIME: slice(part.start - run.start, part.stop - run.start)})
                at = slice(part.start - block.times.start, part.stop - block.times.start)
                values = self.layout.to_array(piece, gaps=self.layout.gappy)
                whole[:, at].copy_(torch.as_tensor(values.reshape(block.count, -1, *values.shape[-states.ndim + 1 :])))
                if beside is not None:
                    beside[:, at].copy_(torch.as_tensor(known(piece[TIME])))

    def _runs(self, block: Block) -> Iterator[slice]:
        """The times of a block in runs of whole chunks, enough of them to be worth a reading."""
        first, last = block.times.start, block.times.stop
        least = max(1, _AT_ONCE * 4 // (self.state_bytes * block.count))
        start = first
        for edge in [*self._edges[(self._edges > first) & (self._edges < last)].tolist(), last]:
            if edge - start >= least or edge == last:
                yield slice(start, edge)
                start = edge

    def _pieces(self, run: slice, count: int) -> Iterator[slice]:
        """A run in pieces that are normalised at once."""
        step = max(1, _AT_ONCE * 4 // (self.state_bytes * count))
        for start in range(run.start, run.stop, step):
            yield slice(start, min(start + step, run.stop))

    @cached_property
    def _edges(self) -> np.ndarray:
        """Times at which chunks of all variables begin, and the end."""
        return _edges([self.data[v] for v in self.layout.variables if TIME in self.data[v].dims], TIME)

    def _held(self, memory: float) -> list[Block]:
        """Blocks of one trajectory each, none larger than an eighth of the memory."""
        number = 1 if self._ensemble is None else self.data.sizes[self._ensemble]
        members = [None] if self._ensemble is None else [slice(i, i + 1) for i in range(number)]
        longest = max(self.window, min(self.data.sizes[TIME], int(memory / 8 // self.state_bytes)))
        blocks = []
        for member, part in product(members, stretches(self.data)):
            # Neighbouring blocks overlap by one state less than a window: every window of a stretch is in a block.
            starts = range(part.start, part.stop - self.window + 1, longest - self.window + 1)
            blocks += [Block(member, slice(start, min(start + longest, part.stop))) for start in starts]
        return blocks

    def _streamed(self, room: float) -> list[Block]:
        """Blocks of whole chunks; ``room`` are the states that fit into memory."""
        usual, most = max(1, int(_USUAL * room)), max(1, int(_MOST * room))
        blocks = []
        for members in self._groups(usual, most):
            count = 1 if members is None else members.stop - members.start
            for part in stretches(self.data):
                times = _cut(part, self._edges, self.window, usual // count, most // count)
                blocks += [Block(members, each) for each in times]
        self._warn(blocks)
        return blocks

    def _groups(self, usual: int, most: int) -> Sequence[slice | None]:
        """Trajectories that are read together: those of a chunk or, where trajectories are short, of several chunks."""
        if self._ensemble is None:
            return [None]
        longest = max(part.stop - part.start for part in stretches(self.data))
        moving = [self.data[v] for v in self.layout.variables if TIME in self.data[v].dims]
        edges = _edges([v for v in moving if self._ensemble in v.dims] or moving, self._ensemble)
        # With a window of each trajectory beyond the chunk.
        read = min(longest, int(np.diff(self._edges).max()) + self.window - 1)
        groups: list[slice | None] = []
        for first, last in pairwise(edges.tolist()):
            before = groups[-1] if groups else None
            if before is not None and (last - before.start) * longest <= usual:
                groups[-1] = slice(before.start, last)
                continue
            step = last - first if (last - first) * read <= most else max(1, usual // read)
            groups += [slice(start, min(start + step, last)) for start in range(first, last, step)]
        return groups

    def _warn(self, blocks: Sequence[Block]) -> None:
        """Say where chunks are so large that most of what is read is thrown away."""
        block = sorted(blocks, key=lambda each: each.states)[len(blocks) // 2]
        inner = (self._edges > block.times.start) & (self._edges < block.times.stop)
        first = self._edges[self._edges <= block.times.start].max()
        last = self._edges[self._edges >= block.times.stop].min()
        if (last - first) / block.length > _WASTED and inner.sum() <= 1:
            _log.warning(
                "chunks have %d states, of which only %d fit into the memory of the training at once: each is read %d "
                "times; rewrite the data with ds.chunk(time=%d), or train with optimisation={'memory': ...} of more",
                last - first, block.length, round((last - first) / block.length), block.length,
            )  # fmt: skip


def needed_bytes(data: xr.Dataset, layout: StateLayout) -> int:
    """Bytes of all states of ``data`` in a buffer."""
    ensemble = ensemble_dimension(data)
    return _state_bytes(layout) * int(data.sizes[TIME] * (1 if ensemble is None else data.sizes[ensemble]))


def stretches(data: xr.Dataset) -> list[slice]:
    """Stretches of the times of ``data`` without a gap; a single time is one."""
    return time_stretches(data)[1] if data.sizes[TIME] > 1 else [slice(0, data.sizes[TIME])]


def _state_bytes(layout: StateLayout) -> int:
    channels = layout.channels + (layout.context_channels if layout.cycles else 0)
    return 4 * channels * int(np.prod(layout.shape, dtype=int))


def _edges(variables: Sequence[xr.DataArray], dim: object) -> np.ndarray:
    """Where chunks of all variables begin along a dimension, and its end; anywhere where there are no chunks."""
    size = variables[0].sizes[dim]
    found = np.arange(size + 1)
    for variable in variables:
        if sizes := variable.chunksizes.get(dim):
            found = np.intersect1d(found, np.cumsum([0, *sizes]))
    return found


def _cut(part: slice, edges: np.ndarray, window: int, usual: int, most: int) -> Iterator[slice]:
    """A stretch in blocks that hold ``usual`` states, up to ``most`` where chunks end later; every window is in one."""
    over, start = window - 1, part.start
    room, limit = max(window, usual - over), max(window, most - over)
    while part.stop - start >= window:
        later = edges[(edges > start) & (edges <= start + limit)]
        within = later[later <= start + room]
        stop = int(within[-1] if len(within) else later[0] if len(later) else start + room)
        stop = part.stop if part.stop - start <= room + over else stop
        yield slice(start, min(stop + over, part.stop))
        start = stop
