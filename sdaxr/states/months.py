"""Times that are regular in the months of their calendar: months, seasons, years.

A time is a month and a place in it. Times are regular where their months are equally spaced and their places are the
same: counted from the beginning of the month, from its end, as a fraction of it (the middle of each month), or from the
middle of it in whole days, rounded down or up. Where the places are not the same, as those of the mean time of some
measurements, a time is its month, and the label of the month is its middle in whole days.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

ANYWHERE = "anywhere"
ANCHORS = ("beginning", "end", "fraction", "day_before_middle", "day_after_middle", ANYWHERE)
_DAY = 86400.0
# Seconds by which the places of two times in their months may differ: what rounding of days as float32 leaves.
_SLACK = 60.0


def months_of(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Months since year 0, seconds since the beginning of the month, and seconds in the month; shape (n,) each.

    Parameters
    ----------
    times
        Of type datetime64 or cftime, shape (n,).
    """
    if times.dtype.kind == "M":
        month = times.astype("datetime64[M]")
        begin = month.astype(times.dtype)
        length = (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
        return month.astype(int) + 1970 * 12, (times - begin) / np.timedelta64(1, "s"), length / np.timedelta64(1, "s")
    index = np.array([t.year * 12 + t.month - 1 for t in times])
    place = np.array([(t - _begin_of(t)).total_seconds() for t in times])
    return index, place, np.array([86400.0 * t.daysinmonth for t in times])


def months_between(times: np.ndarray) -> tuple[np.ndarray, str]:
    """Months from each time to the next, shape (n - 1,), and the anchor, the first that holds for all times."""
    index, place, length = months_of(times)
    for anchor in ANCHORS[:-1]:
        measured = place / length * 30 * _DAY if anchor == "fraction" else place - _origin_of(anchor, length)
        if np.ptp(measured) <= _SLACK:
            return np.diff(index), anchor
    return np.diff(index), ANYWHERE


def months_after(start: Any, months: np.ndarray, anchor: str) -> np.ndarray:
    """Times some months after ``start``, at the same place in their month; shape of ``months``.

    Parameters
    ----------
    start
        A datetime64 or cftime.
    months
        Whole numbers, shape (n,).
    anchor
        One of `ANCHORS`.
    """
    index, place, length = months_of(np.atleast_1d(np.asarray(start)))
    wanted = index[0] + np.asarray(months, int)
    begin = _begins(start, wanted)
    there = months_of(begin)[2]
    if anchor == ANYWHERE:
        place = _origin_of("day_before_middle", there)
    elif anchor == "fraction":
        place = there * (place / length)
    else:
        place = _origin_of(anchor, there) + (place - _origin_of(anchor, length))
    seconds = np.broadcast_to(place, wanted.shape)
    if begin.dtype.kind == "M":
        # To the microsecond: a fraction of a month is no whole number of nanoseconds.
        return np.asarray(begin + (seconds * 1e6).round().astype("timedelta64[us]"))
    return np.array([b + datetime.timedelta(seconds=float(s)) for b, s in zip(begin, seconds, strict=True)], object)


def month_labels(times: np.ndarray) -> np.ndarray:
    """The labels of the months of ``times``, which lie anywhere in the months; shape (n,) each, n at least 1."""
    months = months_of(times)[0]
    return months_after(times[0], months - months[0], ANYWHERE)


def _origin_of(anchor: str, length: np.ndarray) -> np.ndarray:
    """From where the place in a month is counted, in seconds from its beginning, for months of some lengths."""
    if anchor in ("beginning", "end"):
        return np.asarray(length * (anchor == "end"), float)
    rounded = np.floor if anchor == "day_before_middle" else np.ceil
    return np.asarray(rounded(length / 2 / _DAY) * _DAY)


def _begins(start: Any, index: np.ndarray) -> np.ndarray:
    """The beginnings of months, in the type of ``start``."""
    if isinstance(start, np.datetime64):
        return (index - 1970 * 12).astype("datetime64[M]").astype(start.dtype)
    year, month = np.divmod(index, 12)
    first = _begin_of(start)
    return np.array([first.replace(year=int(y), month=int(m) + 1) for y, m in zip(year, month, strict=True)], object)


def _begin_of(time: Any) -> Any:
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
