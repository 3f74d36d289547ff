"""Windows of states for the training, drawn from memory or streamed from disk.

A buffer of whole blocks (stretches of trajectories) is held in memory. Data that fit are read once; otherwise a thread
reads the next blocks while windows are drawn from the present ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.prior.symmetries import parse
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout


class Windows:
    """Random windows of a Dataset, reproducible from a seed and the number of the batch.

    Parameters
    ----------
    data
        One split of the trajectories, lazily opened.
    layout
        How states become tensors.
    length
        Number of states a window.
    seed
        Seed of the order of the blocks and of the windows.
    homogeneous
        Periodic dimensions along which the statistics do not change: windows are rolled along them at random.
    symmetries
        Transformations that the statistics have (`sdaxr.prior.symmetries`); each is applied at random.
    memory
        Bytes that the buffer may take.
    renew
        Number of batches after which the buffer of data that do not fit in memory is exchanged.
    """

    def __init__(
        self,
        data: xr.Dataset,
        layout: StateLayout,
        length: int,
        *,
        seed: int,
        homogeneous: Sequence[str] = (),
        symmetries: Sequence[Mapping[str, Any]] = (),
        memory: float = 4e9,
        renew: int = 64,
    ) -> None:
        if data.sizes[TIME] < length:
            raise DataError(
                f"found {data.sizes[TIME]} states a trajectory, expected at least the window of {length}; train with a "
                "shorter window or generate longer trajectories"
            )
        self._axes = _homogeneous_axes(layout, homogeneous)
        self._symmetries = parse(layout, symmetries)
        self.layout = layout
        self.length = length
        self.seed = seed
        self._blocks = _blocks(data, layout, length, memory)
        state = 4 * layout.channels * int(np.prod(layout.shape, dtype=int))
        longest = max(block.sizes[TIME] for block in self._blocks)
        # While one buffer is in use, the next one is being read.
        room = max(1, int(memory / 2 // (state * longest)))
        self.streams = len(self._blocks) > 2 * room
        self._per_buffer = room if self.streams else len(self._blocks)
        self._renew = renew
        self._reader = ThreadPoolExecutor(1) if self.streams else None
        self._current = -1
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._next: tuple[int, Future[list[tuple[np.ndarray, np.ndarray]]]] | None = None

    def batch(self, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows of batch ``number``.

        Returns
        -------
        States (size, length, channel, *space) and their context (size, length, context channel, *space), float32;
        the context has a leading dimension of 1 where it is the same for all.
        """
        held = self._buffer(number // self._renew if self.streams else 0)
        draw = np.random.default_rng((self.seed, number))
        room = np.array([len(states) - self.length + 1 for states, _ in held])
        which = draw.choice(len(held), size=size, p=room / room.sum())
        first = draw.integers(room[which])
        states = np.stack([held[b][0][f : f + self.length] for b, f in zip(which, first, strict=True)])
        for axis in self._axes:
            shifts = draw.integers(states.shape[axis], size=size)
            states = np.stack([np.roll(s, shift, axis) for s, shift in zip(states, shifts, strict=True)])
        for symmetry in self._symmetries:
            times = draw.integers(symmetry.order, size=size)
            states = np.stack([symmetry(s, int(n)) for s, n in zip(states, times, strict=True)])
        if not self.layout.cycles:
            return states, held[0][1][None, : self.length]
        context = np.stack([held[b][1][f : f + self.length] for b, f in zip(which, first, strict=True)])
        return states, context

    def _buffer(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        if number != self._current:
            ready = self._next[1].result() if self._next and self._next[0] == number else self._read(number)
            self._current, self._held = number, ready
            if self._reader is not None:
                self._next = (number + 1, self._reader.submit(self._read, number + 1))
        return self._held

    def _read(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        order = np.random.default_rng((self.seed, number)).permutation(len(self._blocks))
        chosen = [self._blocks[i] for i in order[: self._per_buffer]]
        return [(self.layout.to_array(block), self.layout.context_array(block[TIME])) for block in chosen]


def cut(states: np.ndarray, context: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (batch, time, ...) in so many pieces each, (batch * pieces, time // pieces, ...); a rest is left out."""
    length = states.shape[1] // pieces
    parts = states[:, : pieces * length].reshape(-1, length, *states.shape[2:])
    if len(context) != len(states):  # the same for all windows, and so constant in time
        return parts, context[:, :length]
    return parts, context[:, : pieces * length].reshape(-1, length, *context.shape[2:])


def _homogeneous_axes(layout: StateLayout, dims: Sequence[str]) -> list[int]:
    """Axes of a window (time, channel, *space), counted from the end."""
    for dim in dims:
        if dim not in layout.space or not layout.periodic[layout.space.index(dim)]:
            raise OptionError(
                f"homogeneous dimension {nearest(dim, layout.space)}, and it has to be periodic (attribute 'period')"
            )
        axis = layout.space.index(dim)
        for name, field in layout.context.items():
            if np.ptp(field, axis=axis).max() > 1e-6:
                raise OptionError(f"the context field '{name}' varies along '{dim}', so '{dim}' is not homogeneous")
    return [layout.space.index(dim) - len(layout.space) for dim in dims]


def _blocks(data: xr.Dataset, layout: StateLayout, length: int, memory: float) -> list[xr.Dataset]:
    """Stretches of one trajectory each, none larger than an eighth of the memory."""
    ensemble = ensemble_dimension(data)
    members = [data.isel({ensemble: i}) for i in range(data.sizes[ensemble])] if ensemble is not None else [data]
    state = 4 * layout.channels * int(np.prod(layout.shape, dtype=int))
    longest = max(length, min(data.sizes[TIME], int(memory / 8 // state)))
    blocks = []
    for member in members:
        # Neighbouring stretches overlap by a window less one state, so that no window is lost.
        starts = range(0, max(1, data.sizes[TIME] - length + 1), longest - length + 1)
        blocks += [member.isel({TIME: slice(start, start + longest)}) for start in starts]
    return blocks
