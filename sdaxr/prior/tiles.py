r"""A denoiser of a large domain, from a network that was trained on patches of the domain.

The domain is covered by overlapping tiles of the size of a patch. Along periodic dimensions tiles wrap around. With the
weights :math:`w_i` of tile i, which fall to zero at its edges and have the sum 1 at every point,

.. math:: E[x | z] \approx \sum_i w_i \, E[x | z_i]

where :math:`z_i` is the part of z in the tile. This is exact where a point of the tile is independent, given
:math:`z_i`, of what lies outside. MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113) averages tiles, too.
The tiles move with the noise level, so that no point lies at an edge at every level.

Guidance differentiates the blend, so observations act across the edges of tiles. Each tile is computed again in its
turn then, and only the graph of one tile is in memory, however large the domain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdaxr.prior.blanket import TrajectoryDenoiser
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import OptionError

OVERLAP = 0.25
"""Part of a tile that it shares with the next one, along each dimension."""

# Irrational steps from one noise level to the next, for the first and the second dimension (the plastic number).
_STEPS = (0.7548776662466927, 0.5698402909980532)


@dataclass(frozen=True)
class TiledAxis:
    """Overlapping tiles along one dimension.

    Attributes
    ----------
    size, tile
        Points of the dimension, and of a tile.
    periodic
        Whether tiles wrap around.
    overlap
        Part of a tile that it shares with the next one, from 0 to below 1.
    """

    size: int
    tile: int
    periodic: bool
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise OptionError(f"overlap={self.overlap}, expected a number from 0 to below 1")

    def starts(self, phase: float = 0.0) -> list[int]:
        """First points of the tiles, moved by the part ``phase`` of the distance between them."""
        stride = max(1, round(self.tile * (1 - self.overlap)))
        shift = int(phase * stride)
        if self.periodic:
            count = -(-self.size // stride)
            return [(i * self.size // count + shift) % self.size for i in range(count)]
        last = self.size - self.tile
        return sorted({0, *range(shift or stride, last, stride), last})

    def points(self, start: int) -> Tensor:
        """Numbers of the points of the tile that begins at ``start``, (tile,)."""
        return (start + torch.arange(self.tile)) % self.size

    def weights(self, starts: Sequence[int]) -> Tensor:
        """Weights of the points of each tile, (count, tile); those of one point have the sum 1.

        They rise along the overlap as a squared sine.
        """
        ramp = max(1, self.tile - max(1, round(self.tile * (1 - self.overlap))))
        inside = torch.arange(self.tile, dtype=torch.float64) + 0.5
        rise = (torch.minimum(inside, self.tile - inside) / ramp).clamp(max=1.0)
        profile = torch.sin(math.pi / 2 * rise).square()
        total = torch.zeros(self.size, dtype=torch.float64)
        for start in starts:
            total.index_add_(0, self.points(start), profile)
        return torch.stack([profile / total[self.points(start)] for start in starts])


class PatchDenoiser:
    """E[x | z] of trajectories on a large domain.

    Parameters
    ----------
    network
        The denoising network of one patch.
    patches
        The patches of the domain.
    context
        Context of each state on the whole domain, (time, context channel, *space), as `Patches.fields` gives it.
    overlap
        Part of a tile that it shares with the next one.
    stride, chunk, half
        See `TrajectoryDenoiser`, which is the denoiser of each tile.

    Raises
    ------
    DataError, OptionError
        If there are fewer states than a window, or an option is impossible.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        patches: Patches,
        context: Tensor,
        *,
        overlap: float = OVERLAP,
        stride: int = 1,
        chunk: int | None = None,
        half: bool = False,
    ) -> None:
        self.network, self.patches, self.context = network, patches, context
        self.axes = tiled_axes(patches, overlap)
        self.stride, self.chunk, self.half = stride, chunk, half
        corner = context
        for axis, tiled in self.axes.items():
            corner = corner.narrow(axis, 0, tiled.tile)
        self._tile_of(corner)  # What is impossible is known before the first evaluation.

    def __call__(self, z: Tensor, r: float | Tensor) -> Tensor:
        """E[x | z], of the shape of z.

        Parameters
        ----------
        z
            Shape (batch, time, channel, *space).
        r
            Noise level, one or (batch,).
        """
        level = torch.as_tensor(r, dtype=z.dtype, device=z.device).expand(len(z))
        return self._blend(z, self.context, level, list(self.starts(float(level[0])).items()))

    def starts(self, r: float) -> dict[int, list[int]]:
        """First points of the tiles at the noise level r, by the number of the axis, counted from the end."""
        number = round(1e4 * math.log(max(r, 1e-30)))
        pairs = zip(self.axes.items(), _STEPS, strict=False)
        return {axis: tiled.starts(number * step % 1) for (axis, tiled), step in pairs}

    def _blend(self, z: Tensor, context: Tensor, r: Tensor, axes: list[tuple[int, list[int]]]) -> Tensor:
        """The weighted mean of tiles along ``axes``, band by band: the gradient of a tile is as large as its band."""
        if not axes:
            tile = self._tile_of(context)
            found: Tensor = checkpoint(tile, z, r, use_reentrant=False, preserve_rng_state=False)
            return found
        (axis, starts), tiled = axes[0], self.axes[axes[0][0]]
        out = torch.zeros_like(z)
        for start, weights in zip(starts, tiled.weights(starts), strict=True):
            points = tiled.points(start).to(z.device)
            parts = z.index_select(axis, points), context.index_select(axis, points)
            out.index_add_(axis, points, along(weights, axis).to(z) * self._blend(*parts, r, axes[1:]))
        return out

    def _tile_of(self, context: Tensor) -> TrajectoryDenoiser:
        placed = self.patches.placed(context)
        return TrajectoryDenoiser(self.network, placed, stride=self.stride, chunk=self.chunk, half=self.half)


