"""Where and when single measurements are, as numbers that distances can be taken of; and what is left of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.quality import good_values
from sdaxr.observations.screening import Screening
from sdaxr.schema import TIME, DataError, OptionError
from sdaxr.states.axes import is_latitude, is_longitude
from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.states.time import elapsed, time_kind

_log = logging.getLogger(__name__)

_KM = {"m": 1e-3, "km": 1.0, "metre": 1e-3, "meter": 1e-3, "metres": 1e-3, "meters": 1e-3}


def require_points(observations: xr.Dataset, function: str) -> None:
    """Raise `DataError` unless the observations have the point form."""
    if OBS not in observations.dims:
        raise DataError(
            f"{function}: found the dimensions {tuple(map(str, observations.dims))}, expected '{OBS}' (the point "
            "form); read the measurements with sdaxr.read_observations"
        )


def good_points(observations: xr.Dataset, function: str, good: Any = None) -> xr.Dataset:
    """Observations in the point form, without the values that their quality flags call bad.

    Parameters
    ----------
    observations
        Point form, with an error of each variable.
    function
        The function that needs them, for errors.
    good
        Flags that are good, as of `sdaxr.observations.screening.Screening`.

    Returns
    -------
    xarray.Dataset
        The attribute ``observations_flagged`` counts the values that are left out, where there are flags.

    Raises
    ------
    DataError
        If the observations do not have the point form, or no errors; if it is not known whether a flag is good.
    """
    require_points(observations, function)
    how, keep = Screening(good=good), {}
    for name in observed_variables(observations):
        if name + ERROR not in observations:
            raise DataError(f"'{name}' has no '{name}{ERROR}', expected one standard deviation of its error")
        found = good_values(observations, name, how.good_of(name))
        if found is not None:
            keep[name] = found.broadcast_like(observations[name]).values
    return keep_values(observations, keep, "observations_flagged") if keep else observations


def positions_in_km(observations: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Positions in km, and whether they are on the sphere.

    On the sphere they have the shape (n, 3), and their straight distances are chords (`chord_of`); in a plane (n, k).

    Raises
    ------
    DataError
        If there are neither latitudes and longitudes, nor ``y`` and ``x`` in m or km.
    """
    along = {str(n): c for n, c in observations.coords.items() if c.dims == (OBS,)}
    lat, lon = (next((n for n, c in along.items() if rule(n, c.attrs)), None) for rule in (is_latitude, is_longitude))
    if lat is not None and lon is not None:
        phi, lam = (np.deg2rad(along[n].values.astype(float)) for n in (lat, lon))
        on_unit_sphere = [np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)]
        return EARTH_RADIUS / 1e3 * np.stack(on_unit_sphere, 1), True
    flat = [along[n] for n in ("y", "x") if n in along]
    if flat and all(c.attrs.get("units") in _KM for c in flat):
        return np.stack([c.values * _KM[c.attrs["units"]] for c in flat], 1), False
    raise DataError(
        f"found the coordinates {list(along)} along '{OBS}', expected latitudes and longitudes, or 'y' and 'x' in m or "
        "km; rename them, or set their units"
    )


def chord_of(km: float) -> float:
    """Straight distance, in km, of two points at a distance ``km`` along the surface of the Earth."""
    radius = EARTH_RADIUS / 1e3
    return float(2 * radius * np.sin(min(km / radius, np.pi) / 2))


def times_as_numbers(observations: xr.Dataset) -> np.ndarray:
    """Times since the first one, shape (n,): seconds, or model time."""
    times = observations[TIME]
    return elapsed(times, times.values.min())


def duration(per: Any, observations: xr.Dataset, name: str) -> float:
    """A duration in the unit of `times_as_numbers`: a text such as ``"1h"``, a timedelta, or a number of model time.

    Raises
    ------
    OptionError
        If it is none, or not positive.
    """
    import pandas as pd

    number = isinstance(per, int | float) and not isinstance(per, bool)
    try:
        value = float(per) if number else pd.Timedelta(per) / pd.Timedelta(1, "s")
    except (TypeError, ValueError) as error:
        raise OptionError(f"found {name}={per!r}, expected a duration such as '1h' ({error})") from error
    if number != (time_kind(observations[TIME]) == "float") or not value > 0:
        model = time_kind(observations[TIME]) == "float"
        expected = "a positive number of model time" if model else "a duration such as '1h', above 0"
        raise OptionError(f"found {name}={per!r}, expected {expected}, as the times of the observations are")
    return value


def label_numbers(observations: xr.Dataset, names: list[str]) -> np.ndarray:
    """A number for each combination of these labels, shape (n,); the labels of a number are the same."""
    import pandas as pd

    frame = pd.DataFrame({n: observations[n].values for n in names}, index=range(observations.sizes[OBS]))
    if not names:
        return np.zeros(len(frame), int)
    return np.asarray(frame.groupby(names, sort=False, dropna=False).ngroup())


def keep_values(observations: xr.Dataset, keep: Mapping[str, np.ndarray], counted_as: str) -> xr.Dataset:
    """Observations with these values of each variable, without the rows that have none.

    Parameters
    ----------
    observations
        Point form.
    keep
        Which values stay, shape (n,), by variable.
    counted_as
        Attribute that counts the values that are left out, added to what it counts already.
    """
    out, lost = observations.copy(), 0
    for name, mask in keep.items():
        lost += int((out[name].notnull().values & ~mask).sum())
        for each in (name, name + ERROR):
            if out[each].dims == (OBS,):
                out[each] = out[each].where(xr.DataArray(mask, dims=OBS))
    there = np.logical_or.reduce([out[n].notnull().values for n in observed_variables(out)])
    _log.info("%s: %d values", counted_as.replace("_", " "), lost)
    return out.isel({OBS: there}).assign_attrs({counted_as: int(observations.attrs.get(counted_as, 0)) + lost})
