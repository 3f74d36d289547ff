"""U-Nets on one- and two-dimensional grids.

`SpaceTimeUNet` folds time into the batch for the convolutions in space, and has a short convolution in time in every
block; it takes any number of states. `WindowUNet` stacks the states of a window into channels of one image. A
one-dimensional grid is held as one of height one.

Convolutions wrap around periodic dimensions, so that a globe has no seam in longitude. Along bounded dimensions they
are padded with zeros; the context has the position along them, and ones inside: from these the network learns what an
edge is. The poles are such edges: what the network adds does not go over a pole, as EOFs do (`sdaxr.prior.eofs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdaxr.prior.networks.base import Inputs, Network, NetworkModule
from sdaxr.prior.networks.embedding import NoiseEmbedding
from sdaxr.prior.networks.layers import Block, Coarser, Finer, SpaceConvolution, from_patches, to_patches
from sdaxr.states.validation import Few, Width, Widths


@dataclass(frozen=True)
class SpaceTimeUNet(Network):
    """U-Net with a convolution in time in every block; takes any number of states.

    The output at one state depends on ``temporal // 2`` states on each side for each block, on the way down and up.

    Parameters
    ----------
    widths
        Channels of each level. The grid is halved from one level to the next.
    blocks
        Residual blocks of each level, on the way down and again on the way up.
    deepest
        Residual blocks on the coarsest grid; None for the number ``blocks``.
    kernel
        Length of the convolutions in space, in grid points; odd.
    temporal
        Length of the convolutions in time, in states; odd, or 0 for none.
    patch
        Side of the squares of the grid that are folded into channels first, in grid points.
    refine
        Channels of a last convolution on the whole grid, which removes seams between patches; 0 for none.

    References
    ----------
    Ronneberger, Fischer & Brox (2015), U-Net, arXiv:1505.04597; Ho et al. (2022), space and time in turn,
    arXiv:2204.03458.
    """

    gridded: ClassVar[bool] = True

    widths: Widths = (32, 64, 128)
    blocks: Few = 2
    deepest: Few | None = None
    kernel: Width = 3
    temporal: Few = 3
    patch: Width = 2
    refine: Few = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_kernel(self)
        self.expect("temporal", self.temporal == 0 or self.temporal % 2 == 1, "an odd number of states, or 0")

    def module(self, inputs: Inputs) -> NetworkModule:
        return _SpaceTimeUNet(self, inputs)


@dataclass(frozen=True)
class WindowUNet(Network):
    """The U-Net of Rozet & Louppe: the states of a window are channels of one image.

    The defaults are those of the paper for Kolmogorov flow (23 million parameters for two channels).

    Parameters
    ----------
    widths, kernel, patch
        As in `SpaceTimeUNet`.
    blocks
        Residual blocks of each level, on the way down and again on the way up.
    deepest
        Residual blocks on the coarsest grid; None for twice the number ``blocks``, one half for each way.

    References
    ----------
    Rozet & Louppe (2023), Score-based data assimilation, appendix D, arXiv:2306.10574.
    """

    gridded: ClassVar[bool] = True
    windowed: ClassVar[bool] = True

    widths: Widths = (96, 192, 384)
    blocks: Few = 3
    deepest: Few | None = None
    kernel: Width = 3
    patch: Width = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_kernel(self)

    def module(self, inputs: Inputs) -> NetworkModule:
        return _WindowUNet(self, inputs)


def _check_kernel(options: SpaceTimeUNet | WindowUNet) -> None:
    options.expect("kernel", options.kernel % 2 == 1, "an odd number of grid points")


class _SpaceTimeUNet(NetworkModule):
    def __init__(self, options: SpaceTimeUNet, inputs: Inputs) -> None:
        super().__init__()
        widths, blocks, kernel, patch, refine = (
            options.widths, options.blocks, options.kernel, options.patch, options.refine
        )  # fmt: skip
        counts = [blocks] * (len(widths) - 1) + [blocks if options.deepest is None else options.deepest]
        self.reach = (sum(counts) + sum(counts[:-1])) * (options.temporal // 2)
        line = len(inputs.periodic) == 1
        wrap = (False, *inputs.periodic) if line else inputs.periodic
        half = (1, 2) if line else (2, 2)
        self.patch = (1, patch) if line else (patch, patch)
        self.multiple = tuple(p * h ** (len(widths) - 1) for p, h in zip(self.patch, half, strict=True))
        self.periodic = wrap
        area = self.patch[0] * self.patch[1]
        self.noise = NoiseEmbedding(2 * widths[0])
        self.first = nn.Linear((inputs.channels + inputs.context) * area, widths[0])
        self.last = nn.Linear(widths[0], (refine or inputs.channels) * area)
        self.refine = SpaceConvolution(refine, kernel, wrap, line, inputs.channels) if refine else None
        nn.init.zeros_(self.refine.convolution.weight if self.refine is not None else self.last.weight)

        def level(width: int, count: int) -> nn.ModuleList:
            shape = (width, 2 * widths[0], kernel, options.temporal, wrap, line)
            return nn.ModuleList(Block(*shape) for _ in range(count))

        self.down: Any = nn.ModuleList(map(level, widths, counts))
        self.up: Any = nn.ModuleList(map(level, widths[:-1], counts))
        self.coarser = nn.ModuleList(Coarser(a, b, half) for a, b in pairwise(widths))
        self.finer = nn.ModuleList(Finer(b, a, half) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(nn.Linear(2 * w, w) for w in widths[:-1])

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        batch, time, channels, *space = x.shape
        context = context.expand(batch, *context.shape[1:])
        images = torch.cat([x, context], dim=2).flatten(0, 1)
        images = images.unsqueeze(2) if len(space) == 1 else images
        hidden = self.first(to_patches(self._pad(images), self.patch))
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
        out = from_patches(self.last(F.silu(hidden)), self.patch)
        if self.refine is not None:
            out = self.refine(F.silu(out).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out[..., : images.shape[-2], : images.shape[-1]].reshape(batch, time, channels, *space)

    def _pad(self, images: Tensor) -> Tensor:
        # A grid that cannot be halved often enough is extended to one that can, and cropped at the end.
        for axis, multiple, wrap in zip((-2, -1), self.multiple, self.periodic, strict=True):
            extra = -images.shape[axis] % multiple
            if extra:
                around = torch.arange(extra, device=images.device) % images.shape[axis]
                more = images.index_select(axis, around)
                more = more if wrap else torch.zeros_like(more)
                images = torch.cat([images, more], dim=axis)
        return images


class _WindowUNet(NetworkModule):
    def __init__(self, options: WindowUNet, inputs: Inputs) -> None:
        super().__init__()
        window = inputs.window
        self.window: int | None = window
        image = SpaceTimeUNet(
            widths=options.widths, blocks=options.blocks, kernel=options.kernel, temporal=0, patch=options.patch,
            deepest=2 * options.blocks if options.deepest is None else options.deepest,
        )  # fmt: skip
        self.image = image.module(Inputs(window * inputs.channels, window * inputs.context, 1, inputs.periodic))

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        context = context.flatten(1, 2).unsqueeze(1)
        out: Tensor = self.image(x.flatten(1, 2).unsqueeze(1), log_r, context)
        return out.reshape(x.shape)
