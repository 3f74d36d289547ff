"""Measurements at scattered places and times, as fields at the times of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.places import OBS
from sdaxr.schema import TIME, DataError
from sdaxr.states.time import elapsed


def is_point_form(data: xr.Dataset) -> bool:
    """Whether ``data`` are measurements along ``obs``, each with a time of its own."""
    return OBS in data.dims and TIME in data.coords and data[TIME].dims == (OBS,)


def own_times(data: xr.Dataset, times: int | Sequence[Any] | None) -> xr.DataArray:
    """Times at which measurements that are drawn alone are gathered, shape (time,).

    All times of the measurements, or as many as ``times`` says, spread evenly over the period.
    """
    unique = np.unique(data[TIME].values)
    if not unique.size:
        raise DataError("found no measurement, expected one at least to plot")
    if isinstance(times, int | np.integer) and unique.size > times:
        unique = unique[np.unique(np.linspace(0, unique.size - 1, int(times)).round().astype(int))]
    return xr.DataArray(unique, dims=TIME, name=TIME, attrs=data[TIME].attrs)


def at_times(data: xr.Dataset, stamps: xr.DataArray, reach: float = np.inf) -> xr.Dataset:
    """Measurements on (time, obs), each at the nearest of ``stamps``, NaN at the others.

    Parameters
    ----------
    data
        Measurements in point form.
    stamps
        Times, rising.
    reach
        Largest distance in time from a measurement to its stamp, in steps of ``stamps``.
    """
    stamps = stamps.rename({stamps.dims[0]: TIME}).reset_coords(drop=True)
    wanted, found = elapsed(stamps, stamps.values[0]), elapsed(data[TIME], stamps.values[0])
    above = np.searchsorted(wanted, found).clip(1, max(wanted.size - 1, 1))
    lower, upper = wanted[above - 1], wanted[np.minimum(above, wanted.size - 1)]
    index = np.minimum(np.where(found - lower <= upper - found, above - 1, above), wanted.size - 1)
    step = np.diff(wanted).min() if wanted.size > 1 else np.inf
    near = np.abs(found - wanted[index]) <= reach * step if np.isfinite(reach) else np.full(found.shape, True)
    here = xr.DataArray((np.arange(wanted.size)[:, None] == index) & near, dims=(TIME, OBS))
    measured = [name for name, v in data.data_vars.items() if v.dims == (OBS,) and v.dtype.kind in "fiu"]
    spread = {name: data[name].drop_vars(TIME).where(here).transpose(TIME, OBS) for name in measured}
    for name, values in spread.items():
        values.attrs = data[name].attrs
    # What the drawing looks up by its attributes stays along the measurements.
    return xr.Dataset(spread, attrs=data.attrs).assign_coords({TIME: (TIME, stamps.values, stamps.attrs)})
