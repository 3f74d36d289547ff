r"""Leading eigenvectors of localised covariances B (`sdaxr.prior.localisation`): EOFs.

On a global grid, where cells have different areas, the leading EOFs are those that explain most of the variance by area
(North et al. 1982, doi:10.1175/1520-0493(1982)110<0699:SEITEO>2.0.CO;2): the eigenvectors v of
:math:`W^{1/2} B W^{1/2}` with the areas W. The patterns :math:`W^{-1/2} v` are not orthogonal where all points count
alike, as they do in white noise. Their covariance is therefore diagonalised anew: areas decide which patterns there
are and what counts of the rest, and the covariance is that of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Up to so many points the eigenvectors are computed directly; up to so many the covariance is held as a matrix.
_DIRECT, _MATRIX = 2500, 16_000
# Rows of distances that are computed at once.
_ROWS = 256

Squares = Callable[[slice], Tensor]


@dataclass(frozen=True)
class EofsOfStates:
    """Mean (point,), eigenvalues (rank,) and eigenvectors (point, rank) of a localised covariance."""

    mean: Tensor
    values: Tensor
    vectors: Tensor


def eofs_of(
    parts: Sequence[Tensor], square: Squares, taper: float, rank: int, area: Tensor | None = None
) -> EofsOfStates:
    """Leading eigenvectors of the localised covariance of states; pairs with a gap are left out.

    Parameters
    ----------
    parts
        States, each (time, point), NaN where a value is missing.
    square
        Squared distances of some points from all points, as of `squares`.
    taper
        Length D, in the units of the distances.
    rank
        Largest number of EOFs.
    area
        Areas of the points over their mean, (point,); None where all count alike.
    """
    states = torch.cat(list(parts))
    seen = states.isfinite()
    mean = states.nanmean(0).nan_to_num(0.0)
    deviations = (states - mean).nan_to_num(0.0)
    deviations = deviations if area is None else deviations * area.sqrt()
    complete = bool(seen.all())
    counts = seen.float()
    points = states.shape[1]

    def covariance(part: slice) -> Tensor:
        pairs = torch.full((), float(len(states))) if complete else (counts[:, part].T @ counts).clamp_min(1.0)
        return deviations[:, part].T @ deviations / pairs * torch.exp(-square(part) / (2 * taper**2))

    values, vectors = _decomposed(covariance, points, rank)
    if area is not None:
        values, vectors = _orthonormal(values, vectors / area.sqrt()[:, None])
    return EofsOfStates(mean, values, vectors)


def squares(places: np.ndarray) -> Squares:
    """Squared distances of some points from all points, (rows, point), in single precision."""
    at = torch.as_tensor(places, dtype=torch.float64)

    def rows(part: slice) -> Tensor:
        # In double precision only a few rows at once: of large grids they are most of the memory.
        return torch.cat([torch.cdist(some, at).square().float() for some in at[part].split(_ROWS)])

    return rows


def _decomposed(covariance: Callable[[slice], Tensor], points: int, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors of a covariance, given by its rows."""
    if points > _MATRIX:
        return _extended(covariance, points, rank)
    matrix = covariance(slice(None))
    if points <= _DIRECT:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0)[:rank].clamp_min(0.0), vectors.flip(1)[:, :rank]
    return _leading(matrix, rank)


def _orthonormal(values: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the covariance of patterns (point, rank) with variances (rank,)."""
    basis, upper = torch.linalg.qr(patterns)
    small, rotation = torch.linalg.eigh((upper * values) @ upper.T)
    return small.flip(0).clamp_min(0.0), basis @ rotation.flip(1)


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors of a symmetric matrix, by subspace iteration (Halko et al. 2011)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(matrix @ torch.randn(len(matrix), rank + 50, generator=generator))[0]
    for _ in range(3):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, rotation = torch.linalg.eigh(basis.T @ (matrix @ basis))
    return values.flip(0)[:rank].clamp_min(0.0), basis @ rotation.flip(1)[:, :rank]


def _extended(covariance: Callable[[slice], Tensor], points: int, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors of a covariance that is too large to be held, from some of its rows (Nystroem's method)."""
    stride = -(-points // (_MATRIX // 2))
    chosen = slice(0, None, stride)
    rows = covariance(chosen)
    values, vectors = _leading(rows[:, chosen].contiguous(), min(rank, len(rows)))
    kept = values > 1e-6 * values[0]
    return _orthonormal(values[kept], rows.T @ (vectors[:, kept] / values[kept]))
