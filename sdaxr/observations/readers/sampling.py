"""Discrete sampling geometries of the CF conventions: points, time series, trajectories and profiles.

All representations of CF 1.11, chapter 9, are read: orthogonal and incomplete multidimensional arrays, contiguous
ragged arrays (``sample_dimension``), indexed ragged arrays (``instance_dimension``), and both together.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.places import OBS
from sdaxr.observations.readers.roles import is_place, is_time
from sdaxr.schema import DataError
from sdaxr.states.axes import is_latitude, is_longitude

_log = logging.getLogger(__name__)


def is_sampled(data: Any) -> bool:
    """Whether a Dataset holds single measurements and no fields: its latitudes and longitudes span no grid."""
    if not isinstance(data, xr.Dataset):
        return False
    attributes = {k for v in data.variables.values() for k in v.attrs}
    if "featureType" in data.attrs or attributes & {"cf_role", "sample_dimension", "instance_dimension"}:
        return True
    rules = (is_latitude, is_longitude)
    places = {n: v for n, v in data.variables.items() if any(rule(n, v.attrs) for rule in rules)}
    # On a grid, both are dimensions, or both have two of them (curvilinear grids).
    return len(places) == 2 and all(v.ndim < 2 and n not in v.dims for n, v in places.items())


def read_sampled(data: xr.Dataset) -> xr.Dataset:
    """Every measurement of a discrete sampling geometry as a row of a table, on (obs).

    Raises
    ------
    DataError
        If the counts of a ragged array do not fit its samples, or there is no coordinate.
    """
    data = _without_bookkeeping(data.compute())
    names = {str(n) for n in data.coords}
    data = _expanded(data.reset_coords())
    dims = _sampling_dimensions(data)
    if not dims:
        raise DataError(
            f"found the variables {list(map(str, data.variables))}, expected times and places of measurements; set "
            "their attributes standard_name or axis"
        )
    rows: dict[str, Any] = {}
    for name, variable in data.variables.items():
        if set(variable.dims) <= set(dims):
            whole = variable.set_dims({d: data.sizes[d] for d in dims})
            rows[str(name)] = (OBS, whole.transpose(*dims).values.reshape(-1), variable.attrs)
        else:
            _log.info("'%s' is left out: it has the dimensions %s, the measurements %s", name, variable.dims, dims)
    table = xr.Dataset(rows)
    kept = [n for n in names if n in table]
    return table.set_coords(kept).assign_attrs(data.attrs)


def _without_bookkeeping(data: xr.Dataset) -> xr.Dataset:
    """``data`` without bounds and grid mappings, which are no measurements."""
    keys = ("bounds", "climatology", "grid_mapping")
    named = {n for v in data.variables.values() for k in keys for n in str(v.attrs.get(k, "")).split()}
    return data.drop_vars([n for n in named if n in data.variables])


def _expanded(data: xr.Dataset) -> xr.Dataset:
    """Ragged arrays with what belongs to a station, trajectory or profile repeated for each of its samples."""
    counts, belongs = (
        {str(n): str(v.attrs[key]) for n, v in data.variables.items() if key in v.attrs}
        for key in ("sample_dimension", "instance_dimension")
    )
    # Stations of profiles first, so that the samples of a profile get what belongs to its station.
    for name, instances in belongs.items():
        (sample,) = data[name].dims
        index = data[name].values
        if index.size and not (index.min() >= 0 and index.max() < data.sizes[instances]):
            raise DataError(
                f"'{name}' holds numbers from {index.min()} to {index.max()}, expected those of the "
                f"{data.sizes[instances]} instances along '{instances}', from 0"
            )
        data = _repeated(data.drop_vars(name), instances, sample, index.astype(int))
    for name, samples in counts.items():
        (profile,) = data[name].dims
        count = np.nan_to_num(data[name].values.astype(float)).astype(int)
        if count.sum() != data.sizes.get(samples):
            raise DataError(
                f"'{name}' counts {count.sum()} samples, expected the size of '{samples}', {data.sizes.get(samples)}; "
                "the file may be cut short"
            )
        data = _repeated(data.drop_vars(name), profile, samples, np.repeat(np.arange(count.size), count))
    return data


def _repeated(data: xr.Dataset, instances: Any, sample: Any, index: np.ndarray) -> xr.Dataset:
    along = [n for n, v in data.variables.items() if instances in v.dims]
    at = xr.Variable((sample,), index)
    repeated = {n if n != instances else f"{n}_number": data.variables[n].isel({instances: at}) for n in along}
    out = {n: v for n, v in data.variables.items() if n not in along} | repeated
    return xr.Dataset({n: v for n, v in out.items() if n != sample}, attrs=data.attrs).reset_coords()


def _sampling_dimensions(data: xr.Dataset) -> tuple[Any, ...]:
    """The dimensions of times, latitudes, longitudes and levels, in the order of the variable that has most of them."""
    found = [v for n, v in data.variables.items() if _is_position(str(n), v)]
    dims = {d: None for v in found for d in v.dims}
    most = max(data.variables.values(), key=lambda v: len(set(v.dims) & set(dims)), default=None)
    ordered = [d for d in most.dims if d in dims] if most is not None else []
    return tuple(dict.fromkeys([*ordered, *dims]))


def _is_position(name: str, variable: xr.Variable) -> bool:
    return is_place(name, variable.attrs) or is_time(name, variable.attrs)
