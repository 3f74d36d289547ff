"""An estimate and the truth on their common variables, times and points.

Times and points are matched by their labels. Nothing is interpolated, and no unit is converted: a difference is an
error. Dask arrays stay lazy; only coordinates are read.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr

from sdaxr.schema import INIT_TIME, LEAD_TIME, TIME, VALID_TIME, DataError, GridError, check_units
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.coordinates import coordinate_of, onto_grid
from sdaxr.states.names import recognised
from sdaxr.states.places import check_places, places_of
from sdaxr.states.time import in_months_of, match_times
from sdaxr.states.units import check_values

_TIME_DIMS = (TIME, LEAD_TIME, INIT_TIME)


def align(data: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """``data`` and ``truth`` at their common variables and times, on the points of ``data``.

    Parameters
    ----------
    data
        An estimate ``([member], time, ...)``, or a forecast ``([member], lead_time, ...)``, which is matched to the
        truth by ``valid_time``, or by ``init_time + lead_time``.
    truth
        ``(time, ...)``, with a trajectory dimension of size 1 at most, on the points of ``data`` in any order:
        latitudes may be reversed, and longitudes counted from another meridian. A parameter that is a number is that
        of all times.

    Returns
    -------
    (xarray.Dataset, xarray.Dataset)
        Both with the coordinates of ``data``. The truth has the dimensions of ``data``, except for the member.

    Raises
    ------
    DataError
        If there is no common variable or time, or ``truth`` has several trajectories.
    GridError
        If dimensions or points differ.
    UnitsError
        If a variable, or the time, has different units in ``data`` and ``truth``.
    """
    truth = single(recognised(truth, {n: c.attrs for n, c in data.coords.items()}))
    data, truth = _common_variables(data, truth)
    data, truth = _common_times(data, truth)
    truth = _at_all_times(data, truth)
    truth = _on_one_grid(data, truth)
    for name in data.data_vars:
        units = data[name].attrs.get("units"), truth[name].attrs.get("units")
        check_units(str(name), *units, "the estimate")
        check_units(str(name), units[1], units[0], "the truth")
    shared = {d: data[d] for d in truth.dims if d in data.coords}
    return data, truth.reset_coords(drop=True).drop_vars(list(truth.indexes)).assign_coords(shared)


def single(truth: xr.Dataset) -> xr.Dataset:
    """``truth`` without its trajectory dimension, whose size has to be 1.

    Raises
    ------
    DataError
        If the size is not 1.
    """
    dim = ensemble_dimension(truth)
    if dim is None:
        return truth
    if truth.sizes[dim] != 1:
        raise DataError(
            f"the truth has {truth.sizes[dim]} values along '{dim}', expected one; select it with truth.isel({dim}=0)"
        )
    return truth.isel({dim: 0}, drop=True)


def time_dimensions(variable: xr.DataArray | xr.Dataset) -> tuple[Hashable, ...]:
    """The dimensions of ``variable`` among ``time``, ``lead_time`` and ``init_time``."""
    return tuple(d for d in variable.dims if d in _TIME_DIMS)


def valid_times(data: xr.Dataset) -> xr.DataArray | None:
    """Times at which ``data`` is valid, along its time dimensions; None where it has no time dimension.

    Raises
    ------
    DataError
        If a time dimension has no coordinate from which the times follow.
    """
    if VALID_TIME in data.coords:
        return data[VALID_TIME]
    if TIME in data.dims:
        if TIME not in data.coords:
            raise DataError("the dimension 'time' has no coordinate; add one with ds.assign_coords(time=...)")
        return data[TIME]
    if LEAD_TIME in data.dims:
        if INIT_TIME not in data.coords or LEAD_TIME not in data.coords:
            raise DataError(
                "found 'lead_time' without the coordinate 'valid_time', and without the coordinates 'init_time' "
                "and 'lead_time', from which it follows; add it with ds.assign_coords(valid_time=('lead_time', ...))"
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
    for name in names:
        check_values(str(name), truth[name], "the truth")
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
    truth = in_months_of(truth, times)
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
    matched = truth.drop_vars(TIME).isel({TIME: index.clip(min=0)})
    return data, matched if (positions >= 0).all() else matched.where(index >= 0)


def _at_all_times(data: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """The truth, whose numbers are repeated at all times where the estimates have times."""
    constant = [n for n in data.data_vars if not truth[n].dims and time_dimensions(data[n])]
    repeated = {n: truth[n].expand_dims({d: data.sizes[d] for d in time_dimensions(data[n])}) for n in constant}
    return truth.assign(repeated)


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
    truth = onto_grid(truth, grid, of="the truth", like="the estimate")
    check_places(truth, places_of(data, tuple(map(str, space))), of="the truth", like="the estimate")
    return truth
