"""From a local network to a denoiser of a whole trajectory (Rozet & Louppe 2023, algorithms 1 and 2).

A network on windows of 2k + 1 states is unfolded along the trajectory, and the state at the centre of each window is
kept; the first and the last window also give the first and the last k states. A network that is convolutional in time
is applied as it is: its receptive field is the blanket.

Trajectories of any length go through in pieces. What a piece gives does not depend on how the trajectory is cut: pieces
of a convolutional network overlap by its receptive field, and end where the trajectory does or else where it does not
see. Guidance differentiates the result; each piece is then computed again in its turn, so that the graph of one piece
at a time is in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError

# The default sizes of a piece, for state vectors and for fields: states of a convolutional network, windows of others.
_STATES = (512, 128)
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
    chunk
        At most this many states of each trajectory, or this many windows, go through the network at once, so that
        memory does not grow with the length.
    """

    def __init__(
        self, network: DenoisingNetwork, context: Tensor, mask: Tensor | None = None, *, chunk: int | None = None
    ) -> None:
        self.network = network
        self.context = context
        self.mask = mask
        window = network.network.window
        if window is not None and len(context) < window:
            raise DataError(
                f"the trajectory has {len(context)} states, the prior needs at least its window of {window}; "
                "assimilate a longer window (times=...) or take a prior with a shorter one"
            )
        self.window: int | None = window
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
        width = self.window or 1
        k, count = width // 2, z.shape[1] - width + 1
        told = self.context.unfold(0, width, 1).movedim(-1, 1)  # (windows, width, context channel, *space)
        step = max(self.chunk // len(z), width - 1, 1)
        if count <= step:
            windows = self._windows(z, r, told)
            return torch.cat([windows[:, 0, :k], windows[:, :, k], windows[:, -1, k + 1 :]], dim=1)
        blocks, parts = z.split(step, dim=1), []
        for i, first in enumerate(range(0, count, step)):
            after = blocks[i + 1][:, : width - 1] if i + 1 < len(blocks) else z[:, :0]
            # (batch, windows, width, channel, *space), of which the centres are kept, and the ends of the trajectory.
            windows = _again(self._windows, r, told[first : first + step], blocks[i], after)
            parts += [windows[:, 0, :k]] if first == 0 else []
            parts += [windows[:, :, k]]
            parts += [windows[:, -1, k + 1 :]] if first + step >= count else []
        return torch.cat(parts, dim=1)

    def _windows(self, z: Tensor, r: Tensor, told: Tensor) -> Tensor:
        windows = z.unfold(1, told.shape[1], 1).movedim(-1, 2)
        batch, count = windows.shape[:2]
        told = told.expand(batch, *told.shape).flatten(0, 1)
        return self.network(windows.flatten(0, 1), r.repeat_interleave(count), told).unflatten(0, (batch, count))


def _again(function: Callable[[Tensor, Tensor, Tensor], Tensor], r: Tensor, told: Tensor, *states: Tensor) -> Tensor:
    """``function`` of one piece, whose graph is not kept but made again when it is differentiated."""

    def joined(*states: Tensor) -> Tensor:
        return function(torch.cat(states, dim=1), r, told)

    return checkpoint(joined, *states, use_reentrant=False, preserve_rng_state=False)
