"""Duplicates: second reports of one measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.positions import good_points, keep_values, label_numbers
from sdaxr.schema import TIME, OptionError, nearest

KEEP = ("first", "last", "best")


def drop_duplicates(observations: xr.Dataset, *, keep: str = "first", good: Any = None) -> xr.Dataset:
    """Observations with one value of each variable at a time, place and source.

    Parameters
    ----------
    observations
        Point form. Times, positions, levels and sources are the same where they are equal. Values that their quality
        flags call bad are left out first.
    keep
        The value that stays: ``"first"``, ``"last"``, or ``"best"``, the one with the smallest error.
    good
        Quality flags of values that are good (`sdaxr.observations.screening.Screening`).

    Returns
    -------
    xarray.Dataset
        The attribute ``observations_duplicate`` counts the values that are left out, ``observations_flagged`` those
        whose flags are bad.

    Raises
    ------
    DataError
        If the observations do not have the point form, or no errors; if it is not known whether a flag is good.
    OptionError
        If ``keep`` is unknown.
    """
    if keep not in KEEP:
        raise OptionError(f"keep is {nearest(keep, KEEP)}")
    observations = good_points(observations, "drop_duplicates", good)
    along = {str(n): c for n, c in observations.coords.items() if c.dims == (OBS,) and n != OBS}
    places = [n for n, c in along.items() if c.dtype.kind in "fiu" or n in (TIME, "source")]
    label = label_numbers(observations, places)
    kept = {}
    for name in observed_variables(observations):
        rows = np.flatnonzero(observations[name].notnull().values)
        if keep == "last":
            rows = rows[::-1]
        if keep == "best":
            errors = observations[name + ERROR].broadcast_like(observations[name]).values[rows]
            rows = rows[np.argsort(errors, kind="stable")]
        kept[name] = np.zeros(label.size, bool)
        kept[name][rows[np.unique(label[rows], return_index=True)[1]]] = True
    return keep_values(observations, kept, "observations_duplicate")