def tiled_axes(patches: Patches, overlap: float = OVERLAP) -> dict[int, TiledAxis]:
    """Tiles along each dimension that is cut into patches, by the number of the axis, counted from the end."""
    layout, found = patches.layout, {}
    for number, dim in enumerate(layout.space):
        if dim in patches.sizes:
            axis = TiledAxis(layout.sizes[dim], patches.sizes[dim], layout.periodic[number], overlap)
            found[number - len(layout.space)] = axis
    return found


def mosaic(patches: Patches, windows: Tensor) -> Tensor:
    r"""Fields of the whole domain, made of fields of single patches.

    Neighbours overlap and are added with the weights :math:`\sqrt{w_i}`: where they are independent and of mean zero,
    the sum has their variance, and no jumps.

    Parameters
    ----------
    windows
        Fields of patches, (sample, ..., *space).

    Returns
    -------
    Shape (mosaic, ..., *domain). Each sample is used about once, and more often where the domain has more tiles than
    there are samples; the same tile has the same sample in every call.
    """
    axes = list(tiled_axes(patches).items())
    tiles = math.prod(len(tiled.starts()) for _, tiled in axes)
    count = max(1, len(windows) // tiles)

    def laid(numbers: np.ndarray, rest: list[tuple[int, TiledAxis]]) -> Tensor:
        """Tiles whose samples have the numbers (mosaic, tile, ...), side by side along the axes that are left."""
        if not rest:
            return windows[torch.as_tensor(numbers, device=windows.device)]
        axis, tiled = rest[0]
        starts = tiled.starts()
        parts = [laid(numbers[:, i], rest[1:]) for i in range(len(starts))]
        shape = list(parts[0].shape)
        shape[axis] = tiled.size
        out = windows.new_zeros(shape)
        for start, weights, part in zip(starts, tiled.weights(starts), parts, strict=True):
            out.index_add_(axis, tiled.points(start).to(out.device), along(weights.sqrt(), axis).to(out) * part)
        return out

    numbers = np.arange(count * tiles) % len(windows)
    return laid(numbers.reshape(count, *[len(tiled.starts()) for _, tiled in axes]), axes)


def along(weights: Tensor, axis: int) -> Tensor:
    """Weights (n,) along an axis that is counted from the end."""
    return weights.reshape(-1, *[1] * (-axis - 1))
