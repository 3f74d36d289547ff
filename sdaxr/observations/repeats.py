"""Measurements that several networks report: one station in two collections of stations.

A measurement is there twice where a variable has two values at one time and place, whether in one network
(`sdaxr.observations.matching`) or in two. Fields are not compared: two instruments that see the same points of a grid
are two sources of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sdaxr.observations.matching import keys_of
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.places import OBS
from sdaxr.observations.screening import DUPLICATE, Screening
from sdaxr.schema import DataError, others

# Digits to which positions are compared, of the largest: files in single precision hold seven.
_DIGITS = 6


def without_repeats(
    points: ObservedPoints, earlier: Mapping[str, ObservedPoints] | None, screening: Screening
) -> ObservedPoints:
    """The observations of a network without those that an earlier network has, too.

    Parameters
    ----------
    points
        The observations of the network.
    earlier
        Those of the networks before that are used, by network.
    screening
        Its ``duplicates`` says whether a repeated measurement is an error, is left out and counted, or is used.

    Raises
    ------
    DataError
        If a measurement is repeated, and ``screening`` has this be an error.
    """
    if screening.duplicates == "keep" or not points.count:
        return points
    for network, other in (earlier or {}).items():
        found = [_repeated(points, other, name) for name in points.where]
        bad = np.concatenate(found)
        if bad.any() and screening.duplicates == "error":
            raise DataError(
                f"{points.describe(int(bad.argmax()))}{others(int(bad.sum()) - 1)} is there at this time and place in "
                f"the network {network!r}, too; leave it out of one, or pass screening={{'duplicates': 'drop'}} "
                "to use the first, or 'keep' to use both"
            )
        points = points.reject(bad, DUPLICATE)
    return points


def _repeated(points: ObservedPoints, other: ObservedPoints, name: str) -> np.ndarray:
    """Which measurements of a variable have a time and place of another network, shape (n,)."""
    nowhere = np.zeros(len(points.where[name]), bool)
    if not all(name in p.where and OBS in p.template.variables[name].dims for p in (points, other)):
        return nowhere
    own, there = (keys_of(p.template, name, p.where[name]) for p in (points, other))
    if set(own) != set(there) or OBS in own or own.empty or there.empty:
        return nowhere
    for column in own.select_dtypes("floating"):
        largest = max(1e-300, own[column].abs().max(), there[column].abs().max())
        own[column], there[column] = ((keys[column] / largest).round(_DIGITS) for keys in (own, there))
    return np.asarray(pd.MultiIndex.from_frame(own).isin(pd.MultiIndex.from_frame(there[list(own)])))
