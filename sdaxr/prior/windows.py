"""Windows of states for the training, drawn from memory or streamed from disk.

A buffer of blocks (stretches of trajectories) is held in the memory of the device (`sdaxr.prior.shuffle`). Numbers are
drawn on the CPU, so that the windows are the same on every device.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.prior.blocks import Blocks, stretches
from sdaxr.prior.patches import Patches
from sdaxr.prior.shuffle import Buffer, Shuffled
from sdaxr.prior.symmetries import Symmetry, bind_symmetries, transform
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.fields import StateLayout

_log = logging.getLogger(__name__)

# Numbers that are drawn for the modes, and for the reference windows of the prior's file.
_SAMPLE, _REFERENCE = 2**27, 2**16
# Windows in one batch of those that are drawn for the modes.
_SAMPLE_BATCH = 16
# How often a number is drawn before its block makes place for another one. Steps of a large GPU draw 400 MB a second,
# and decoding is slower: there, other noise and other neighbours make more of the same states.
_DRAWS = {"cpu": 4, "gpu": 16}
_CPU = torch.device("cpu")


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
        Bytes of data that are held at once.
    batch
        Windows of a batch of the training, after which blocks are renewed where the data do not fit into memory: one
        stays until 4 times as many numbers have been drawn of it as it has, or 16 times on a GPU. None: the first
        blocks stay.
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
        batch: int | None = None,
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
        self.memory = memory
        self.blocks = Blocks(data, layout, length, memory)
        self._known = layout.context_array if patches is None else patches.fields
        # One for all windows, except where it has cycles: then the buffer holds that of every state.
        self._context = torch.as_tensor(self._known(data[TIME][:length])[None], device=device)
        self.streams = self.blocks.streams
        self._buffer = Shuffled(
            self.blocks, self._known, seed=seed, memory=memory, renewed=batch is not None, device=device
        )
        self._rate = Fraction(0) if batch is None else self._renewed(batch)

    def fill(self, fill: Callable[[Tensor], Tensor]) -> None:
        """Fill the gaps of each stretch of states (time, channel, *space), NaN where a value is missing."""
        self._buffer.fill(fill)

    @property
    def filled(self) -> bool:
        """Whether gaps are filled."""
        return self._buffer.filled

    @property
    def untaken(self) -> float:
        """Bytes of the buffer that are not in memory yet."""
        return self._buffer.untaken

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
        held = self._buffer.at(int(number * self._rate))
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
        self, patches: Patches, held: Buffer, first: np.ndarray, moves: list[tuple[Symmetry, np.ndarray]],
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
        return self.blocks.states

    def series(self) -> Iterator[Tensor]:
        """States (time, channel, *space) of consecutive times, NaN where a value is missing, at most 2^27 numbers.

        Of larger data these are blocks at about equal distances.
        """
        room = max(1, int(_SAMPLE // (self.layout.channels * np.prod(self.layout.shape, dtype=int))))
        count = len(self.blocks)
        wanted = max(1, min(count, room // max(block.states for block in self.blocks)))
        for number in np.unique(np.linspace(0, count - 1, wanted).round().astype(int)):
            block = self.blocks[int(number)]
            whole = torch.empty(block.states, self.layout.channels, *self.layout.shape)
            self.blocks.read(block, whole, None, self._known)
            for states in whole.split(block.length):
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

    def _renewed(self, batch: int) -> Fraction:
        """Blocks that are renewed after each batch, at most the whole buffer."""
        blocks, domain = self.blocks, math.prod(self.layout.shape)
        drawn = batch * self.length * (domain if self.patches is None else math.prod(self.patches.tile.shape))
        times = _DRAWS["cpu" if self.device.type == "cpu" else "gpu"]
        return min(Fraction(drawn * len(blocks), times * blocks.starts * domain), Fraction(self._buffer.used))


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
