"""Windows of states for the training, drawn from memory or streamed from disk.

A buffer of blocks (stretches of trajectories) is held in the memory of the device. Data that fit into it are read once.
Of larger data a thread reads the next blocks while windows are drawn from the present ones. Numbers are drawn on the
CPU, so that the windows are the same on every device.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.prior.patches import Patches
from sdaxr.prior.symmetries import Symmetry, bind_symmetries, transform
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import time_stretches

_log = logging.getLogger(__name__)

# Numbers that are drawn for the modes, and for the reference windows of the prior's file.
_SAMPLE, _REFERENCE = 2**27, 2**16
# Windows in one batch of those that are drawn for the modes.
_SAMPLE_BATCH = 16
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Buffer:
    """Stretches of trajectories, one after another.

    Attributes
    ----------
    states
        Normalised states, (state, channel, *space).
    context
        Context of each state, (state, context channel, *space); None where it is the same for all windows.
    starts, lengths
        Where each stretch begins, and the number of its states, (stretch,).
    filled
        The states without gaps; None where gaps stay.
    """

    states: Tensor
    context: Tensor | None
    starts: np.ndarray
    lengths: np.ndarray
    filled: Tensor | None = None


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
        Transformations that leave the statistics as they are (`sdaxr.prior.symmetries`); each is applied at random.
    patches
        Patches of the states, one of which, at a random place, is cut out of each window; None for whole domains.
    memory
        Bytes that the buffer may take.
    renew
        Number of batches after which the next blocks replace the buffer, where the data do not fit into memory.
    device
        Where the buffer is, and the windows.

    Raises
    ------
    DataError
        If the trajectories are shorter than a window.
    OptionError
        If a dimension is not homogeneous, or a transformation is no symmetry.
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
        patches: Patches | None = None,
        memory: float = 4e9,
        renew: int = 64,
        device: torch.device = _CPU,
    ) -> None:
        longest = max(part.stop - part.start for part in stretches(data))
        if longest < length:
            raise DataError(
                f"found {longest} states a trajectory, expected at least the window of {length} without a gap; train "
                "with a shorter window or generate longer trajectories"
            )
        self._symmetries = [*_shifts(layout, homogeneous), *bind_symmetries(layout, symmetries)]
        self.layout = layout
        self.patches = patches
        self.device = device
        self.length = length
        self.seed = seed
        self._blocks = _blocks(data, layout, length, memory)
        self._known = layout.context_array if patches is None else patches.fields
        # One for all windows, except where it has cycles: then the buffer holds that of every state.
        self._context = torch.as_tensor(self._known(data[TIME][:length])[None], device=device)
        longest = max(block.sizes[TIME] for block in self._blocks)
        # While one buffer is in use, the next one is being read.
        room = max(1, int(memory / 2 // (_state_bytes(layout) * longest)))
        self.streams = len(self._blocks) > 2 * room
        self._per_buffer = room if self.streams else len(self._blocks)
        self._renew = renew
        self._reader = ThreadPoolExecutor(1) if self.streams else None
        self._current = -1
        self._held: _Buffer | None = None
        self._next: tuple[int, Future[_Buffer]] | None = None
        self._fill: Callable[[Tensor], Tensor] | None = None

    def fill(self, fill: Callable[[Tensor], Tensor]) -> None:
        """Fill the gaps of each stretch of states (time, channel, *space), NaN where a value is missing."""
        self._fill, self._held, self._next = fill, None, None

    @property
    def filled(self) -> bool:
        """Whether gaps are filled."""
        return self._fill is not None

    def batch(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Windows of batch ``number``.

        Returns
        -------
        states, context
            States (size, length, channel, *space) and their context (size, length, context channel, *space), float32.
            The context has a leading dimension of 1 where it is the same for all windows. States are NaN where a
            value is missing, unless gaps are filled; the context says where values are. With patches, *space is that
            of a patch.
        """
        held = self._buffer(number // self._renew if self.streams else 0)
        draw = np.random.default_rng((self.seed, number))
        room = held.lengths - self.length + 1
        which = draw.choice(len(room), size=size, p=room / room.sum())
        first = held.starts[which] + draw.integers(room[which])
        index = torch.as_tensor(first[:, None] + np.arange(self.length), device=self.device)
        moves = [(symmetry, draw.integers(symmetry.order, size=size)) for symmetry in self._symmetries]

        def drawn(states: Tensor) -> Tensor:
            return transform(states[index], moves) if moves else states[index]

        if self.patches is not None:
            return self._cut(self.patches, held, first, moves, draw)
        states = drawn(held.states)
        context = self._context if held.context is None else held.context[index]
        if not self.layout.gappy:
            return states, context
        seen = states.isfinite() & (context[:, :, -self.layout.channels :] > 0)
        known = context[:, :, : -self.layout.channels]
        states = states if held.filled is None else drawn(held.filled)
        return states, torch.cat([known.expand(size, *known.shape[1:]), seen.to(context.dtype)], dim=2)

    def _cut(
        self, patches: Patches, held: _Buffer, first: np.ndarray, moves: list[tuple[Symmetry, np.ndarray]],
        draw: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """One patch, at a random place, of each window that begins at ``first``, and its context."""

        def windows(states: Tensor) -> list[Tensor]:
            return [states[start : start + self.length] for start in first]

        corners = patches.corners(draw, len(first))
        context = [self._context[0]] * len(first) if held.context is None else windows(held.context)
        # Symmetries are those of the whole domain: the forcing of a flow turns with it.
        states = transform(torch.stack(windows(held.states)), moves) if moves else windows(held.states)
        return patches.cut(states, corners), patches.placed(patches.cut(context, corners))

    def sample(self, together: int) -> Iterator[Tensor]:
        """Batches of 16 windows of states, enough to measure the covariance of ``together`` numbers.

        `Modes.measure` needs 20 states for each of the numbers that share a wavenumber; these are twice as many.
        """
        states, _ = self.batch(0, _SAMPLE_BATCH)
        wanted = max(4, 40 * together // (_SAMPLE_BATCH * self.length))
        # At most 64 batches, and 2^27 numbers (half a gigabyte), which takes seconds.
        for number in range(int(np.clip(_SAMPLE // states.numel(), wanted, 64))):
            yield self.batch(number, _SAMPLE_BATCH)[0].nan_to_num(0.0)

    @property
    def states(self) -> int:
        """Number of states that the windows are drawn from."""
        return sum(block.sizes[TIME] for block in self._blocks)

    def series(self) -> Iterator[Tensor]:
        """States (time, channel, *space) of consecutive times, NaN where a value is missing, at most 2^27 numbers.

        Of larger data these are blocks at about equal distances.
        """
        room = max(1, int(_SAMPLE // (self.layout.channels * np.prod(self.layout.shape, dtype=int))))
        count = len(self._blocks)
        wanted = max(1, min(count, room // max(block.sizes[TIME] for block in self._blocks)))
        for number in np.unique(np.linspace(0, count - 1, wanted).round().astype(int)):
            states = torch.as_tensor(self.layout.to_array(self._blocks[number], gaps=self.layout.gappy))
            yield from (states[:room],) if self.patches is None else self._pieces(states[:room], int(number))

    def _pieces(self, states: Tensor, number: int) -> Iterator[Tensor]:
        """Patches of a series at random places, as many as lie side by side in the domain."""
        assert self.patches is not None
        count = max(1, states[0].numel() // (self.layout.channels * math.prod(self.patches.tile.shape)))
        corners = self.patches.corners(np.random.default_rng((self.seed, number)), count)
        for each in corners.T:
            yield self.patches.cut(states[None], each[:, None])[0]

    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """A few windows and their context, for the prior's file: 4 to 256, and some 2^16 numbers (128 kB).

        The numbers are rounded to half precision, as in the file: a prior that has just been trained is the one that
        is opened. Where values are missing at some times, these are the windows with the fewest gaps of four times as
        many, filled with the mean, unless gaps are filled anyway.
        """
        count = int(np.clip(_REFERENCE // self.batch(0, 1)[0].numel(), 4, 256))
        gappy = self.layout.gappy and not self.filled
        drawn = self.batch(0, count * (4 if gappy else 1))
        if self.layout.gappy and self.filled:
            # As when a trajectory is sampled, where all values are there.
            drawn[1][:, :, -self.layout.channels :] = self._context[:, :, -self.layout.channels :]
        if gappy:
            best = drawn[0].isnan().flatten(1).sum(1).argsort(stable=True)[:count]
            drawn = drawn[0][best].nan_to_num(0.0), drawn[1][best]
        states, context = (part.half().float().cpu().numpy() for part in drawn)
        return states, context

    def _buffer(self, number: int) -> _Buffer:
        if self._held is None or number != self._current:
            ready = self._next[1].result() if self._next and self._next[0] == number else self._read(number)
            self._current, self._held = number, ready
            if self._reader is not None:
                self._next = (number + 1, self._reader.submit(self._read, number + 1))
        return self._held

    def _read(self, number: int) -> _Buffer:
        order = np.random.default_rng((self.seed, number)).permutation(len(self._blocks))
        chosen = [self._blocks[i] for i in order[: self._per_buffer]]
        lengths = np.array([block.sizes[TIME] for block in chosen])
        states = self._together(
            (self.layout.to_array(block, gaps=self.layout.gappy) for block in chosen), self.layout.channels, lengths
        )
        context = None
        if self.layout.cycles:
            moving = (self._known(block[TIME]) for block in chosen)
            context = self._together(moving, self._context.shape[2], lengths)
        filled = None
        if self._fill is not None and self.layout.gappy:
            filled = torch.cat([self._fill(part) for part in states.split(lengths.tolist())])
        return _Buffer(states, context, np.cumsum(lengths) - lengths, lengths, filled)

    def _together(self, stretches: Iterable[np.ndarray], channels: int, lengths: np.ndarray) -> Tensor:
        """Stretches in one tensor on the device; only one of them is in memory beside it."""
        whole = torch.empty(int(lengths.sum()), channels, *self.layout.shape, device=self.device)
        for part, stretch in zip(whole.split(lengths.tolist()), stretches, strict=True):
            part.copy_(torch.as_tensor(stretch))
        return whole


def split(data: xr.Dataset, least: int) -> tuple[xr.Dataset, xr.Dataset]:
    """The data of the training and of the validation.

    A coordinate ``split`` decides; where it has no ``valid``, the training data validate, too, and a warning is logged.
    Without it the last tenth of the times validates, and at least ``least`` states without a gap between them.

    Raises
    ------
    DataError
        If less than a window is left to train on, or the times have no regular step.
    """
    whole = stretches(data)
    if len(whole) > 1:
        short = sum(part.stop - part.start < least for part in whole)
        _log.warning(
            "the times have %d gaps, which no window crosses; %d of %d stretches are shorter than %d states",
            len(whole) - 1, short, len(whole), least,
        )  # fmt: skip
    if "split" in data.coords:
        dim = data["split"].dims[0]
        parts = [data.isel({dim: np.flatnonzero(data["split"].values == part)}) for part in ("train", "valid")]
        if parts[0].sizes[dim] == 0:
            raise DataError(f"'split' has the values {sorted(set(data['split'].values))}, expected some 'train'")
        if parts[1].sizes[dim] == 0:
            _log.warning("no '%s' has the split 'valid': the training data validate, too", dim)
            return parts[0], parts[0]
        return parts[0], parts[1]
    last = next((part.stop for part in reversed(whole) if part.stop - part.start >= least), data.sizes[TIME])
    end = min(round(0.9 * data.sizes[TIME]), last - least)
    if end < least:
        raise DataError(
            f"found {data.sizes[TIME]} times, expected at least {2 * least}: a window of {least} to train on, and one "
            "to validate; train with a shorter window, or on more times"
        )
    return data.isel({TIME: slice(None, end)}), data.isel({TIME: slice(end, None)})


def stretches(data: xr.Dataset) -> list[slice]:
    """Stretches of the times of ``data`` without a gap; a single time is one."""
    return time_stretches(data)[1] if data.sizes[TIME] > 1 else [slice(0, data.sizes[TIME])]


def cut(states: Tensor, context: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    """Cut windows (batch, time, ...) into ``pieces`` each, (batch * pieces, time // pieces, ...), and their context.

    States that do not fill a last piece are left out.
    """
    length = states.shape[1] // pieces
    parts = states[:, : pieces * length].reshape(-1, length, *states.shape[2:])
    if len(context) != len(states):  # a context that is the same for all windows is constant in time
        return parts, context[:, :length]
    return parts, context[:, : pieces * length].reshape(-1, length, *context.shape[2:])


def _shifts(layout: StateLayout, dims: Sequence[str]) -> list[Symmetry]:
    """Shifts by one point along each homogeneous dimension."""
    found = []
    for dim in dims:
        if dim not in layout.space or not layout.periodic[layout.space.index(dim)]:
            raise OptionError(
                f"homogeneous dimension {nearest(dim, layout.space)}, and it has to be periodic (attribute 'period')"
            )
        axis = layout.space.index(dim) - len(layout.space)
        for name, field in _still_fields(layout).items():
            if np.ptp(field, axis=axis).max() > 1e-6:
                raise OptionError(f"{name} varies along '{dim}', so '{dim}' is not homogeneous")
        same = np.ones(layout.channels, np.float32)
        found.append(Symmetry((), {axis: 1}, same, 0 * same, layout.sizes[dim]))
    return found


def _still_fields(layout: StateLayout) -> dict[str, np.ndarray]:
    """Fields that stay where they are when a window is rolled, shape (..., *space)."""
    fields = {f"the context field '{name}'": field for name, field in layout.context.items()}
    # Of normalise="point" and "climatology"; one number a channel varies along no dimension.
    fields |= {"the mean of the states": layout.mean / layout.std, "the standard deviation of the states": layout.std}
    if layout.climatology is not None:
        fields |= {"the cycle of the mean": layout.climatology.mean_terms / layout.std}
        fields |= {"the cycle of the standard deviation": layout.climatology.deviation_terms}
    return fields if layout.mask is None else fields | {"the land mask": layout.mask.astype(float)}


def _state_bytes(layout: StateLayout) -> int:
    """Bytes of one state in the buffer, float32, and of its context where that changes in time."""
    channels = layout.channels + (layout.context_channels if layout.cycles else 0)
    return 4 * channels * int(np.prod(layout.shape, dtype=int))


def _blocks(data: xr.Dataset, layout: StateLayout, length: int, memory: float) -> list[xr.Dataset]:
    """Parts of one trajectory each, without a gap, none larger than an eighth of the memory."""
    ensemble = ensemble_dimension(data)
    members = [data.isel({ensemble: i}) for i in range(data.sizes[ensemble])] if ensemble is not None else [data]
    longest = max(length, min(data.sizes[TIME], int(memory / 8 // _state_bytes(layout))))
    blocks = []
    for member, part in product(members, stretches(data)):
        # Neighbouring blocks overlap by one state less than a window, so that every window of a stretch is in a block.
        starts = range(part.start, part.stop - length + 1, longest - length + 1)
        blocks += [member.isel({TIME: slice(start, min(start + longest, part.stop))}) for start in starts]
    return blocks
