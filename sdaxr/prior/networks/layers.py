"""Layers of the U-Nets.

All tensors are held as (batch * time, height, width, channel). Convolutions in space and in time then are views of the
same memory, without a copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Residual block: two convolutions in space with one in time between them, modulated by the noise level."""

    def __init__(
        self, width: int, features: int, kernel: int, temporal: int, wrap: tuple[bool, ...], line: bool
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(features, 2 * width)
        self.first = SpaceConvolution(width, kernel, wrap, line)
        self.time = nn.Conv2d(width, width, (temporal, 1), padding=(temporal // 2, 0)) if temporal else None
        self.second = SpaceConvolution(width, kernel, wrap, line)

    def forward(self, x: Tensor, noise: Tensor, time: int) -> Tensor:
        scale, shift = self.modulation(noise)[:, None, None, :].repeat_interleave(time, dim=0).chunk(2, dim=-1)
        hidden = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        hidden = self.first(F.silu(hidden))
        if self.time is not None:
            hidden = self._through_time(self.time, F.silu(hidden), time)
        change: Tensor = self.second(F.silu(hidden))
        return x + change

    @staticmethod
    def _through_time(convolution: nn.Conv2d, x: Tensor, time: int) -> Tensor:
        # (batch * time, h, w, c) and (batch, time, h * w, c) are the same memory.
        columns = x.reshape(-1, time, x.shape[1] * x.shape[2], x.shape[3]).permute(0, 3, 1, 2)
        out: Tensor = convolution(columns)
        return out.permute(0, 2, 3, 1).reshape(x.shape)


class SpaceConvolution(nn.Module):
    """Convolution over the grid that wraps around periodic dimensions.

    Maps (n, h, w, c) to the same shape, or to ``channels`` in the place of c. A ``line`` is a grid of height one.
    """

    def __init__(
        self, width: int, kernel: int, wrap: tuple[bool, ...], line: bool, channels: int | None = None
    ) -> None:
        super().__init__()
        self.wrap = (wrap[0] and not line, wrap[1])
        self.reach = (0 if line else kernel // 2, kernel // 2)
        padding = (0 if self.wrap[0] else self.reach[0], 0 if self.wrap[1] else self.reach[1])
        self.convolution = nn.Conv2d(width, channels or width, (1 if line else kernel, kernel), padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        for axis, (wrap, reach) in enumerate(zip(self.wrap, self.reach, strict=True), start=1):
            if wrap and reach:
                x = torch.cat([x.narrow(axis, -reach, reach), x, x.narrow(axis, 0, reach)], dim=axis)
        out: Tensor = self.convolution(x.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1)


class Coarser(nn.Module):
    """To the next coarser grid: the points of one coarse cell become channels, then mix; (n, h, w, c) to a quarter."""

    def __init__(self, width: int, wider: int, half: tuple[int, int]) -> None:
        super().__init__()
        self.factor = half
        self.mix = nn.Linear(width * half[0] * half[1], wider)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(to_patches(x.permute(0, 3, 1, 2), self.factor))
        return mixed


class Finer(nn.Module):
    """Back to the next finer grid; the inverse in shape of `Coarser`."""

    def __init__(self, wider: int, width: int, half: tuple[int, int]) -> None:
        super().__init__()
        self.factor = half
        self.mix = nn.Linear(wider, width * half[0] * half[1])

    def forward(self, x: Tensor) -> Tensor:
        return from_patches(self.mix(x), self.factor).permute(0, 2, 3, 1)


def to_patches(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """(n, c, h, w) to (n, h / p, w / q, c * p * q)."""
    n, c, h, w = images.shape
    p, q = patch
    split = images.reshape(n, c, h // p, p, w // q, q)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // p, w // q, c * p * q)


def from_patches(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Inverse of `to_patches`: (n, h, w, c * p * q) to (n, c, h * p, w * q)."""
    n, h, w, features = x.shape
    p, q = patch
    c = features // (p * q)
    return x.reshape(n, h, w, c, p, q).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h * p, w * q)
