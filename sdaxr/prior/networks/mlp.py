"""Residual perceptron on a window of state vectors (Rozet & Louppe 2023, appendix D, Lorenz 1963 with k <= 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdaxr.prior.networks.embedding import NoiseEmbedding


class ResidualMLP(nn.Module):
    """Five residual blocks of 256 units with layer normalisation and SiLU, as in the paper.

    Parameters
    ----------
    channels, context
        Numbers of state and context channels.
    window
        Number of states that the network sees at once.
    width, blocks
        Units a layer and number of residual blocks.
    """

    options = ("width", "blocks")

    def __init__(self, channels: int, context: int, window: int, *, width: int = 256, blocks: int = 5) -> None:
        super().__init__()
        self.window: int | None = window
        self.noise = NoiseEmbedding(32)
        self.first = nn.Linear(window * (channels + context) + 32, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, window * channels)

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        told = context.expand(len(x), *context.shape[1:]).flatten(1)
        hidden = self.first(torch.cat([x.flatten(1), told, self.noise(log_r)], dim=-1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden).reshape(x.shape)
