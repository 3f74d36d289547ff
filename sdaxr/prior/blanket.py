"""From a local network to a denoiser of a whole trajectory (Rozet & Louppe 2023, algorithms 1 and 2).

A network on windows of 2k + 1 states is unfolded along the trajectory, and the state at the centre of each window is
kept; the first and the last window also give the first and the last k states. That is the paper's composition, and it
evaluates 2k + 1 states to use one. With a ``stride`` above one there are fewer windows, and each gives the states that
are nearest to its centre; where the windows lie changes with the noise level, so that no state is at a seam throughout.
A network that is convolutional in time is applied as it is: its receptive field is the blanket.

Trajectories of any length go through in pieces. What a piece gives does not depend on how the trajectory is cut: pieces
of a convolutional network overlap by its receptive field, and end where the trajectory does or else where it does not
see. Guidance differentiates the result; each piece is then computed again in its turn, so that the graph of one piece
at a time is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError, OptionError

# The default sizes of a piece, for state vectors and for fields: states of a convolutional network, windows of others.
_STATES = (512, 160)
_WINDOWS = (4096, 32)


class TrajectoryDenoiser:
    """E[x | z] of a trajectory.

    Parameters
    ----------
    network
        The denoising network.
    context
        Shape (time, context channel, *space): what the network is told about each state.
    mask
        Shape (channel, *space), 1 where there are data; None where there are data everywhere.
    stride
        States from one window to the next, 1 (the paper's composition) to the window (no state is evaluated twice).
    chunk
        At most this many states of each trajectory, or this many windows, go through the network at once, so that
        memory does not grow with the length.
    half
        Run the layers of the network in bfloat16; what it returns has the precision of z all the same.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        context: Tensor,
        mask: Tensor | None = None,
        *,
        stride: int = 1,
        chunk: int | None = None,
        half: bool = False,
    ) -> None:
        self.network = network
        self.context = context
        self.mask = mask
        window = network.window
        if window is not None and len(context) < window:
            raise DataError(
                f"the trajectory has {len(context)} states, the prior needs at least its window of {window}; "
                "take at least so many times, or a prior with a shorter window"
            )
        if not 1 <= stride <= (window or 1):
            allowed = "1: this network takes whole trajectories" if window is None else f"1 to the window of {window}"
            raise OptionError(f"stride={stride}, expected {allowed}")
        self.window: int | None = window
        self.stride = stride
        self.half = half
        # Without a known reach there is no piece but the whole.
        self.reach: int | None = getattr(network.network, "reach", None)
        sizes = _STATES if window is None else _WINDOWS
        self.chunk = sizes[context.ndim > 2] if chunk is None else chunk

    def __call__(self, z: Tensor, r: float | Tensor) -> Tensor:
        """Denoise.

        Parameters
        ----------
        z
            Shape (batch, time, channel, *space).
        r
            Noise level, one or (batch,).
        """
        level = torch.as_tensor(r, dtype=z.dtype, device=z.device).expand(len(z))
        z = z if self.mask is None else z * self.mask
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.half):
            xhat = self._convolved(z, level) if self.window is None else self._unfolded(z, level)
        return xhat if self.mask is None else xhat * self.mask

    def _convolved(self, z: Tensor, r: Tensor) -> Tensor:
        if self.reach is None or z.shape[1] <= self.chunk:
            return self.network(z, r, self.context[None])
        # Neighbours are as long as the overlap at least, so that a piece reaches into the next ones only.
        new = max(self.chunk - 2 * self.reach, self.reach, 1)
        blocks, parts = z.split(new, dim=1), []
        for i, block in enumerate(blocks):
            before = blocks[i - 1][:, new - self.reach :] if i else block[:, :0]
            after = blocks[i + 1][:, : self.reach] if i + 1 < len(blocks) else block[:, :0]
            start = i * new - before.shape[1]
            told = self.context[None, start : (i + 1) * new + self.reach]
            part = _again(self.network, r, told, before, block, after)
            parts.append(part[:, before.shape[1] :][:, : block.shape[1]])
        return torch.cat(parts, dim=1)

    def _unfolded(self, z: Tensor, r: Tensor) -> Tensor:
        width, length = self.window or 1, z.shape[1]
        count = length - width + 1
        phase = round(1e4 * math.log(max(float(r[0]), 1e-30))) % self.stride
        starts = sorted({0, *range(phase, count, self.stride), count - 1})
        # Each state comes from the window whose centre is nearest.
        ends = [*((a + b + width) // 2 for a, b in pairwise(starts)), length]
        at_once = max(self.chunk // len(z), -(-width // self.stride) + 1)
        chunks = [range(i, min(i + at_once, len(starts))) for i in range(0, len(starts), at_once)]
        cuts = [starts[chunk[0]] for chunk in chunks] + [length]
        blocks, parts = z.split([b - a for a, b in pairwise(cuts)], dim=1), []
        for i, chunk in enumerate(chunks):
            reach = starts[chunk[-1]] + width - cuts[i + 1]  # into the next block
            after = blocks[i + 1][:, :reach] if i + 1 < len(chunks) else z[:, :0]
            places = [starts[j] - cuts[i] for j in chunk]
            kept = [(n, t - starts[j]) for n, j in enumerate(chunk) for t in range(ends[j - 1] if j else 0, ends[j])]
            told = self.context[cuts[i] : cuts[i] + places[-1] + width]
            run = partial(self._windows, places=places, kept=[n * width + t for n, t in kept])
            parts.append(_again(run, r, told, blocks[i], after) if len(chunks) > 1 else run(z, r, told))
        return torch.cat(parts, dim=1)

    def _windows(self, z: Tensor, r: Tensor, told: Tensor, *, places: list[int], kept: list[int]) -> Tensor:
        """Evaluate the windows that begin at ``places``, and keep these of their states, one window after the other."""
        width = self.window or 1
        batch, count = len(z), len(places)
        which = (torch.tensor(places)[:, None] + torch.arange(width)).flatten().to(z.device)
        windows = z.index_select(1, which).unflatten(1, (count, width)).flatten(0, 1)
        told = told.index_select(0, which).unflatten(0, (count, width)).repeat(batch, *[1] * told.ndim)
        out = self.network(windows, r.repeat_interleave(count), told).unflatten(0, (batch, count))
        return out.flatten(1, 2).index_select(1, torch.tensor(kept, device=z.device))


def _again(function: Callable[[Tensor, Tensor, Tensor], Tensor], r: Tensor, told: Tensor, *states: Tensor) -> Tensor:
    """``function`` of one piece, whose graph is not kept but made again when it is differentiated."""

    def joined(*states: Tensor) -> Tensor:
        return function(torch.cat(states, dim=1), r, told)

    return checkpoint(joined, *states, use_reentrant=False, preserve_rng_state=False)
