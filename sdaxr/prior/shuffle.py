"""A buffer of blocks in a random order, from memory or streamed.

Data that fit into memory are read once. Of larger data the buffer holds a dozen blocks or more of a random order of all
of them. From batch to batch the oldest block makes place for the next one, which a thread reads ahead. What the buffer
holds depends on the seed and on the number of the batch alone: a run that was killed goes on with the same windows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior.blocks import Block, Blocks

_log = logging.getLogger(__name__)

# Fraction of the memory that the buffer has where data are streamed; the rest is for reading.
_SHARE = 3 / 4
# Of the places of the buffer, one in so many is for blocks that are read ahead.
_AHEAD = 8


@dataclass(frozen=True)
class Buffer:
    """Stretches of trajectories.

    Attributes
    ----------
    states
        Normalised states, (state, channel, *space).
    context
        Context of each state, (state, context channel, *space); None where it is the same for all windows.
    filled
        The states without gaps; None where gaps stay.
    starts, lengths
        Where each stretch that may be drawn from begins, and the number of its states, (stretch,).
    """

    states: Tensor
    context: Tensor | None
    filled: Tensor | None
    starts: np.ndarray
    lengths: np.ndarray


class Shuffled:
    """The buffer of some blocks.

    Parameters
    ----------
    blocks
        Blocks of the data.
    known
        Context by time, (time, context channel, *space).
    seed
        Seed of the order of the blocks.
    memory
        Bytes that the buffer may take.
    renewed
        Whether blocks make place for others.
    device
        Where the buffer is.
    """

    def __init__(
        self, blocks: Blocks, known: Callable[..., np.ndarray], *, seed: int, memory: float, renewed: bool,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._blocks, self._known, self._seed, self._device = blocks, known, seed, device
        self._renewed = renewed and blocks.streams
        self._slot = max(block.states for block in blocks)
        places = len(blocks)
        if blocks.streams:
            bytes_each = self._slot * blocks.state_bytes * (1 + blocks.layout.gappy)
            places = max(2, int(_SHARE * memory // bytes_each))
        ahead = max(1, places // _AHEAD) if self._renewed else 0
        # Number of blocks that are drawn from at a time, and of those that the buffer has place for.
        self.used = min(len(blocks), places - ahead)
        self._places = self.used + ahead
        self._fill: Callable[[Tensor], Tensor] | None = None
        self._held: Buffer | None = None
        self._first = -1
        # One thread reads, in the order of the numbers: a place is not written to by two.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sdaxr-reader") if self._renewed else None
        # By place, which block is there, and the reading of it.
        self._numbers: dict[int, int] = {}
        self._reading: dict[int, Future[None]] = {}
        self._storage: tuple[Tensor, Tensor | None, Tensor | None] | None = None

    def fill(self, fill: Callable[[Tensor], Tensor]) -> None:
        """Fill the gaps of each stretch of states (time, channel, *space), NaN where a value is missing."""
        self._await()
        self._fill, self._held, self._storage = fill, None, None
        self._numbers.clear()

    @property
    def filled(self) -> bool:
        """Whether gaps are filled."""
        return self._fill is not None

    @property
    def untaken(self) -> float:
        """Bytes of the buffer that are not in memory yet, with gaps filled where there are any."""
        if self._storage is not None:
            return 0.0
        blocks = self._blocks
        # Of a place, what the longest block has.
        states = self._places * blocks.states / len(blocks) if blocks.streams else blocks.states
        return float(states * blocks.state_bytes * (1 + blocks.layout.gappy))

    def at(self, first: int) -> Buffer:
        """The buffer with the blocks ``first`` to ``first + used - 1`` of the random order."""
        first = first if self._renewed else 0
        if self._held is None or first != self._first:
            wanted = range(first, first + self.used)
            for number in wanted:
                self._fetch(number)
            # Their places are those of blocks that are not drawn from any more.
            for number in range(wanted.stop, first + self._places):
                self._ask(number)
            self._first, self._held = first, self._drawn_from(wanted)
        return self._held

    def _fetch(self, number: int) -> None:
        """Have a block in its place, now."""
        place = number % self._places
        if self._numbers.get(place) == number:
            if place not in self._reading:
                return
            try:
                self._reading.pop(place).result()
                return
            except Exception as error:  # a place with half of a block is none
                _log.info("a block is read again: %s", error)
        self._await()  # Another block may be on its way to the same place.
        self._numbers.pop(place, None)
        self._read(number)
        self._numbers[place] = number

    def _await(self) -> None:
        """Wait for all that is being read; a block whose reading failed is read again."""
        for place, reading in self._reading.items():
            if reading.exception() is not None:
                del self._numbers[place]
        self._reading.clear()

    def _ask(self, number: int) -> None:
        """Have a block in its place, soon."""
        place = number % self._places
        if self._numbers.get(place) != number and self._reader is not None:
            self._numbers[place] = number
            self._reading[place] = self._reader.submit(self._read, number)

    def _read(self, number: int) -> None:
        block, (states, context, filled) = self._block(number), self._tensors
        at = slice(self._start(number), self._start(number) + block.states)
        self._blocks.read(block, states[at], None if context is None else context[at], self._known)
        if filled is not None and self._fill is not None:
            for source, target in zip(states[at].split(block.length), filled[at].split(block.length), strict=True):
                target.copy_(self._fill(source))

    def _drawn_from(self, numbers: Sequence[int]) -> Buffer:
        blocks = [(self._start(number), self._block(number)) for number in numbers]
        starts = [start + block.length * member for start, block in blocks for member in range(block.count)]
        lengths = [block.length for _, block in blocks for _ in range(block.count)]
        return Buffer(*self._tensors, np.array(starts), np.array(lengths))

    def _block(self, number: int) -> Block:
        """The block of this number: every block once, then every block once in another order, and so on."""
        epoch, place = divmod(number, len(self._blocks))
        return self._blocks[int(_order(self._seed, epoch, len(self._blocks))[place])]

    def _start(self, number: int) -> int:
        """Where a block begins in the buffer."""
        return int(self._starts[number]) if self._starts is not None else number % self._places * self._slot

    @cached_property
    def _starts(self) -> np.ndarray | None:
        """Where each block begins, one after another, in a buffer that holds all of them; None where it does not."""
        if self._blocks.streams:
            return None
        sizes = [self._block(number).states for number in range(len(self._blocks))]
        return np.cumsum([0, *sizes])

    @property
    def _tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self._storage is None:
            layout, blocks = self._blocks.layout, self._blocks
            size = self._places * self._slot if blocks.streams else blocks.states

            def room(channels: int) -> Tensor:
                return torch.empty(size, channels, *layout.shape, device=self._device)

            context = room(self._known(blocks.times(blocks[0])[:1]).shape[1]) if layout.cycles else None
            self._storage = room(layout.channels), context, room(layout.channels) if self._gappy else None
        return self._storage

    @property
    def _gappy(self) -> bool:
        return self._fill is not None and self._blocks.layout.gappy


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)
