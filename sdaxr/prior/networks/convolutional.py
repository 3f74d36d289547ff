"""Residual network that is convolutional in time, for state vectors.

It is applied to a whole trajectory at once: its receptive field is the Markov blanket of the composition, nothing is
computed twice, and any length works. Both ends are told apart by zero padding next to the channel of ones that the
context brings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdaxr.prior.networks.embedding import NoiseEmbedding


class TemporalConvolution(nn.Module):
    """Residual blocks of two temporal convolutions, modulated by the noise level.

    Parameters
    ----------
    channels, context
        Numbers of state and context channels.
    window
        Length of the windows of the training; the network itself takes any length.
    width, blocks, kernel
        Hidden channels, number of residual blocks, and length of each convolution.
    dilation
        Factor by which the spacing of the taps of a convolution grows from block to block: 2 gives 1, 2, 4, ... and a
        reach that is exponential in the number of blocks, at the same cost.

    Attributes
    ----------
    reach
        States on each side that the output at one state depends on: the Markov blanket of the composition.
    """

    options = ("width", "blocks", "kernel", "dilation")

    def __init__(
        self,
        channels: int,
        context: int,
        window: int,
        *,
        width: int = 64,
        blocks: int = 4,
        kernel: int = 5,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.window: int | None = None
        spacings = [dilation**i for i in range(blocks)]
        self.reach = kernel // 2 + (kernel - 1) * sum(spacings)
        self.noise = NoiseEmbedding(width)
        self.first = nn.Conv1d(channels + context, width, kernel, padding=kernel // 2)
        self.blocks = nn.ModuleList(_Block(width, kernel, spacing) for spacing in spacings)
        self.last = nn.Conv1d(width, channels, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        told = context.expand(len(x), *context.shape[1:])
        noise = self.noise(log_r)
        hidden = self.first(torch.cat([x, told], dim=2).transpose(1, 2))
        for block in self.blocks:
            hidden = block(hidden, noise)
        return self.last(F.silu(hidden)).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int, spacing: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        side = spacing * (kernel // 2)
        self.first = nn.Conv1d(width, width, kernel, padding=side, dilation=spacing)
        self.second = nn.Conv1d(width, width, kernel, padding=side, dilation=spacing)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        scale, shift = self.modulation(noise)[:, :, None].chunk(2, dim=1)
        hidden = F.layer_norm(x.transpose(1, 2), x.shape[1:2]).transpose(1, 2) * (1 + scale) + shift
        return x + self.second(F.silu(self.first(F.silu(hidden))))
