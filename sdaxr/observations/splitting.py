"""Observations that are withheld from the assimilation, to verify it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.places import OBS
from sdaxr.observations.positions import label_numbers
from sdaxr.schema import DataError, OptionError
from sdaxr.states.axes import is_latitude, is_longitude

_STATION = "station"


def split(
    observations: xr.Dataset, fraction: float, *, by: str = "station", seed: int = 0
) -> tuple[xr.Dataset, xr.Dataset]:
    """Observations to assimilate, and observations that are withheld.

    All observations of a withheld station are withheld: its other observations, whose errors are alike, would tell too
    much.

    Parameters
    ----------
    observations
        Grid or point form.
    fraction
        Fraction of the stations that are withheld, between 0 and 1; at least one is withheld, and one is not.
    by
        Coordinate whose entries are withheld as a whole. Where there is no ``station``, the places of the point form
        are the stations; ``"obs"`` withholds single measurements.
    seed
        Seed of the choice.

    Returns
    -------
    (xarray.Dataset, xarray.Dataset)
        Assimilated and withheld.

    Raises
    ------
    DataError
        If there is no such coordinate, or a single entry.
    OptionError
        If ``fraction`` or ``seed`` is impossible.
    """
    if not 0 < fraction < 1:
        raise OptionError(f"fraction is {fraction}, expected a number between 0 and 1")
    schema.check_least("seed", seed, 0)
    dim, groups = _groups(observations, by)
    count = groups.max(initial=0) + 1
    if count < 2:
        raise DataError(f"found {count} entry of '{by}', expected at least two, one of them to withhold")
    number = min(max(1, round(fraction * count)), count - 1)
    chosen = np.random.default_rng(seed).choice(count, number, replace=False)
    withheld = np.isin(groups, chosen)
    return observations.isel({dim: ~withheld}), observations.isel({dim: withheld})


def _groups(observations: xr.Dataset, by: str) -> tuple[str, np.ndarray]:
    """The dimension that is split, and the number of the entry of each of its points."""
    if by in observations.dims:
        return by, np.arange(observations.sizes[by])
    if by in observations.coords and observations[by].ndim == 1:
        return str(observations[by].dims[0]), np.unique(observations[by].values.astype(str), return_inverse=True)[1]
    coords = {str(n): c for n, c in observations.coords.items() if c.dims == (OBS,)}
    places = [n for n, c in coords.items() if n in ("y", "x") or is_latitude(n, c.attrs) or is_longitude(n, c.attrs)]
    if by == _STATION and places:
        return OBS, label_numbers(observations, places)
    raise DataError(
        f"found the coordinates {list(map(str, observations.coords))}, expected '{by}'; pass by= one of them, or "
        "by='obs' for single measurements"
    )
