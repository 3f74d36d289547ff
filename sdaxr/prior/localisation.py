r"""Localised covariances of fields, and what of them holds beyond the training data.

A few weeks of fields give far fewer samples than there are covariances. Those of distant points are mostly noise, and
are tapered with the distance d (Hamill et al. 2001, doi:10.1175/1520-0493(2001)129<2776:DDFOBE>2.0.CO;2),

.. math:: B_{ij} = C_{ij} \exp(-d_{ij}^2 / 2 D^2) ,

whose leading eigenvectors are the EOFs. The eigenvalues of a sampled covariance are biased, the large ones upwards and
the small ones downwards. The variances of the coefficients, by frequency, are therefore measured on data that did not
give the EOFs: on each of a few blocks of time in turn, around the mean of the others (cross-validated eigenvalues;
Bartz 2016, arXiv:1611.00798). The taper's length D is the one for which the blocks are most likely.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior import gaps
from sdaxr.prior.decomposition import EofsOfStates, Squares, eofs_of, squares
from sdaxr.prior.eofs import LEAST, Eofs
from sdaxr.prior.modes import cosines
from sdaxr.schema import DataError
from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import areas, channel_positions

_log = logging.getLogger(__name__)

# Blocks of time, of which each is left out once.
_BLOCKS = 6
# Points on which the taper's length is chosen, and lengths as fractions of the largest distance. None: no taper.
_POINTS, _LENGTHS = 600, (0.06, 0.09, 0.13, 0.18, 0.24, 0.31, 0.4, 0.5, 0.6, 0.75, 1.0)
# The likelihood is that of fields with this much white noise, in standard deviations. Then large scales decide, which
# sparse observations see, and not the many small ones.
_NOISE = 2.0
# The EOFs stop where they explain this fraction of the variance, or at this rank.
_EXPLAINED, _RANK = 0.999, 600
# Numbers of the EOFs that are kept in a file, in half precision 14 MB.
_NUMBERS = 7_000_000
# Longest series whose cosines are measured, in states.
_LONGEST = 128
# Fraction of the values that are missing above which EOFs are measured again, on filled states, so many times.
_GAPS, _ROUNDS = 0.01, 3
# Windows of a block overlap: each begins so many parts of its length after the last one.
_OVERLAP = 4
# Width of the average over neighbouring EOFs, in the logarithm of their number.
_WIDTH = 0.3


@dataclass(frozen=True)
class Localised:
    """EOFs of a localised covariance.

    Attributes
    ----------
    vectors
        EOFs as columns, shape (point, rank).
    variances
        Of cosines in time times EOFs, shape (length, rank + 1); the last column is that of each direction that the EOFs
        leave.
    about
        What was chosen and measured: length of the taper, explained fraction, log-likelihood by length.
    """

    vectors: Tensor
    variances: Tensor
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
        modes.variances.copy_(self.found.variances)
        if self.mask is not None:
            modes.present.copy_(torch.as_tensor(self.mask))


def measured_eofs(
    series: Iterable[Tensor], layout: StateLayout, *, window: int, taper: float | None = None
) -> MeasuredEofs:
    """EOFs of states (time, channel, *space) of a layout; see `localised`.

    Where many values are missing, gaps are filled with draws of the process that was found with the mean in the gaps,
    the EOFs are measured again, and so on (stochastic EM; `sdaxr.prior.gaps`).
    """
    everywhere, unit = channel_positions(layout)
    kept = np.ones(len(everywhere), bool) if layout.mask is None else layout.mask.ravel()
    parts = list(series)

    def present(states: Iterable[Tensor]) -> list[Tensor]:
        flat = (part.flatten(1) for part in states)
        return list(flat) if layout.mask is None else [part[:, torch.as_tensor(kept)] for part in flat]

    cells = areas(layout)
    weights = None if cells is None else np.tile(cells.ravel(), layout.channels)[kept]
    options: dict[str, Any] = {"window": window, "taper": taper, "weights": weights}
    states = present(parts)
    found = localised(states, everywhere[kept], **options)
    for _ in range(_ROUNDS if gaps.missing(states) > _GAPS else 0):
        modes = Eofs(layout.channels, layout.shape, found.vectors.shape[1], len(found.variances))
        MeasuredEofs(found, layout.mask, {}).into(modes)
        found = localised(present(gaps.filled(part, modes) for part in parts), everywhere[kept], **options)
    about = {**found.about, "length": len(found.variances), "taper_units": unit, "by_area": cells is not None}
    return MeasuredEofs(found, layout.mask, about)


def localised(
    series: Sequence[Tensor], places: np.ndarray, *, window: int, taper: float | None = None,
    weights: np.ndarray | None = None,
) -> Localised:  # fmt: skip
    """EOFs and their variances by frequency from series of states.

    Parameters
    ----------
    series
        Normalised states of consecutive times, each (time, point), NaN where a value is missing.
    places
        Positions of the points, (point, n), whose Euclidean distances the taper takes.
    window
        Length of the series whose cosines are measured, in states; of long records they are longer.
    taper
        Length D, in the units of the positions. None: the most likely of a few lengths.
    weights
        Areas of the points, (point,), positive. None: all alike.

    Raises
    ------
    DataError
        If there are too few states to leave any out.
    """
    blocks = _blocks(series)
    length = _length(blocks, window)
    span = float(np.ptp(places, axis=0).max()) or 1.0
    candidates = [share * span for share in _LENGTHS] if taper is None else [taper]
    scores: dict[float, np.ndarray] = {}
    if len(candidates) > 1:
        chosen = _subset(places, weights)
        subset = [[part[:, chosen] for part in block] for block in blocks]
        near = squares(places[chosen.numpy()])
        scores = {taper: _likelihood(subset, near, taper, length) for taper in candidates}
    best = _chosen(scores) if scores else candidates[0]
    rank = max(1, min(_RANK, len(places) - 1, _NUMBERS // len(places)))
    square = squares(places)
    area = None if weights is None else torch.as_tensor(weights / weights.mean(), dtype=torch.float32)
    whole = eofs_of([part for block in blocks for part in block], square, best, rank, area)
    crossed = [_crossed(blocks, number, square, best, rank, length, area) for number in range(len(blocks))]
    variances = _average(crossed, whole.values)
    shares = _shares(whole.vectors[:, : variances.shape[1] - 1], area)
    kept = _kept(variances, shares, len(places))
    found = _cut(variances, kept, shares, len(places))
    explained = _explained(found.mean(0), shares[:kept], len(places))
    about = {
        "taper": round(best, 4), "rank": kept, "explained": round(explained, 5),
        "log_likelihood": {f"{taper:.4g}": round(float(score.mean()), 5) for taper, score in scores.items()},
    }  # fmt: skip
    _log.info("EOFs: taper %.4g, %d of them explain %.4f of the variance", best, kept, explained)
    return Localised(whole.vectors[:, :kept].float(), found.float(), about)


@dataclass(frozen=True)
class _Crossed:
    """EOFs of all blocks but one, and their variances in the one, (length, rank + 1), from so many windows."""

    eofs: EofsOfStates
    variances: Tensor
    windows: int


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


def _subset(places: np.ndarray, weights: np.ndarray | None) -> Tensor:
    """Points, drawn in proportion to their areas."""
    count, chance = min(_POINTS, len(places)), None if weights is None else weights / weights.sum()
    return torch.as_tensor(np.sort(np.random.default_rng(0).choice(len(places), count, replace=False, p=chance)))


def _chosen(scores: dict[float, np.ndarray]) -> float:
    """The longest taper whose likelihood is not below the largest by more than the standard error of the blocks."""
    best = scores[max(scores, key=lambda length: float(scores[length].mean()))]
    behind = {length: best - score for length, score in scores.items()}
    error = {length: float(d.std(ddof=1)) / len(d) ** 0.5 for length, d in behind.items()}
    return max(length for length, d in behind.items() if float(d.mean()) <= error[length])


def _length(blocks: Sequence[Sequence[Tensor]], window: int) -> int:
    """Number of states of the series whose cosines are measured: a window or, where blocks are long, half a block.

    Where gaps cut the blocks, the series are so short that half of the states are in stretches of this length.
    """
    parts = sorted((len(part) for block in blocks for part in block), reverse=True)
    half = parts[int((np.cumsum(parts) < sum(parts) / 2).sum())]
    return max(1, min(_LONGEST, max(window, half // 2), half))


def _crossed(
    blocks: Sequence[Sequence[Tensor]], left_out: int, square: Squares, taper: float, rank: int,
    length: int, area: Tensor | None = None,
) -> _Crossed:  # fmt: skip
    """EOFs of all blocks but one, and the variances of cosines times EOFs in the windows of the one."""
    eofs = eofs_of([p for n, block in enumerate(blocks) if n != left_out for p in block], square, taper, rank, area)
    basis = cosines(length)
    found = torch.zeros(length, len(eofs.values) + 1, dtype=torch.float64)
    count, room = 0, _room(eofs, area)
    for part in blocks[left_out]:
        deviations = part - eofs.mean
        # What is missing is as small as the mean is; the variance of what is there makes up for it.
        deviations = deviations.nan_to_num(0.0) / deviations.isfinite().float().mean().sqrt()
        coefficients = deviations @ eofs.vectors
        rest = deviations - coefficients @ eofs.vectors.T
        for first in range(0, len(part) - length + 1, max(1, length // _OVERLAP)):
            window = slice(first, first + length)
            found[:, :-1] += (basis @ coefficients[window].double()).square()
            squared = (basis.float() @ rest[window]).square()
            squared = squared if area is None else squared * area
            found[:, -1] += squared.sum(1, dtype=torch.float64) / room
            count += 1
    return _Crossed(eofs, found / max(count, 1), count)


def _average(crossed: Sequence[_Crossed], values: Tensor) -> Tensor:
    """Variances (length, rank + 1): the mean of the blocks, over their eigenvalues, for those of all data.

    Over neighbouring EOFs, whose ratios hardly differ, the ratios are averaged. What the EOFs leave is added to
    the eigenvalues as white noise: few states have EOFs without any variance, whose ratio would be infinite.
    """
    rank = min(len(values), *(len(c.eofs.values) for c in crossed))
    # Without the EOFs that not all blocks have: those of a large covariance are as many as its rows support.
    seen = [torch.cat([c.variances[:, :rank], c.variances[:, -1:]], 1) * c.windows for c in crossed]
    measured = torch.stack(seen).sum(0) / sum(c.windows for c in crossed)
    expected = torch.stack([c.eofs.values[:rank] for c in crossed]).double().mean(0)
    left = measured[:, -1].mean().clamp_min(1e-12)
    place = torch.arange(1, rank + 1, dtype=torch.float64).log()
    weights = torch.exp(-0.5 * ((place[:, None] - place) / _WIDTH).square())
    ratios = (measured[:, :rank] / (expected + left)) @ (weights / weights.sum(1, keepdim=True)).T
    return torch.cat([ratios * (values[:rank].double() + left), measured[:, -1:]], 1).clamp_min(1e-12)


def _shares(vectors: Tensor, area: Tensor | None) -> Tensor:
    """Mean area of the points of each EOF, (rank,): what its variance counts for."""
    return torch.ones(vectors.shape[1]) if area is None else area @ vectors.square()


def _room(eofs: EofsOfStates, area: Tensor | None) -> float:
    """Area that EOFs leave: the number of directions where all points count alike."""
    left = len(eofs.mean) - float(_shares(eofs.vectors, area).sum())
    return max(left, 1.0 if area is None else float(area.min()))


def _explained(variances: Tensor, shares: Tensor, points: int) -> float:
    """Fraction of the variance, by area, of EOFs with the variances (rank + 1,)."""
    resolved = (variances[:-1] * shares).sum()
    return float(resolved / (resolved + variances[-1] * (points - shares.sum()).clamp_min(0.0)))


def _kept(variances: Tensor, shares: Tensor, points: int) -> int:
    """Number of EOFs that explain the fraction `_EXPLAINED` of the variance; all where they explain less."""
    by_mode = variances.mean(0)
    resolved = by_mode[:-1] * shares
    whole = resolved.sum() + by_mode[-1] * (points - shares.sum()).clamp_min(0.0)
    return min(int((resolved.cumsum(0) < _EXPLAINED * whole).sum()) + 1, len(resolved))


def _cut(variances: Tensor, kept: int, shares: Tensor, points: int) -> Tensor:
    """The first EOFs, the others added to what is left."""
    resolved, last, rest = variances[:, :kept], variances[:, kept:-1], variances[:, -1:]
    left = (last * shares[kept:]).sum(1, keepdim=True) + rest * (points - shares.sum())
    return torch.cat([resolved, left / (points - shares[:kept].sum()).clamp_min(shares.min())], 1)


def _likelihood(blocks: Sequence[Sequence[Tensor]], square: Squares, taper: float, length: int) -> np.ndarray:
    """Mean log-likelihood of a value of each block given the others, of fields with white noise; (block,).

    A block without a window has that of all others.
    """
    points = blocks[0][0].shape[1]
    rank = min(points - 1, 200)
    crossed = [_crossed(blocks, number, square, taper, rank, length) for number in range(len(blocks))]
    scores = []
    for number, seen in enumerate(crossed):
        others = [c for n, c in enumerate(crossed) if n != number]
        variances = _average(others, seen.eofs.values) + _NOISE**2
        weights = torch.cat([torch.ones(rank), torch.tensor([points - rank])]).double()
        deviance = (seen.variances + _NOISE**2) / variances + variances.log()
        scores.append(float(-0.5 * (deviance * weights).sum() / (length * points)) if seen.windows else np.nan)
    found = np.array(scores)
    return np.where(np.isnan(found), np.nanmean(found), found)
