r"""Harmonics of the day and of the year: the basis of a climatology.

A harmonic goes through k cycles a day and n cycles a year,

.. math:: \cos(k \phi_d + n \phi_y), \quad \sin(k \phi_d + n \phi_y),

with the phases of the day and of the year. Neither is zero where the cycle of the day changes with the year.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.states.time import TimeAxis, elapsed, phase

VALUES = 3
"""Values that are needed for each coefficient of a climatology."""

_DAY = 86400.0
# Most harmonics of the day and of the year for the mean: narrower features are weather. Four to six of the day resolve
# dawn; four of the year are enough for a smooth day of year (Narapusetty et al. 2009).
_MOST_DAY, _MOST_YEAR = 6, 4
# In less than two years, every further harmonic of the year leaves no frequency beside it that measures its noise.
_MOST_FIRST_YEARS = 2
# Cycles of the day whose amplitude and phase may change with the year, and the harmonics of that change.
_CHANGING_DAY, _CHANGING_YEAR = 2, 2
# Most harmonics of either cycle for the standard deviation.
_MOST_DEVIATION = 2
# Days with data, years, and the longest part of a cycle without data, so that a cycle is covered.
_DAYS, _YEARS, _GAP = 5, 0.9, 1 / 8
# Frequencies beside a harmonic from which its noise is measured, and how far (in resolutions of the record) they keep
# from every harmonic.
_BESIDE, _APART = 8, 0.75


@dataclass(frozen=True)
class Harmonics:
    """Harmonics of the day and of the year.

    Attributes
    ----------
    terms
        Cycles a day and cycles a year (k, n) of each harmonic.
    monthly
        Whether the year is counted in calendar months, which are then equally long.
    """

    terms: tuple[tuple[int, int], ...]
    monthly: bool = False

    def __str__(self) -> str:
        day, year = (max((abs(term[i]) for term in self.terms), default=0) for i in (0, 1))
        parts = [f"{count} of the {name}" for count, name in ((day, "day"), (year, "year")) if count]
        return " and ".join(parts) or "none"

    @property
    def size(self) -> int:
        """Number of columns: two for each harmonic."""
        return 2 * len(self.terms)

    def columns(self, times: xr.DataArray) -> np.ndarray:
        """Cosine and sine of each harmonic at ``times`` (n,) of a calendar, shape (n, `size`).

        Raises
        ------
        DataError
            If the times have no calendar.
        """
        if not self.terms:
            return np.empty((times.size, 0))
        day, year = phase(times, "hour_of_day"), self._year(times)
        angles = [k * day + n * year for k, n in self.terms]
        return np.stack([f(angle) for angle in angles for f in (np.cos, np.sin)], axis=1)

    def fewer(self) -> Harmonics:
        """The lowest harmonics of each cycle, for the standard deviation."""
        kept = [(k, n) for k, n in self.terms if k * n == 0 and max(k, n) <= _MOST_DEVIATION]
        return Harmonics(tuple(kept), self.monthly)

    def to_dict(self) -> dict[str, Any]:
        """The harmonics in the types of JSON; ``Harmonics.from_dict`` reads them."""
        return {"terms": [list(term) for term in self.terms], "monthly": self.monthly}

    @classmethod
    def from_dict(cls, about: dict[str, Any]) -> Harmonics:
        """The harmonics that `to_dict` describes."""
        return cls(tuple((int(k), int(n)) for k, n in about["terms"]), bool(about["monthly"]))

    def _year(self, times: xr.DataArray) -> np.ndarray:
        if self.monthly:
            return np.asarray(2 * np.pi * (times.dt.month.values - 1) / 12)
        days = times.dt.dayofyear.values - 1 + phase(times, "hour_of_day") / (2 * np.pi)
        return np.asarray(2 * np.pi * days / times.dt.days_in_year.values)


def resolved_harmonics(times: xr.DataArray, axis: TimeAxis) -> Harmonics:
    """The harmonics of the day and of the year that ``times``, with the steps of ``axis``, resolve and cover.

    There are none where time is no calendar. The day needs steps of at most 12 hours, and data on some days; the year
    needs about a year. Of monthly steps all harmonics are taken, which is the mean of each calendar month. There are at
    least three values for each coefficient.

    Parameters
    ----------
    times
        Times of the data, (n,), in order.
    axis
        Their time axis.
    """
    if not axis.calendar:
        return Harmonics(())
    # Where months are equally long, steps of a month are regular in seconds.
    whole = axis.calendar == "360_day" and axis.step % (30 * _DAY) == 0
    months = round(axis.step / (30 * _DAY)) if whole else axis.months
    monthly = months > 0
    both = Harmonics(((1, 0), (0, 1)), monthly).columns(times)
    day_phase, year_phase = (np.arctan2(both[:, i + 1], both[:, i]) for i in (0, 2))
    year = float(times.dt.days_in_year.values.mean()) * _DAY
    length = float(elapsed(times[-1:], times.values[0])[0]) + axis.step
    day_count = year_count = 0
    if not monthly and axis.step <= _DAY / 2 * (1 + 1e-6):
        days = np.unique(np.floor(elapsed(times, times.values[0]) / _DAY)).size
        if days >= _DAYS and _covered(day_phase, axis.step / _DAY):
            day_count = min(_MOST_DAY, int(_DAY / axis.step / 2 + 1e-6))
    if length >= _YEARS * year and _covered(year_phase, axis.step / year):
        resolved = 12 // math.gcd(12, months) // 2 if monthly else min(_MOST_YEAR, int(year / axis.step / 2))
        year_count = resolved if length >= 2 * year - axis.step else min(resolved, _MOST_FIRST_YEARS)
        while times.size < VALUES * (1 + 2 * (day_count + year_count)) and year_count:
            year_count = min(year_count - 1, _MOST_FIRST_YEARS)
    terms = [(k, 0) for k in range(1, day_count + 1)] + [(0, n) for n in range(1, year_count + 1)]
    if year_count:
        # Not of the shortest cycle that is resolved: the frequency above it is that below.
        changing = range(1, min(_CHANGING_DAY, day_count - 1) + 1)
        slow = range(1, min(_CHANGING_YEAR, year_count) + 1)
        terms += [(k, sign * n) for k, n, sign in product(changing, slow, (1, -1))]
    return Harmonics(tuple(terms), monthly)


def _covered(phases: np.ndarray, step: float) -> bool:
    """Whether the phases (n,) in radians leave no part of a cycle out; ``step`` is a part of the cycle."""
    places = np.sort(np.mod(phases, 2 * np.pi)) / (2 * np.pi)
    gaps = np.diff(places, append=places[0] + 1)
    return bool(gaps.max() <= 1.1 * max(step, _GAP))


def beside(
    terms: Sequence[tuple[int, int]], times: xr.DataArray, axis: TimeAxis
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Frequencies near each harmonic at which there is no harmonic: what is found there is noise.

    Parameters
    ----------
    terms
        Harmonics (k, n); (0, 0) is the mean.
    times, axis
        Times of the data, (n,), in order, and their axis.

    Returns
    -------
    columns, places
        Cosine and sine at every frequency, (n, 2 m); and for each harmonic the numbers of its columns.
    """
    since = elapsed(times, times.values[0])
    year = float(times.dt.days_in_year.values.mean()) * _DAY
    unit = 1 / (since[-1] + axis.step)
    harmonics = np.abs([k / _DAY + n / year for k, n in terms])
    taken: list[float] = []
    places = []
    for own in harmonics:
        offsets = np.arange(1, 4 * _BESIDE + 4 * len(terms)) * unit
        nearest = np.stack([own - offsets, own + offsets], axis=1).ravel()
        inside = (nearest > _APART * unit) & (nearest < 1 / (2 * axis.step) - unit / 4)
        free = np.abs(nearest[:, None] - harmonics).min(1) > _APART * unit
        found = [round(float(f), 15) for f in nearest[inside & free][:_BESIDE]]
        taken += [f for f in found if f not in taken]
        places.append(np.array([2 * taken.index(f) + i for f in found for i in (0, 1)], int))
    angles = 2 * np.pi * np.multiply.outer(since, taken)
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(times.size, -1), places
