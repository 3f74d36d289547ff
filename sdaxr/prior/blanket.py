"""From a local network to a denoiser of a whole trajectory (Rozet & Louppe 2023, algorithms 1 and 2).

A network on windows of 2k + 1 states is unfolded along the trajectory, and the state at the centre of each window is
kept; the first and the last window also give the first and the last k states. A network that is convolutional in time
is applied as it is: its receptive field is the blanket.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError


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
        At most this many windows go through a window network at once, so that memory does not grow with their number.
    """

    def __init__(
        self, network: DenoisingNetwork, context: Tensor, mask: Tensor | None = None, *, chunk: int = 4096
    ) -> None:
        self.network = network
        self.context = context
        self.mask = mask
        self.chunk = chunk
        window = network.network.window
        if window is not None and len(context) < window:
            raise DataError(
                f"the trajectory has {len(context)} states, the prior needs at least its window of {window}; "
                "assimilate a longer window (times=...) or take a prior with a shorter one"
            )
        self.window: int | None = window

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
        xhat = self.network(z, level, self.context[None]) if self.window is None else self._unfolded(z, level)
        return xhat if self.mask is None else xhat * self.mask

    def _unfolded(self, z: Tensor, r: Tensor) -> Tensor:
        width = self.window or 1
        k, count = width // 2, z.shape[1] - width + 1
        told = self.context.unfold(0, width, 1).movedim(-1, 1)  # (windows, width, context channel, *space)
        parts = [
            self._windows(z[:, first : first + step + width - 1], r, told[first : first + step], width)
            for first, step in self._chunks(count, len(z))
        ]
        windows = torch.cat(parts, dim=1)  # (batch, windows, width, channel, *space)
        return torch.cat([windows[:, 0, :k], windows[:, :, k], windows[:, -1, k + 1 :]], dim=1)

    def _chunks(self, count: int, batch: int) -> list[tuple[int, int]]:
        step = max(1, self.chunk // batch)
        return [(first, min(step, count - first)) for first in range(0, count, step)]

    def _windows(self, z: Tensor, r: Tensor, told: Tensor, width: int) -> Tensor:
        windows = z.unfold(1, width, 1).movedim(-1, 2)
        batch, count = windows.shape[:2]
        told = told.expand(batch, *told.shape).flatten(0, 1)
        return self.network(windows.flatten(0, 1), r.repeat_interleave(count), told).unflatten(0, (batch, count))
