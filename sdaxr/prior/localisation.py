r"""Localised covariances of fields, and what of them holds beyond the training data.

A few weeks of fields give far fewer samples than there are covariances. Those of distant points are mostly noise, and
are tapered with the distance d (Hamill et al. 2001, doi:10.1175/1520-0493(2001)129<2776:DDFOBE>2.0.CO;2),

.. math:: B_{ij} = C_{ij} \exp(-d_{ij}^2 / 2 D^2) ,

whose leading eigenvectors are the EOFs. The eigenvalues of a sampled covariance are biased, the large ones upwards and
the small ones downwards. The autocovariances of the coefficients, variances included, are therefore measured on data
that did not give the EOFs: on each of a few blocks of time in turn, around the mean of the others (cross-validated
eigenvalues; Bartz 2016, arXiv:1611.00798). The taper's length D is the one for which the blocks are most likely.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior import gaps
from sdaxr.prior.eofs import LEAST, spectrum
from sdaxr.prior.modes import cosines
from sdaxr.schema import DataError
from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import positions

_log = logging.getLogger(__name__)

# Blocks of time, of which each is left out once.
_BLOCKS = 6
# Points on which the taper's length is chosen, and lengths as fractions of the largest distance. None: no taper.
_POINTS, _LENGTHS = 600, (0.06, 0.09, 0.13, 0.19, 0.28, 0.4, 0.7)
# The likelihood is that of fields with this much white noise, in standard deviations. Then large scales decide, which
# sparse observations see, and not the many small ones.
_NOISE = 1.0
# The EOFs stop where they explain this fraction of the variance, or at this rank.
_EXPLAINED, _RANK = 0.999, 600
# Numbers of the EOFs that are kept in a file, in half precision 14 MB.
_NUMBERS = 7_000_000
# Up to so many points the eigenvectors are computed directly; up to so many the covariance is held as a matrix.
_DIRECT, _MATRIX = 2500, 16_000
# Lags of the autocovariances, in states.
_LAGS = 128
# Width of the average over neighbouring EOFs, in the logarithm of their number.
_WIDTH = 0.3


@dataclass(frozen=True)
class Localised:
    """EOFs of a localised covariance.

    Attributes
    ----------
    vectors
        EOFs as columns, shape (point, rank).
    autocovariances
        By lag, shape (lags, rank + 1); the last column is that of each direction that the EOFs leave.
    about
        What was chosen and measured: length of the taper, explained fraction, log-likelihood by length.
    """

    vectors: Tensor
    autocovariances: Tensor
    about: dict[str, Any]


@dataclass(frozen=True)
class MeasuredEofs:
    """EOFs on the points of a layout that have data; ``about`` is what a prior's file says of them."""

    found: Localised
    mask: np.ndarray | None
    about: dict[str, Any]

    def into(self, modes: Any) -> None:
        """Set the buffers of `sdaxr.prior.eofs.Eofs`."""
        vectors = torch.zeros_like(modes.vectors)
        kept = torch.ones(len(vectors), dtype=torch.bool) if self.mask is None else torch.as_tensor(self.mask.ravel())
        vectors[kept.to(vectors.device)] = self.found.vectors.to(vectors)
        modes.vectors.copy_(vectors)
        modes.autocovariances.copy_(self.found.autocovariances)
        if self.mask is not None:
            modes.present.copy_(torch.as_tensor(self.mask))


def measured_eofs(
    series: Iterable[Tensor], layout: StateLayout, *, window: int, taper: float | None = None
) -> MeasuredEofs:
    """EOFs of states (time, channel, *space) of a layout; see `localised`."""
    places, unit = positions(layout)
    everywhere = np.tile(places, (layout.channels, 1))
    kept = np.ones(len(everywhere), bool) if layout.mask is None else layout.mask.ravel()
    states = [part.flatten(1)[:, torch.as_tensor(kept)] for part in series]
    found = localised(states, everywhere[kept], window=window, taper=taper)
    lags = len(found.autocovariances)
    return MeasuredEofs(found, layout.mask, {**found.about, "lags": lags, "taper_units": unit})


