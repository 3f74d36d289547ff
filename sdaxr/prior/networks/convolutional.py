"""Residual network that is convolutional in time, for state vectors.

The network is applied to a whole trajectory at once. Its receptive field is the Markov blanket of the composition:
nothing is computed twice, and a trajectory of any length goes through. The padding is zero and the context has a
channel of ones, so the network sees where a trajectory begins and ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdaxr.prior.networks.base import Inputs, Network, NetworkModule
from sdaxr.prior.networks.embedding import NoiseEmbedding
from sdaxr.states.validation import Few, Width

# States from one tap of the widest kernel to the next: more than any trajectory has.
_FARTHEST = 1 << 20


@dataclass(frozen=True)
class TemporalConvolution(Network):
    r"""Residual blocks of two convolutions in time, modulated by the noise level.

    With the spacings :math:`s_i = d^i` of the taps in block i, the output at one state depends on
    :math:`k/2 + (k - 1) \sum_i s_i` states on each side (k/2 rounded down).

    Parameters
    ----------
    width
        Hidden channels.
    blocks
        Number of residual blocks.
    kernel
        Length k of each convolution, in states; odd.
    dilation
        Factor d by which the spacing of the taps grows from block to block. With 2 the spacings are 1, 2, 4, ...
        states: the reach grows exponentially with the number of blocks, at the same cost.

    References
    ----------
    Bai, Kolter & Koltun (2018), convolutional networks for sequences, arXiv:1803.01271; Rozet & Louppe (2023), the
    Markov blanket, arXiv:2306.10574.
    """

    gridded: ClassVar[bool] = False

    width: Width = 64
    blocks: Few = 4
    kernel: Width = 5
    dilation: Width = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("kernel", self.kernel % 2 == 1, "an odd number of states")
        widest = self.dilation ** max(0, self.blocks - 1)
        self.expect("dilation", widest <= _FARTHEST, f"one whose power is at most {_FARTHEST:,} in the last block")

    def module(self, inputs: Inputs) -> NetworkModule:
        return _TemporalConvolution(self, inputs)


class _TemporalConvolution(NetworkModule):
    def __init__(self, options: TemporalConvolution, inputs: Inputs) -> None:
        super().__init__()
        width, kernel = options.width, options.kernel
        spacings = [options.dilation**i for i in range(options.blocks)]
        self.reach = kernel // 2 + (kernel - 1) * sum(spacings)
        self.noise = NoiseEmbedding(width)
        self.first = nn.Conv1d(inputs.channels + inputs.context, width, kernel, padding=kernel // 2)
        self.blocks = nn.ModuleList(_Block(width, kernel, spacing) for spacing in spacings)
        self.last = nn.Conv1d(width, inputs.channels, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        context = context.expand(len(x), *context.shape[1:])
        noise = self.noise(log_r)
        hidden: Tensor = self.first(torch.cat([x, context], dim=2).transpose(1, 2))
        for block in self.blocks:
            hidden = block(hidden, noise)
        out: Tensor = self.last(F.silu(hidden))
        return out.transpose(1, 2)


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
        change: Tensor = self.second(F.silu(self.first(F.silu(hidden))))
        return x + change
