r"""Covariance of trajectories on a large domain given z, of priors of patches (`sdaxr.prior.tiles`).

.. math:: \mathrm{Cov}[x | z] = \sum_i W_i^{1/2} V_i W_i^{1/2}

with the covariance :math:`V_i` of a patch that lies in tile i. The weights :math:`W_i` of its points have the sum 1 at
each point, so that variances are those of a patch everywhere. Points that no tile has in common are uncorrelated. This
is the covariance of a sum of independent patches with the weights :math:`W_i^{1/2}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance
from sdaxr.posterior.covariance.eofs import EofCovariance
from sdaxr.posterior.covariance.modal import ModalCovariance, modal_weights
from sdaxr.posterior.linear import Likelihood, Linearised
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.files import Prior
from sdaxr.prior.tiles import TiledAxis, along, tiled_axes


@dataclass(frozen=True)
class TiledCovariance(StateCovariance):
    """Cov[x | z] of trajectories (time, channel, *space) on the whole domain.

    Attributes
    ----------
    patch
        Cov[x | z] on a patch.
    axes
        Tiles along each dimension that is cut, by the number of the axis, counted from the end.
    """

    patch: ModalCovariance | EofCovariance
    axes: dict[int, TiledAxis]

    measured: ClassVar[bool] = True

    @classmethod
    def of_prior(cls, prior: Prior, device: torch.device) -> TiledCovariance | None:
        """The covariance of a prior of patches; None where the prior does not know the modes of its patches."""
        assert prior.patches is not None
        modes = prior.network.to(device).modes
        found = EofCovariance(modes) if isinstance(modes, Eofs) else ModalCovariance.of_patch(prior, device)
        return None if found is None else cls(found, tiled_axes(prior.patches, prior.overlap))

    def product(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), at the times and channels where u is not zero."""

        def product(tiles: Tensor) -> Tensor:
            # Where nothing is observed in a whole band of tiles.
            return self.patch.product(tiles, r) if bool(tiles.any()) else tiles

        return self._summed(u, product)

    def product_everywhere(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), at all times and channels."""
        return self._summed(u, lambda tile: self.patch.product_everywhere(tile, r))

    def weights(self, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
        """The residual, and the weights of the analysis step; see `modal_weights`."""
        return modal_weights(self, likelihood, xhat, r)

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space); r determines the random numbers."""
        patch, tiles = list(shape), 1
        for axis, tiled in self.axes.items():
            patch[axis], tiles = tiled.tile, tiles * len(tiled.starts())
        fresh = iter(self.patch.draw(patch, r, count * tiles).split(count))
        blank = torch.zeros(count, *shape)
        return self._summed(blank, lambda tile: torch.cat([next(fresh) for _ in range(len(tile) // count)]))

    def _summed(self, u: Tensor, of_tile: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum over the tiles of W^1/2 ``of_tile`` (W^1/2 u)."""

        def summed(u: Tensor, axes: list[tuple[int, TiledAxis]]) -> Tensor:
            (axis, tiled), rest = axes[0], axes[1:]
            starts = tiled.starts()
            roots = [along(w.sqrt(), axis).to(u) for w in tiled.weights(starts)]
            points = [tiled.points(start).to(u.device) for start in starts]
            if rest:
                parts = (summed(root * u.index_select(axis, at), rest) for root, at in zip(roots, points, strict=True))
            else:  # The tiles of a band at once.
                band = [root * u.index_select(axis, at) for root, at in zip(roots, points, strict=True)]
                parts = iter(of_tile(torch.cat(band)).split(len(u)))
            out: Tensor | None = None
            for root, at, part in zip(roots, points, parts, strict=True):
                if out is None:
                    shape = list(part.shape)
                    shape[axis] = tiled.size
                    out = part.new_zeros(shape)
                out.index_add_(axis, at, root.to(part) * part)
            assert out is not None
            return out

        return summed(u, list(self.axes.items()))
