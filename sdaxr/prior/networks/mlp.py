"""Residual perceptron on a window of state vectors (Rozet & Louppe 2023, appendix D, arXiv:2306.10574)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sdaxr.prior.networks.base import Inputs, Network, NetworkModule
from sdaxr.prior.networks.embedding import NoiseEmbedding
from sdaxr.states.validation import Few, Width


@dataclass(frozen=True)
class ResidualMLP(Network):
    """Residual blocks with layer normalisation and SiLU on all numbers of one window.

    The defaults are those of the paper for Lorenz 1963 with windows of up to 2k + 1 = 9 states.

    Parameters
    ----------
    width
        Units in a layer.
    blocks
        Number of residual blocks.

    References
    ----------
    Rozet & Louppe (2023), Score-based data assimilation, appendix D, arXiv:2306.10574.
    """

    gridded: ClassVar[bool] = False
    windowed: ClassVar[bool] = True

    width: Width = 256
    blocks: Few = 5

    def module(self, inputs: Inputs) -> NetworkModule:
        return _ResidualMLP(self, inputs)


class _ResidualMLP(NetworkModule):
    def __init__(self, options: ResidualMLP, inputs: Inputs) -> None:
        super().__init__()
        width = options.width
        self.window: int | None = inputs.window
        self.noise = NoiseEmbedding(32)
        self.first = nn.Linear(inputs.window * (inputs.channels + inputs.context) + 32, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(options.blocks)
        )
        self.last = nn.Linear(width, inputs.window * inputs.channels)

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        context = context.expand(len(x), *context.shape[1:]).flatten(1)
        hidden: Tensor = self.first(torch.cat([x.flatten(1), context, self.noise(log_r)], dim=-1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        out: Tensor = self.last(hidden)
        return out.reshape(x.shape)
