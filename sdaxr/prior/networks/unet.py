"""U-Nets on one- and two-dimensional grids.

`SpaceTimeUNet` folds time into the batch for the spatial convolutions and runs a short temporal convolution in every
block, so that it takes any number of states; `WindowUNet` stacks the states of a window into channels (Rozet & Louppe
2023, appendix D, Kolmogorov flow). All tensors are held as (batch * time, height, width, channel): both kinds of
convolution then are views of the same memory, without a copy. A one-dimensional grid has height one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdaxr.prior.networks.embedding import NoiseEmbedding


class SpaceTimeUNet(nn.Module):
    """U-Net with temporal convolutions.

    Parameters
    ----------
    channels, context
        Numbers of state and context channels.
    window
        Length of the windows of the training; the network itself takes any length.
    periodic
        For each horizontal dimension, whether convolutions wrap around it; bounded ones are padded with zeros.
    widths
        Channels of each level; the grid is halved from one level to the next.
    blocks, deepest
        Residual blocks a level, down and up, and on the coarsest grid; by default the same number.
    kernel, temporal
        Lengths of the spatial and temporal convolutions (odd); 0 for no temporal convolution.
    patch
        Side of the squares of the grid that are folded into channels first.
    refine
        Channels of a last convolution on the whole grid, which takes away the seams between patches; 0 for none.

    Attributes
    ----------
    reach
        States on each side that the output at one state depends on: one temporal convolution a block, down and up.
    """

    options = ("widths", "blocks", "deepest", "kernel", "temporal", "patch", "refine")

    def __init__(
        self,
        channels: int,
        context: int,
        window: int,
        periodic: Sequence[bool],
        *,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        deepest: int | None = None,
        kernel: int = 3,
        temporal: int = 3,
        patch: int = 2,
        refine: int = 0,
    ) -> None:
        super().__init__()
        self.window: int | None = None
        counts = [blocks] * (len(widths) - 1) + [blocks if deepest is None else deepest]
        self.reach = (sum(counts) + sum(counts[:-1])) * (temporal // 2)
        line = len(periodic) == 1
        wrap = (False, *periodic) if line else tuple(periodic)
        half = (1, 2) if line else (2, 2)
        self.patch = (1, patch) if line else (patch, patch)
        self.multiple = tuple(p * h ** (len(widths) - 1) for p, h in zip(self.patch, half, strict=True))
        self.periodic = wrap
        area = self.patch[0] * self.patch[1]
        self.noise = NoiseEmbedding(2 * widths[0])
        self.first = nn.Linear((channels + context) * area, widths[0])
        self.last = nn.Linear(widths[0], (refine or channels) * area)
        self.refine = _SpaceConvolution(refine, kernel, wrap, line, channels) if refine else None
        nn.init.zeros_(self.refine.convolution.weight if self.refine is not None else self.last.weight)

        def level(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(_Block(width, 2 * widths[0], kernel, temporal, wrap, line) for _ in range(count))

        self.down: Any = nn.ModuleList(map(level, widths, counts))
        self.up: Any = nn.ModuleList(map(level, widths[:-1], counts))
        self.coarser = nn.ModuleList(_Coarser(a, b, half) for a, b in pairwise(widths))
        self.finer = nn.ModuleList(_Finer(b, a, half) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(nn.Linear(2 * w, w) for w in widths[:-1])

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        batch, time, channels, *space = x.shape
        told = context.expand(batch, *context.shape[1:])
        images = torch.cat([x, told], dim=2).flatten(0, 1)
        images = images.unsqueeze(2) if len(space) == 1 else images
        hidden = self.first(_to_patches(self._pad(images), self.patch))
        noise = self.noise(log_r)
        skips = []
        for i, blocks in enumerate(self.down):
            hidden = self.coarser[i - 1](hidden) if i else hidden
            for block in blocks:
                hidden = block(hidden, noise, time)
            skips.append(hidden)
        for i in reversed(range(len(self.up))):
            hidden = self.merge[i](torch.cat([self.finer[i](hidden), skips[i]], dim=-1))
            for block in self.up[i]:
                hidden = block(hidden, noise, time)
        out = _from_patches(self.last(F.silu(hidden)), self.patch)
        if self.refine is not None:
            out = self.refine(F.silu(out).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out[..., : images.shape[-2], : images.shape[-1]].reshape(batch, time, channels, *space)

    def _pad(self, images: Tensor) -> Tensor:
        # Grids that cannot be halved often enough are continued to one that can, and cropped at the end.
        for axis, multiple, wrap in zip((-2, -1), self.multiple, self.periodic, strict=True):
            extra = -images.shape[axis] % multiple
            if extra:
                around = torch.arange(extra, device=images.device) % images.shape[axis]
                more = images.index_select(axis, around)
                more = more if wrap else torch.zeros_like(more)
                images = torch.cat([images, more], dim=axis)
        return images


class WindowUNet(nn.Module):
    """The paper's U-Net: the states of a window are channels of one image.

    Parameters
    ----------
    window
        Number of states that the network sees at once.
    widths, blocks, deepest, kernel, patch
        As in `SpaceTimeUNet`; the defaults are the paper's (23 million parameters for two channels), where the blocks
        of the coarsest grid come down and up, too.
    """

    options = ("widths", "blocks", "deepest", "kernel", "patch")

    def __init__(
        self,
        channels: int,
        context: int,
        window: int,
        periodic: Sequence[bool],
        *,
        widths: Sequence[int] = (96, 192, 384),
        blocks: int = 3,
        deepest: int | None = None,
        kernel: int = 3,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.window: int | None = window
        self.image = SpaceTimeUNet(
            window * channels, window * context, 1, periodic, widths=widths, blocks=blocks,
            deepest=2 * blocks if deepest is None else deepest, kernel=kernel, temporal=0, patch=patch,
        )  # fmt: skip

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        told = context.flatten(1, 2).unsqueeze(1)
        return self.image(x.flatten(1, 2).unsqueeze(1), log_r, told).reshape(x.shape)


class _Block(nn.Module):
    """Two spatial convolutions with a temporal one between them, modulated by the noise level."""

    def __init__(
        self, width: int, features: int, kernel: int, temporal: int, wrap: tuple[bool, ...], line: bool
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(features, 2 * width)
        self.first = _SpaceConvolution(width, kernel, wrap, line)
        self.time = nn.Conv2d(width, width, (temporal, 1), padding=(temporal // 2, 0)) if temporal else None
        self.second = _SpaceConvolution(width, kernel, wrap, line)

    def forward(self, x: Tensor, noise: Tensor, time: int) -> Tensor:
        scale, shift = self.modulation(noise)[:, None, None, :].repeat_interleave(time, dim=0).chunk(2, dim=-1)
        hidden = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        hidden = self.first(F.silu(hidden))
        if self.time is not None:
            hidden = self._through_time(self.time, F.silu(hidden), time)
        return x + self.second(F.silu(hidden))

    @staticmethod
    def _through_time(convolution: nn.Conv2d, x: Tensor, time: int) -> Tensor:
        # (batch * time, h, w, c) and (batch, time, h * w, c) are the same memory.
        columns = x.reshape(-1, time, x.shape[1] * x.shape[2], x.shape[3]).permute(0, 3, 1, 2)
        return convolution(columns).permute(0, 2, 3, 1).reshape(x.shape)


class _SpaceConvolution(nn.Module):
    """Convolution over the grid that wraps around periodic dimensions; (n, h, w, c) to the same, or to ``channels``."""

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
        return self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Coarser(nn.Module):
    def __init__(self, width: int, wider: int, half: tuple[int, int]) -> None:
        super().__init__()
        self.factor = half
        self.mix = nn.Linear(width * half[0] * half[1], wider)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(_to_patches(x.permute(0, 3, 1, 2), self.factor))


class _Finer(nn.Module):
    def __init__(self, wider: int, width: int, half: tuple[int, int]) -> None:
        super().__init__()
        self.factor = half
        self.mix = nn.Linear(wider, width * half[0] * half[1])

    def forward(self, x: Tensor) -> Tensor:
        return _from_patches(self.mix(x), self.factor).permute(0, 2, 3, 1)


def _to_patches(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """(n, c, h, w) to (n, h / p, w / q, c * p * q)."""
    n, c, h, w = images.shape
    p, q = patch
    split = images.reshape(n, c, h // p, p, w // q, q)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // p, w // q, c * p * q)


def _from_patches(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Inverse of `_to_patches`: (n, h, w, c * p * q) to (n, c, h * p, w * q)."""
    n, h, w, features = x.shape
    p, q = patch
    c = features // (p * q)
    return x.reshape(n, h, w, c, p, q).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h * p, w * q)
