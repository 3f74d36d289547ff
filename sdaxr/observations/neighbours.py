"""Buddy check: observations that do not fit their neighbours, by titanlib (https://github.com/metno/titanlib)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.matching import observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.positions import good_points, keep_values
from sdaxr.schema import TIME, DataError, OptionError
from sdaxr.states.axes import is_latitude, is_longitude

_ELEVATIONS = ("elevation", "elev", "station_elevation", "stationElevation")


def buddy_check(
    observations: xr.Dataset,
    *,
    km: float,
    neighbours: int = 5,
    threshold: float = 2.0,
    least: float = 1.0,
    iterations: int = 2,
    height: float = 0.0,
    gradient: float = 0.0,
    good: Any = None,
) -> xr.Dataset:
    """Observations without those that differ from the mean of their neighbours by too many standard deviations.

    A value fails where it differs from the mean of its neighbours at the same time by more than ``threshold`` of their
    standard deviations (Båserud et al. 2020, doi:10.5194/asr-17-153-2020). Needs titanlib,
    ``pip install 'sdaxr[quality]'``.

    Parameters
    ----------
    observations
        Point form on latitudes and longitudes. Values that their quality flags call bad are left out first.
    km
        Radius in which neighbours lie, in km.
    neighbours
        Number of neighbours that a value needs; with fewer, it is not checked.
    threshold
        Number of standard deviations c.
    least
        Smallest standard deviation of the neighbours, in the units of the variable.
    iterations
        Number of passes; a value that failed is no neighbour in the next one.
    height
        Largest difference in height of two neighbours, in m; 0: heights are not compared. Heights are the coordinate
        ``elevation``.
    gradient
        Change of the variable with height, in its units per m, such as -0.0065 for temperatures.
    good
        Quality flags of values that are good (`sdaxr.observations.screening.Screening`).

    Returns
    -------
    xarray.Dataset
        The attribute ``observations_failed_buddy_check`` counts the values that are left out,
        ``observations_flagged`` those whose flags are bad.

    Raises
    ------
    DataError
        If there are no latitudes and longitudes, no errors, or no heights where they are compared; if it is not known
        whether a flag is good.
    OptionError
        If an option is impossible, or titanlib is not installed.
    """
    observations = good_points(observations, "buddy_check", good)
    for name, value in (("km", km), ("threshold", threshold), ("least", least)):
        schema.check_positive(name, value)
    for name, number in (("neighbours", neighbours), ("iterations", iterations)):
        schema.check_least(name, number, 1)
    titanlib = _titanlib()
    lat, lon = (_coordinate(observations, rule) for rule in (is_latitude, is_longitude))
    elevation = _heights(observations, height)
    options = (threshold, height, gradient, least, iterations)
    step = np.unique(observations[TIME].values, return_inverse=True)[1]
    keep = {}
    for name in observed_variables(observations):
        values, passed = observations[name].values.astype(float), np.ones(step.size, bool)
        rows = np.flatnonzero(np.isfinite(values))
        rows = rows[np.argsort(step[rows], kind="stable")]
        for at in np.split(rows, np.flatnonzero(np.diff(step[rows])) + 1):
            if at.size > neighbours:
                points = titanlib.Points(lat[at], lon[at], elevation[at], np.zeros(at.size))
                each = ([km * 1e3] * at.size, [neighbours] * at.size)
                passed[at] = np.asarray(titanlib.buddy_check(points, values[at], *each, *options)) == 0
        keep[name] = passed
    return keep_values(observations, keep, "observations_failed_buddy_check")


def _titanlib() -> Any:
    if importlib.util.find_spec("titanlib") is None:
        raise OptionError("the buddy check needs titanlib, which is not installed; pip install 'sdaxr[quality]'")
    return importlib.import_module("titanlib")


def _coordinate(observations: xr.Dataset, rule: Any) -> np.ndarray:
    for name, coord in observations.coords.items():
        if coord.dims == (OBS,) and rule(name, coord.attrs):
            return np.asarray(coord.values, float)
    raise DataError(f"found the coordinates {list(map(str, observations.coords))}, expected latitudes and longitudes")


def _heights(observations: xr.Dataset, height: float) -> np.ndarray:
    found = next((n for n in _ELEVATIONS if n in observations.coords), None)
    if height <= 0:
        return np.zeros(observations.sizes[OBS])
    heights = None if found is None else observations[found].values.astype(float)
    if heights is None or not np.isfinite(heights).all():
        raise DataError(
            f"height={height} needs the coordinate 'elevation' without gaps, found {found}; leave height out"
        )
    return heights
