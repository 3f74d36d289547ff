"""An estimate and the truth on common variables, times and points.

Times and points are matched by their labels. Nothing is interpolated, no unit is converted: what differs is an error.
Dask arrays stay lazy; only coordinates are read.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr

from sdaxr.schema import INIT_TIME, LEAD_TIME, TIME, VALID_TIME, DataError, GridError, check_units
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.coordinates import coordinate_of, onto_grid
from sdaxr.states.time import match_times

_TIME_DIMS = (TIME, LEAD_TIME, INIT_TIME)


def align(data: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """``data`` and ``truth`` at their common variables and times, in the order of the points of ``data``.

    Parameters
    ----------
    data
        An estimate ``([member], time, ...)`` or a forecast ``([member], lead_time, ...)`` whose
        ``valid_time`` (or ``init_time + lead_time``) says which truth belongs to it.
    truth
        ``(time, ...)``, with a trajectory dimension of size 1 at most, on the points of ``data`` in any order:
        latitudes may run the other way, longitudes may be counted from elsewhere.

    Returns
    -------
    (xarray.Dataset, xarray.Dataset)
        Both with the coordinates of ``data``; the truth has the dimensions of ``data`` less the member.

    Raises
    ------
    DataError
        No variable or no time in common, or several trajectories in ``truth``.
    GridError
        Dimensions or points differ.
    UnitsError
        A variable, or time, has other units in ``data`` than in ``truth``.
    """
    truth = single(truth)
    data, truth = _common_variables(data, truth)
    data, truth = _common_times(data, truth)
    truth = _on_one_grid(data, truth)
    for name in data.data_vars:
        check_units(str(name), data[name].attrs.get("units"), truth[name].attrs.get("units"), "the estimate")
    shared = {d: data[d] for d in truth.dims if d in data.coords}
    return data, truth.reset_coords(drop=True).drop_vars(list(truth.indexes)).assign_coords(shared)


def single(truth: xr.Dataset) -> xr.Dataset:
    """``truth`` without its trajectory dimension, which must have size 1 where there is one."""
    dim = ensemble_dimension(truth)
    if dim is None:
        return truth
    if truth.sizes[dim] != 1:
        raise DataError(
            f"the truth has {truth.sizes[dim]} values along '{dim}', expected one; select it with truth.isel({dim}=0)"
        )
    return truth.isel({dim: 0}, drop=True)


def time_dimensions(variable: xr.DataArray | xr.Dataset) -> tuple[Hashable, ...]:
    """Dimensions among ``time``, ``lead_time`` and ``init_time`` that ``variable`` has."""
    return tuple(d for d in variable.dims if d in _TIME_DIMS)


def valid_times(data: xr.Dataset) -> xr.DataArray | None:
    """Times at which ``data`` is valid, along its time dimensions; None where it has none."""
    if VALID_TIME in data.coords:
        return data[VALID_TIME]
    if TIME in data.dims:
        if TIME not in data.coords:
            raise DataError("the dimension 'time' has no coordinate; add one with ds.assign_coords(time=...)")
        return data[TIME]
    if LEAD_TIME in data.dims:
        if INIT_TIME not in data.coords or LEAD_TIME not in data.coords:
            raise DataError(
                "found 'lead_time' without the coordinate 'valid_time', and no 'init_time' and 'lead_time' "
                "to make it from; add it with ds.assign_coords(valid_time=('lead_time', ...))"
            )
        return data[INIT_TIME] + data[LEAD_TIME]
    return None


def _common_variables(data: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    names = [n for n in data.data_vars if n in truth.data_vars and data[n].dtype.kind in "fiu"]
    if not names:
        raise DataError(
            f"found the variables {sorted(map(str, data.data_vars))} in the estimate and "
            f"{sorted(map(str, truth.data_vars))} in the truth, expected at least one in common; rename one"
        )
    return data[names], truth[names]


def _common_times(data: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    times = valid_times(data)
    if times is None and TIME not in truth.dims:
        return data, truth
    if times is None or TIME not in truth.dims or TIME not in truth.coords:
        raise DataError(
            f"found the dimensions {tuple(map(str, data.dims))} in the estimate and "
            f"{tuple(map(str, truth.dims))} in the truth, expected times in both; give both a 'time' coordinate"
        )
    positions = match_times(times, truth[TIME])
    if not (positions >= 0).any():
        raise DataError(
            f"no time in common: the estimate covers {times.values.min()} to {times.values.max()}, the truth "
            f"{truth[TIME].values.min()} to {truth[TIME].values.max()}; select the truth of the same period"
        )
    if times.ndim == 1:
        keep = np.flatnonzero(positions >= 0)
        data = data.isel({times.dims[0]: keep})
        positions, dims = positions[keep], times.dims
    else:
        dims = times.dims
    index = xr.DataArray(positions, dims=dims)
    there = truth.drop_vars(TIME).isel({TIME: index.clip(min=0)})
    return data, there if (positions >= 0).all() else there.where(index >= 0)


def _on_one_grid(data: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    member = ensemble_dimension(data)
    for name in data.data_vars:
        expected = {d for d in data[name].dims if d != member}
        if expected != set(truth[name].dims):
            raise GridError(
                f"'{name}' has the dimensions {tuple(map(str, data[name].dims))} in the estimate and "
                f"{tuple(map(str, truth[name].dims))} in the truth, expected the same except for the member"
            )
    space = [d for d in truth.dims if d not in _TIME_DIMS]
    grid = {d: coordinate_of(data[d]) if d in data.coords else data.sizes[d] for d in space}
    return onto_grid(truth, grid, of="the truth", like="the estimate")
