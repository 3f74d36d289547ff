"""Dimensions and coordinates: which of them are space, layers, ensembles, latitude or longitude."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from sdaxr.schema import LEAD_TIME, MEMBER, TIME, TRAJECTORY, DataError

_ENSEMBLE = {TRAJECTORY, MEMBER, "realization", "ensemble", "number"}
_LAYER = {"layer", "level", "lev", "pressure_level", "isobaricInhPa", "height", "depth", "plev"}
_LATITUDE = {"lat", "latitude"}
_LONGITUDE = {"lon", "longitude"}


def layer_dimension(variable: xr.DataArray) -> Hashable | None:
    """Name of the layer or level dimension of ``variable``, or None."""
    for dim in variable.dims:
        axis = str(variable[dim].attrs.get("axis", "")) if dim in variable.coords else ""
        positive = dim in variable.coords and "positive" in variable[dim].attrs
        if str(dim).lower() in _LAYER or axis.upper() == "Z" or positive:
            return dim
    return None


def space_dimensions(variable: xr.DataArray) -> tuple[Hashable, ...]:
    """Horizontal dimensions of ``variable``: what is neither ensemble, time nor layer, in order."""
    layer = layer_dimension(variable)
    skip = _ENSEMBLE | {TIME, LEAD_TIME}
    return tuple(d for d in variable.dims if str(d) not in skip and d != layer)


def ensemble_dimension(data: xr.Dataset | xr.DataArray) -> Hashable | None:
    """Name of the dimension that counts trajectories or members, or None."""
    found = [d for d in data.dims if str(d) in _ENSEMBLE]
    if len(found) > 1:
        raise DataError(
            f"found the ensemble dimensions {found}, expected at most one of {sorted(_ENSEMBLE)}; "
            "stack or select one of them"
        )
    return found[0] if found else None


def is_latitude(name: Hashable, attrs: Mapping[Hashable, Any] = {}) -> bool:
    """Whether a coordinate is latitude, by its CF attributes or its name."""
    return attrs.get("standard_name") == "latitude" or str(name).lower() in _LATITUDE


def is_longitude(name: Hashable, attrs: Mapping[Hashable, Any] = {}) -> bool:
    """Whether a coordinate is longitude, by its CF attributes or its name."""
    return attrs.get("standard_name") == "longitude" or str(name).lower() in _LONGITUDE