def localised(series: Sequence[Tensor], places: np.ndarray, *, window: int, taper: float | None = None) -> Localised:
    """EOFs and autocovariances from series of states.

    Parameters
    ----------
    series
        Normalised states of consecutive times, each (time, point), NaN where a value is missing.
    places
        Positions of the points, (point, n), whose Euclidean distances the taper takes.
    window
        Length of the windows, in states, whose likelihood decides.
    taper
        Length D, in the units of the positions. None: the most likely of a few lengths.

    Raises
    ------
    DataError
        If there are too few states to leave any out.
    """
    blocks = _blocks(series)
    span = float(np.ptp(places, axis=0).max()) or 1.0
    candidates = [share * span for share in _LENGTHS] if taper is None else [taper]
    scores: dict[float, np.ndarray] = {}
    if len(candidates) > 1:
        chosen = _subset(places)
        subset = [[part[:, chosen] for part in block] for block in blocks]
        near = _squares(places[chosen.numpy()])
        scores = {length: _likelihood(subset, near, length, window) for length in candidates}
    best = _chosen(scores) if scores else candidates[0]
    rank = max(1, min(_RANK, len(places) - 1, _NUMBERS // len(places)))
    square = _squares(places)
    whole = _eofs([part for block in blocks for part in block], square, best, rank)
    crossed = [_crossed(blocks, number, square, best, rank) for number in range(len(blocks))]
    autocovariances = _average(crossed, whole.values)
    kept = _kept(autocovariances, len(places))
    found = _cut(autocovariances, kept, len(places))
    explained = float(found[0, :-1].sum() / (found[0, :-1].sum() + found[0, -1] * (len(places) - kept)))
    about = {
        "taper": round(best, 4), "rank": kept, "explained": round(explained, 5),
        "log_likelihood": {f"{length:.4g}": round(float(score.mean()), 5) for length, score in scores.items()},
    }  # fmt: skip
    _log.info("EOFs: taper %.4g, %d of them explain %.4f of the variance", best, kept, explained)
    return Localised(whole.vectors[:, :kept].float(), found.float(), about)


@dataclass(frozen=True)
class _Eofs:
    """Mean (point,), eigenvalues (rank,) and eigenvectors (point, rank) of a localised covariance."""

    mean: Tensor
    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class _Crossed:
    """EOFs of all blocks but one, and the autocovariances in the one, (lags, rank + 1)."""

    eofs: _Eofs
    autocovariances: Tensor


def _blocks(series: Sequence[Tensor]) -> list[list[Tensor]]:
    """The states in blocks of about the same number of consecutive times; each block may have several parts."""
    count = sum(map(len, series))
    if count < LEAST:
        raise DataError(f"found {count} states, expected at least {LEAST} to measure covariances; add data")
    edges = np.linspace(0, count, _BLOCKS + 1).astype(int)
    blocks: list[list[Tensor]] = [[] for _ in range(_BLOCKS)]
    first = 0
    for part in series:
        for number in range(_BLOCKS):
            low, high = max(edges[number], first), min(edges[number + 1], first + len(part))
            if high > low:
                blocks[number].append(part[low - first : high - first])
        first += len(part)
    return blocks


def _squares(places: np.ndarray) -> Callable[[slice], Tensor]:
    """Squared distances of some points from all points, (rows, point), in single precision."""
    at = torch.as_tensor(places, dtype=torch.float64)

    def rows(part: slice) -> Tensor:
        return torch.cdist(at[part], at).square().float()

    return rows


def _subset(places: np.ndarray) -> Tensor:
    count = min(_POINTS, len(places))
    return torch.as_tensor(np.sort(np.random.default_rng(0).choice(len(places), count, replace=False)))


def _chosen(scores: dict[float, np.ndarray]) -> float:
    """The longest taper whose likelihood is not below the largest by more than the standard error of the blocks."""
    best = scores[max(scores, key=lambda length: float(scores[length].mean()))]
    behind = {length: best - score for length, score in scores.items()}
    error = {length: float(d.std(ddof=1)) / len(d) ** 0.5 for length, d in behind.items()}
    return max(length for length, d in behind.items() if float(d.mean()) <= error[length])


def _eofs(parts: Sequence[Tensor], square: Callable[[slice], Tensor], length: float, rank: int) -> _Eofs:
    """Leading eigenvectors of the localised covariance of states (time, point); pairs with a gap are left out."""
    states = torch.cat(list(parts))
    seen = states.isfinite()
    mean = states.nanmean(0).nan_to_num(0.0)
    deviations = (states - mean).nan_to_num(0.0)
    complete = bool(seen.all())
    counts = seen.float()
    points = states.shape[1]

    def covariance(part: slice) -> Tensor:
        pairs = torch.full((), float(len(states))) if complete else (counts[:, part].T @ counts).clamp_min(1.0)
        return deviations[:, part].T @ deviations / pairs * torch.exp(-square(part) / (2 * length**2))

    if points > _MATRIX:
        return _extended(mean, covariance, points, rank)
    matrix = covariance(slice(None))
    if points <= _DIRECT:
        values, vectors = torch.linalg.eigh(matrix)
        return _Eofs(mean, values.flip(0)[:rank].clamp_min(0.0), vectors.flip(1)[:, :rank])
    values, vectors = _leading(matrix, rank)
    return _Eofs(mean, values, vectors)


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors of a symmetric matrix, by subspace iteration (Halko et al. 2011)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(matrix @ torch.randn(len(matrix), rank + 50, generator=generator))[0]
    for _ in range(3):
        basis = torch.linalg.qr(matrix @ basis)[0]
    values, rotation = torch.linalg.eigh(basis.T @ (matrix @ basis))
    return values.flip(0)[:rank].clamp_min(0.0), basis @ rotation.flip(1)[:, :rank]


def _extended(mean: Tensor, covariance: Callable[[slice], Tensor], points: int, rank: int) -> _Eofs:
    """Leading eigenvectors of a covariance that is too large to be held, from some of its rows (Nystroem's method)."""
    stride = -(-points // (_MATRIX // 2))
    chosen = slice(0, None, stride)
    rows = covariance(chosen)
    values, vectors = _leading(rows[:, chosen].contiguous(), min(rank, len(rows)))
    kept = values > 1e-6 * values[0]
    extended = rows.T @ (vectors[:, kept] / values[kept])
    basis, upper = torch.linalg.qr(extended)
    small, rotation = torch.linalg.eigh((upper * values[kept]) @ upper.T)
    return _Eofs(mean, small.flip(0).clamp_min(0.0), basis @ rotation.flip(1))


def _crossed(
    blocks: Sequence[Sequence[Tensor]], left_out: int, square: Callable[[slice], Tensor], length: float, rank: int
) -> _Crossed:
    """EOFs of all blocks but one, and the autocovariances of the one, (lags, rank + 1)."""
    eofs = _eofs([p for n, block in enumerate(blocks) if n != left_out for p in block], square, length, rank)
    lags = min(_LAGS, max(len(part) for block in blocks for part in block))
    if gaps.gappy(blocks[left_out]):
        return _Crossed(eofs, gaps.autocovariances(blocks[left_out], eofs.mean, eofs.vectors, eofs.values, lags))
    sums = torch.zeros(lags, len(eofs.values) + 1, dtype=torch.float64)
    count, room = 0, max(1, len(eofs.mean) - len(eofs.values))
    for part in blocks[left_out]:
        deviations = part - eofs.mean
        coefficients = deviations @ eofs.vectors
        rest = deviations - coefficients @ eofs.vectors.T
        for lag in range(min(lags, len(part))):
            last = len(part) - lag
            sums[lag, :-1] += (coefficients[lag:].double() * coefficients[:last].double()).sum(0)
            sums[lag, -1] += float((rest[lag:] * rest[:last]).sum(dtype=torch.float64)) / room
        count += len(part)
    return _Crossed(eofs, sums / count)


def _average(crossed: Sequence[_Crossed], values: Tensor) -> Tensor:
    """Autocovariances (lags, rank + 1): the mean of the blocks, over their eigenvalues, for those of all data.

    Over neighbouring EOFs, whose ratios hardly differ, the ratios are averaged. What the EOFs leave is added to
    the eigenvalues as white noise: few states have EOFs without any variance, whose ratio would be infinite.
    """
    rank = min(len(values), *(len(c.eofs.values) for c in crossed))
    # Without the EOFs that not all blocks have: those of a large covariance are as many as its rows support.
    measured = torch.stack([torch.cat([a[:, :rank], a[:, -1:]], 1) for a in (c.autocovariances for c in crossed)]).mean(
        0
    )
    expected = torch.stack([c.eofs.values[:rank] for c in crossed]).double().mean(0)
    left = measured[0, -1].clamp_min(1e-12)
    place = torch.arange(1, rank + 1, dtype=torch.float64).log()
    weights = torch.exp(-0.5 * ((place[:, None] - place) / _WIDTH).square())
    ratios = (measured[:, :rank] / (expected + left)) @ (weights / weights.sum(1, keepdim=True)).T
    return torch.cat([ratios * (values[:rank].double() + left), measured[:, -1:]], 1)


def _kept(autocovariances: Tensor, points: int) -> int:
    """Number of EOFs that explain the fraction `_EXPLAINED` of the variance; all where they explain less."""
    variances = autocovariances[0, :-1]
    whole = variances.sum() + autocovariances[0, -1] * max(points - len(variances), 0)
    return min(int((variances.cumsum(0) < _EXPLAINED * whole).sum()) + 1, len(variances))


def _cut(autocovariances: Tensor, kept: int, points: int) -> Tensor:
    """The first EOFs, the others added to what is left."""
    resolved, last, rest = autocovariances[:, :kept], autocovariances[:, kept:-1], autocovariances[:, -1:]
    left = last.sum(1, keepdim=True) + rest * (points - kept - last.shape[1])
    return torch.cat([resolved, left / max(points - kept, 1)], 1)


def _likelihood(
    blocks: Sequence[Sequence[Tensor]], square: Callable[[slice], Tensor], length: float, window: int
) -> np.ndarray:
    """Mean log-likelihood of a value of each block given the others, of fields with white noise; (block,)."""
    points = blocks[0][0].shape[1]
    rank = min(points - 1, 200)
    crossed = [_crossed(blocks, number, square, length, rank) for number in range(len(blocks))]
    window = min(window, max(len(part) for block in blocks for part in block))
    basis, scores = cosines(window), []
    for number, block in enumerate(blocks):
        eofs, total, count = crossed[number].eofs, 0.0, 0
        average = _average([c for n, c in enumerate(crossed) if n != number], eofs.values)
        if gaps.gappy(block):
            scores.append(gaps.log_likelihood(block, eofs.mean, eofs.vectors, average[0], _NOISE))
            continue
        variances = spectrum(average, window)
        variances = variances.double() + _NOISE**2
        for part in block:
            for first in range(0, len(part) - window + 1, window):
                waves = basis @ (part[first : first + window] - eofs.mean).double()
                coefficients = waves @ eofs.vectors.double()
                rest = (waves.square().sum(1) - coefficients.square().sum(1)).clamp_min(0.0)
                total += float(
                    ((coefficients.square() + _NOISE**2) / variances[:, :-1] + variances[:, :-1].log()).sum()
                )
                free = points - rank
                total += float(((rest + free * _NOISE**2) / variances[:, -1] + free * variances[:, -1].log()).sum())
                count += window * points
        scores.append(-0.5 * total / max(count, 1))
    return np.array(scores)
