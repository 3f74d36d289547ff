r"""A climatology from data, with shrinkage: what a short record does not support is left out.

The mean is a regression on harmonics (`sdaxr.states.harmonics`) at each channel and grid point, by least squares over
the values that are there. The logarithm of the variance is a regression on fewer harmonics: squared anomalies have a
Gamma distribution with the logarithm as link (McCullagh & Nelder 1989, section 8), by Fisher's scoring.

Anomalies are correlated in time: three weeks of hours are some ten independent values and not 504. The variance v of a
coefficient is therefore that of the anomalies near the frequency of its harmonic (the spectral density over the length
of the record; Priestley 1981, section 6.1), measured as the mean square of the coefficients of eight frequencies beside
it, at which there is no harmonic. This holds for anomalies of any spectrum.

A harmonic with the amplitude :math:`\tau` is multiplied by the posterior mean of :math:`1 - \kappa`, with
:math:`\kappa = v / (\tau^2 + v)`, given its two coefficients. The prior of :math:`\kappa` is uniform between 0 and 1
(Strawderman 1971, doi:10.1214/aoms/1177693528) where there is one point; of a field it is learnt from all points
(empirical Bayes with a discrete prior; Efron 2014, doi:10.1214/13-STS455), with the weight of one point for the uniform
prior and that of the number of independent points for the field (Bretherton et al. 1999,
doi:10.1175/1520-0442(1999)012<1990:TENOSD>2.0.CO;2). At one point a harmonic that is all noise keeps a third of its
amplitude, and one of 20 times the variance of its noise keeps 0.87. The constant standard deviation of a point is drawn
towards that of the channel with the weight of one independent value.

References
----------
Narapusetty, DelSole & Tippett (2009), Optimal estimation of the climatological mean, doi:10.1175/2009JCLI2944.1: a
few harmonics have a smaller error than the mean of each calendar day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sdaxr.states.climatology import Climatology
from sdaxr.states.harmonics import VALUES, Harmonics, beside
from sdaxr.states.time import TimeAxis

# Steps of Fisher's scoring, the largest change of a logarithm of the variance in one of them, and its largest value.
_STEPS, _LARGEST, _MOST = 4, 2.0, 500.0
# Values of kappa at which its prior has weight (denser near 0), the uniform prior, and steps and most points of its
# learning.
_ROOTS = (np.arange(48) + 0.5) / 48
_KAPPA, _UNIFORM = _ROOTS**2, _ROOTS / _ROOTS.sum()
_LEARNING, _POINTS = 30, 5000

Read = Callable[[slice], np.ndarray]
# Functions of values (member, time, point), and of the times of these values.
_Response = Callable[[np.ndarray, slice], np.ndarray]


def estimate(read: Read, times: xr.DataArray, axis: TimeAxis, harmonics: Harmonics, *, block: int) -> Climatology:
    """The climatology of a record.

    Parameters
    ----------
    read
        Gives the values of a slice of the times, (member, time, channel, *space); NaN where there is none. It is called
        for blocks of the record, several times over.
    times, axis
        Times of the record, (n,), in order, and their axis.
    harmonics
        Harmonics of the mean (`sdaxr.states.harmonics.resolved_harmonics`).
    block
        Number of times that are read at once.
    """
    shape, record = read(slice(0, 1)).shape[2:], _Record(read, times.size, block)
    design = np.concatenate([np.ones((times.size, 1)), harmonics.columns(times)], axis=1)
    present, near, sums = record.first(design)
    level = near + sums[0] / present.clip(min=1)

    def anomalies(coefficients: np.ndarray) -> _Response:
        return lambda values, part: values - level - design[part] @ coefficients

    normal = record.normal(design, present)
    raw = normal.solve(sums - normal.sums * (level - near))
    raw[:, present < VALUES * design.shape[1]] = 0.0
    noise, places = beside([*harmonics.terms, (0, 0)], times, axis)
    beyond = _coefficients(record, noise, anomalies(raw), present)
    terms = raw[1:] * _kept(raw[1:], [beyond[at] for at in places[:-1]], present, shape[0])
    slow = beyond[places[-1]]
    # The constant is the mean of what the harmonics leave.
    left = (normal.sums[1:] * (raw[1:] - terms)).sum(0, keepdims=True) / present.clip(min=1)
    terms = np.concatenate([raw[:1] + left, terms])

    fewer = harmonics.fewer()
    at = [0] + [2 * harmonics.terms.index(term) + i for term in fewer.terms for i in (1, 2)]
    std, deviation = _deviation(
        record, anomalies(terms), present, fewer, (times, axis), shape[0], design[:, at], normal.of(at)
    )
    std = _pooled(std, slow, present, shape[0])
    land = present == 0
    mean, std = np.where(land, 0.0, level + terms[0]), np.where(land, 1.0, std)
    terms, deviation = (np.where(land, 0.0, a).astype(np.float32).reshape(-1, *shape) for a in (terms[1:], deviation))
    return Climatology(harmonics, fewer, mean.reshape(shape), std.reshape(shape), terms, deviation)


@dataclass(frozen=True)
class _Record:
    """Sums over the members and times of a record, block by block."""

    read: Read
    length: int
    block: int

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the times, and the values (member, time, point) of each."""
        for first in range(0, self.length, self.block):
            part = slice(first, min(first + self.block, self.length))
            values = self.read(part)
            values = values.reshape(*values.shape[:2], -1).astype(float)
            values[~np.isfinite(values)] = np.nan
            yield part, values

    def sums(self, columns: np.ndarray, response: _Response) -> np.ndarray:
        """Sums of columns (time, k) times a response, (k, point)."""
        total: np.ndarray | float = 0.0
        for part, values in self.parts():
            total = total + columns[part].T @ np.asarray(response(values, part), float).sum(0)
        return np.asarray(total)

    def first(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of values, means of the first block, and sums of columns (time, k) times what is above these means.

        Shapes (point,), (point,) and (k, point). A level that is near keeps the precision of sums of large numbers.
        """
        present: np.ndarray | int = 0
        sums: np.ndarray | float = 0.0
        near: np.ndarray | None = None
        for part, values in self.parts():
            seen = np.isfinite(values).sum((0, 1))
            if near is None:
                near = np.nansum(values, (0, 1)) / seen.clip(min=1)
            present, sums = present + seen, sums + columns[part].T @ np.nan_to_num(values - near).sum(0)
        return np.asarray(present), np.asarray(near), np.asarray(sums)

    def normal(self, columns: np.ndarray, present: np.ndarray) -> _NormalEquations:
        """The normal equations of a regression on columns (time, k), over the values that are there."""
        members = self.read(slice(0, 1)).shape[0]
        gappy = (present > 0) & (present < members * self.length)
        count, own = columns.shape[1], np.empty((columns.shape[1],) * 2 + (0,))
        if gappy.any():
            products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
            own = self.sums(products, lambda values, _: np.isfinite(values[..., gappy])).reshape(count, count, -1)
        return _NormalEquations(columns.T @ columns * members, own, gappy)


@dataclass(frozen=True)
class _NormalEquations:
    """Products of the columns of a regression (k, k): those of complete points, and of each point with gaps."""

    common: np.ndarray
    own: np.ndarray
    gappy: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """Sums of the columns over the values of each point, (k, point); the first column is one."""
        found = np.repeat(self.common[0][:, None], self.gappy.size, axis=1)
        found[:, self.gappy] = self.own[0]
        return found

    def of(self, places: list[int]) -> _NormalEquations:
        """The normal equations of some of the columns."""
        at = np.ix_(places, places)
        return _NormalEquations(self.common[at], self.own[at], self.gappy)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Coefficients (k, point) of least squares; those of the smallest norm where several columns are the same."""
        found = np.linalg.pinv(self.common, rcond=1e-10, hermitian=True) @ right
        if self.gappy.any():
            inverse = np.linalg.pinv(np.moveaxis(self.own, -1, 0), rcond=1e-10, hermitian=True)
            found[:, self.gappy] = np.einsum("pkl,lp->kp", inverse, right[:, self.gappy])
        return np.asarray(found)


def _coefficients(record: _Record, columns: np.ndarray, response: _Response, present: np.ndarray) -> np.ndarray:
    """Coefficients of a response at frequencies, (k, point), each by itself."""
    sums = record.sums(columns, lambda values, part: np.nan_to_num(response(values, part)))
    return np.asarray(2 * sums / present.clip(min=1))


def _kept(coefficients: np.ndarray, noise: list[np.ndarray], present: np.ndarray, channels: int) -> np.ndarray:
    """Factors between 0 and 1 on the coefficients of harmonics, (2 harmonics, point)."""
    pairs = (coefficients.reshape(-1, 2, coefficients.shape[1]) ** 2).sum(1)
    factors = np.zeros_like(pairs)
    for i, beside_it in enumerate(noise):
        # Without a frequency beside it, nothing tells a harmonic from noise.
        for at in np.split(np.arange(present.size), channels) if len(beside_it) else ():
            there = at[(present[at] > 0) & (beside_it[:, at] != 0).any(0)]
            if there.size:
                factors[i, there] = kept(pairs[i, there], beside_it[:, there])
    return np.repeat(factors, 2, axis=0)


def kept(pairs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Posterior mean of the part of a harmonic that is signal.

    Parameters
    ----------
    pairs
        Sum of the squares of the two coefficients at each point, (point,).
    noise
        Coefficients at frequencies beside the harmonic, (frequency, point); not all zero at any point.
    """
    known, variance = len(noise), (noise**2).mean(0)
    # The coefficients have the variance v / kappa, and v is known as well as from its number of values.
    likelihood = _KAPPA[:, None] * (1 + np.outer(_KAPPA, pairs / variance) / known) ** (-(known + 2) / 2)
    power = (noise**2 / variance).sum(1)
    independent = float(np.clip(2 * power.mean() ** 2 / power.var(), 1, pairs.size))
    prior, sample = _UNIFORM, likelihood[:, :: max(1, pairs.size // _POINTS)]
    for _ in range(_LEARNING):
        posterior = prior[:, None] * sample
        posterior /= posterior.sum(0)
        # The field that a point learns from is that of the others.
        prior = (_UNIFORM + (independent - 1) * posterior.mean(1)) / independent
    weight = prior[:, None] * likelihood
    return np.asarray(1 - (_KAPPA[:, None] * weight).sum(0) / weight.sum(0))


def _deviation(
    record: _Record, anomalies: _Response, present: np.ndarray, harmonics: Harmonics,
    when: tuple[xr.DataArray, TimeAxis], channels: int, design: np.ndarray, normal: _NormalEquations,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Constant standard deviation (point,), and terms of its logarithm, (2 harmonics, point)."""
    one = design[:, :1]
    square = record.sums(one, lambda values, part: np.nan_to_num(anomalies(values, part)) ** 2)[0]
    logarithm = np.zeros((design.shape[1], present.size))
    logarithm[0] = np.log((square / present.clip(min=1)).clip(min=np.finfo(float).tiny))

    def excess(values: np.ndarray, part: slice) -> np.ndarray:
        # A point that does not vary has no logarithm of its variance.
        inverse = np.exp((-design[part] @ logarithm).clip(max=_MOST))
        return np.asarray(anomalies(values, part) ** 2 * inverse - 1)

    if harmonics.terms:
        for _ in range(_STEPS):
            step = normal.solve(record.sums(design, lambda values, part: np.nan_to_num(excess(values, part))))
            logarithm += step.clip(-_LARGEST, _LARGEST)
        logarithm[1:, present < VALUES * design.shape[1]] = 0.0
        noise, places = beside(harmonics.terms, *when)
        beyond = _coefficients(record, noise, excess, present)
        logarithm[1:] *= _kept(logarithm[1:], [beyond[at] for at in places], present, channels)
    # The constant makes the mean square of the normalised anomalies one.
    left = record.sums(one, lambda values, part: np.nan_to_num(excess(values, part) + 1))[0] / present.clip(min=1)
    return np.exp(logarithm[0] / 2) * np.sqrt(left), logarithm[1:] / 2


def _pooled(std: np.ndarray, slow: np.ndarray, present: np.ndarray, channels: int) -> np.ndarray:
    """Standard deviations of points, drawn towards the root mean square of their channel.

    The number of independent values is the variance over that of the mean, half of that of a coefficient at the lowest
    frequencies (``slow``, (frequency, point)).
    """
    variance = (slow**2).mean(0) if len(slow) else np.zeros(std.size)
    count = np.where(variance > 0, 2 * std**2 / np.where(variance > 0, variance, 1.0), present).clip(1, None)
    own, count, there = (a.reshape(channels, -1) for a in (std**2, np.minimum(count, present), present > 0))
    whole = np.where(there, own, 0.0).sum(1, keepdims=True) / there.sum(1, keepdims=True).clip(min=1)
    return np.asarray(np.sqrt((count * own + whole) / (count + 1)).ravel())
