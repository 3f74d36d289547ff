"""Embedding of the noise level, shared by all networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NoiseEmbedding(nn.Module):
    """Sines and cosines of the logarithm of the noise level, then two layers: (batch,) to (batch, features)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        # From one turn over the whole range of log r (about 20) to turns of half a unit.
        frequencies = torch.logspace(math.log10(math.pi / 10), math.log10(4 * math.pi), 16)
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(32, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU())

    def forward(self, log_r: Tensor) -> Tensor:
        angles = log_r[:, None] * self.frequencies
        embedded: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return embedded
