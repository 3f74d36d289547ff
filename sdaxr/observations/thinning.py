"""Thinning: of observations close to each other, one stays.

Dense observations have errors that are correlated, and are used as if they had none; thinning leaves out what is too
close (Järvinen and Undén 1997, ECMWF Technical Memorandum 238).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.positions import (
    chord_of,
    duration,
    good_points,
    keep_values,
    positions_in_km,
    times_as_numbers,
)


def thin(observations: xr.Dataset, *, km: float, per: Any = None, good: Any = None) -> xr.Dataset:
    """Observations of which no two are closer to each other than a distance.

    The observations with the smallest errors stay; of equal ones the first. Each variable is thinned by itself.

    Parameters
    ----------
    observations
        Point form. Values that their quality flags call bad are left out first.
    km
        Smallest distance along the surface of the Earth, or in the plane of ``y`` and ``x``, in km.
    per
        Smallest difference of the times of two observations that are closer than ``km``, such as ``"1h"``; a number
        where time is model time. None: observations of different times are not compared.
    good
        Quality flags of values that are good (`sdaxr.observations.screening.Screening`).

    Returns
    -------
    xarray.Dataset
        The attribute ``observations_thinned`` counts the values that are left out, ``observations_flagged`` those whose
        flags are bad.

    Raises
    ------
    DataError
        If the observations do not have the point form, or no errors, or their positions are no distances; if it is not
        known whether a flag is good.
    OptionError
        If ``km`` or ``per`` is not positive.
    """
    observations = good_points(observations, "thin", good)
    schema.check_positive("km", km, " of km")
    places, on_sphere = positions_in_km(observations)
    places = places / (chord_of(float(km)) if on_sphere else float(km))
    times = times_as_numbers(observations)
    # In the units of the search, whatever is not to be compared is further apart than 1.
    lag = np.unique(times, return_inverse=True)[1] * 2.0 if per is None else times / duration(per, observations, "per")
    keep = {name: _apart(observations, name, places, lag) for name in observed_variables(observations)}
    return keep_values(observations, keep, "observations_thinned")


def _apart(observations: xr.Dataset, name: str, places: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Which values stay, shape (n,): each one is kept, in the order of the errors, unless a kept one is close."""
    from scipy.spatial import cKDTree

    rows = np.flatnonzero(observations[name].notnull().values)
    errors = observations[name + ERROR].broadcast_like(observations[name]).values[rows]
    rows = rows[np.argsort(errors, kind="stable")]
    # A ball in space and time around the box of both: what is in the ball and not in the box is sorted out below.
    points = np.column_stack([places, lag])[rows]
    tree, free, kept = cKDTree(points), np.ones(rows.size, bool), np.zeros(observations.sizes[OBS], bool)
    for i in range(rows.size):
        if not free[i]:
            continue
        kept[rows[i]] = True
        near = np.array(tree.query_ball_point(points[i], np.sqrt(2.0)), int)
        apart = points[near] - points[i]
        free[near[(np.square(apart[:, :-1]).sum(1) < 1) & (np.abs(apart[:, -1]) < 1)]] = False
    return kept
