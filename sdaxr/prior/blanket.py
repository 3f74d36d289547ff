"""From a local network to a denoiser of a whole trajectory (Rozet & Louppe 2023, algorithms 1 and 2).

A network on windows of 2k + 1 states is evaluated on all windows of the trajectory, and the state at the centre of
each window is kept. The first and the last window also give the first and the last k states. This is the composition
of the paper (arXiv:2306.10574); it evaluates 2k + 1 states to use one. With a ``stride`` above one there are fewer
windows, and each gives the states that are nearest to its centre. The positions of the windows change with the noise
level, so that no state lies at the edge of a window at every level. A network that is convolutional in time is applied
to the whole trajectory: its receptive field is the blanket.

Long trajectories are evaluated in pieces, and the result does not depend on the cuts: the pieces of a convolutional
network overlap by its receptive field, and what the overlap gives is discarded. With EOFs it depends on them by a
hundredth of a standard deviation: the cosines of a piece are not those of the whole. When guidance differentiates the
result, each piece is computed again in its turn, so that only the graph of one piece is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdaxr.prior.constants import as_means, shared
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError, OptionError

# Sizes of a piece, for state vectors and for fields: states for a convolutional network, windows for the others. With
# the graph, 160 states of 64 x 64 points take 0.55 GB in the shipped prior of Kolmogorov flow.
_STATES = (512, 160)
_WINDOWS = (4096, 32)


class TrajectoryDenoiser:
    """E[x | z] of a trajectory.

    Parameters
    ----------
    network
        The denoising network.
    context
        Context of each state, (time, context channel, *space).
    mask
        Shape (channel, *space), 1 where there are data; None where there are data everywhere.
    stride
        States from one window to the next: from 1 (the paper's composition) to the window (no state is evaluated
        twice).
    chunk
        Largest number of states of each trajectory, or of windows, that are evaluated at once. It bounds the memory,
        whatever the length.
    half
        Evaluate the layers of the network in bfloat16. The result has the precision of z.

    Raises
    ------
    DataError
        If there are fewer states than a window.
    OptionError
        If the stride is impossible.
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
        self.constants: tuple[int, ...] = getattr(network, "constants", ())
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
        # Without a known reach the trajectory is one piece.
        self.reach: int | None = getattr(network, "reach", None)
        sizes = _STATES if window is None else _WINDOWS
        self.chunk = sizes[context.ndim > 2] if chunk is None else chunk

    def __call__(self, z: Tensor, r: float | Tensor) -> Tensor:
        """E[x | z], of the shape of z.

        Parameters
        ----------
        z
            Shape (batch, time, channel, *space).
        r
            Noise level, one or (batch,).
        """
        level = torch.as_tensor(r, dtype=z.dtype, device=z.device).expand(len(z))
        z = z if self.mask is None else z * self.mask
        if self.constants:
            # Here, too, since the network may see the trajectory in pieces.
            z = shared(z, self.constants)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.half):
            xhat = self._convolved(z, level) if self.window is None else self._unfolded(z, level)
        xhat = as_means(xhat, self.constants) if self.constants else xhat
        return xhat if self.mask is None else xhat * self.mask

    def _convolved(self, z: Tensor, r: Tensor) -> Tensor:
        if self.reach is None or z.shape[1] <= self.chunk:
            whole: Tensor = self.network(z, r, self.context[None])
            return whole
        # A piece is at least as long as the overlap, so that a piece overlaps with its two neighbours only.
        new = max(self.chunk - 2 * self.reach, self.reach, 1)
        blocks, parts = z.split(new, dim=1), []
        for i, block in enumerate(blocks):
            before = blocks[i - 1][:, new - self.reach :] if i else block[:, :0]
            after = blocks[i + 1][:, : self.reach] if i + 1 < len(blocks) else block[:, :0]
            start = i * new - before.shape[1]
            context = self.context[None, start : (i + 1) * new + self.reach]
            part = _again(self.network, r, context, before, block, after)
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
            context = self.context[cuts[i] : cuts[i] + places[-1] + width]
            run = partial(self._windows, places=places, kept=[n * width + t for n, t in kept])
            parts.append(_again(run, r, context, blocks[i], after) if len(chunks) > 1 else run(z, r, context))
        return torch.cat(parts, dim=1)

    def _windows(self, z: Tensor, r: Tensor, context: Tensor, *, places: list[int], kept: list[int]) -> Tensor:
        """States of the windows that begin at ``places``; ``kept`` are indices into the states of all windows."""
        width = self.window or 1
        batch, count = len(z), len(places)
        which = (torch.tensor(places)[:, None] + torch.arange(width)).flatten().to(z.device)
        windows = z.index_select(1, which).unflatten(1, (count, width)).flatten(0, 1)
        context = context.index_select(0, which).unflatten(0, (count, width)).repeat(batch, *[1] * context.ndim)
        out: Tensor = self.network(windows, r.repeat_interleave(count), context)
        states = out.reshape(batch, count * width, *out.shape[2:])
        return states.index_select(1, torch.tensor(kept, device=z.device))


def beyond_window(network: DenoisingNetwork, window: int) -> str | None:
    """What is wrong with trajectories longer than the window of the training; None where nothing is.

    A network that reaches as far as the window was never shown a state without an end of the trajectory near.
    """
    # A denoiser of another make may not say how far it reaches.
    reach = getattr(getattr(network, "network", None), "reach", None)
    if network.window is not None or reach is None or reach < window or network.silent:
        return None
    return (
        f"the network reaches {reach} states on each side and is trained on windows of {window}: it does not know the "
        "inside of longer trajectories"
    )


def _again(function: Callable[[Tensor, Tensor, Tensor], Tensor], r: Tensor, context: Tensor, *states: Tensor) -> Tensor:
    """``function`` of one piece; its graph is not kept, but computed again when the result is differentiated."""

    def joined(*states: Tensor) -> Tensor:
        return function(torch.cat(states, dim=1), r, context)

    found: Tensor = checkpoint(joined, *states, use_reentrant=False, preserve_rng_state=False)
    return found
