"""What the dimensions and coordinates of other people's files are: latitude, longitude, layers, times, ensembles.

They are recognised by their names, and by the attributes of the CF conventions, whose criteria cf-xarray keeps.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import xarray as xr

from sdaxr.schema import INIT_TIME, LEAD_TIME, MEMBER, TIME, TRAJECTORY, VALID_TIME, DataError

_Dim = TypeVar("_Dim", bound=Hashable)

# What cf-xarray calls each kind of coordinate, standard names that it has no criterion for, names without attributes.
_CRITERIA = {"latitude": ("latitude",), "longitude": ("longitude",), "vertical": ("vertical", "Z"), "time": ("T",)}
_STANDARD_NAMES = {"time": ("forecast_period", "forecast_reference_time"), "ensemble": ("realization",)}
_NAMES = {
    "latitude": {"lat", "latitude", "nav_lat"},
    "longitude": {"lon", "longitude", "nav_lon"},
    "vertical": {
        *("layer", "level", "lev", "plev", "pressure", "pressure_level", "isobaricinhpa", "isobaricinpa"),
        *("model_level", "hybrid", "sigma", "s_rho", "s_w", "bottom_top", "pfull", "phalf"),
        *("height", "heightaboveground", "heightabovesea", "altitude"),
        *("depth", "deptht", "depthu", "depthv", "nav_lev", "z_t", "z_l", "st_ocean"),
    },
    "time": {TIME, LEAD_TIME, INIT_TIME, VALID_TIME},
    "ensemble": {TRAJECTORY, MEMBER, "realization", "ensemble", "number"},
}


def is_latitude(name: Hashable, attrs: Mapping[Any, Any] = {}) -> bool:
    """Whether a coordinate is latitude, by its name or its CF attributes."""
    return _is("latitude", name, attrs)


def is_longitude(name: Hashable, attrs: Mapping[Any, Any] = {}) -> bool:
    """Whether a coordinate is longitude, by its name or its CF attributes."""
    return _is("longitude", name, attrs)


def is_vertical(name: Hashable, attrs: Mapping[Any, Any] = {}) -> bool:
    """Whether a coordinate is a level, a height or a depth, by its name or its CF attributes."""
    return _is("vertical", name, attrs)


def ensemble_dimension(data: xr.Dataset | xr.DataArray) -> Hashable | None:
    """Name of the dimension that counts trajectories or members, or None.

    Raises
    ------
    DataError
        If there is more than one.
    """
    found = [d for d in data.dims if _is("ensemble", d, _attrs(data, d))]
    if len(found) > 1:
        raise DataError(
            f"found the ensemble dimensions {found}, expected at most one of {sorted(_NAMES['ensemble'])}; "
            "stack or select one of them"
        )
    return found[0] if found else None


def layer_dimension(variable: xr.DataArray) -> Hashable | None:
    """Name of the layer or level dimension of ``variable``, or None."""
    return next((d for d in variable.dims if _is("vertical", d, _attrs(variable, d))), None)


def space_dimensions(variable: xr.DataArray) -> tuple[Hashable, ...]:
    """Horizontal dimensions of ``variable``, in order: all except ensemble, times and layer."""
    layer = layer_dimension(variable)
    other = [d for d in variable.dims if any(_is(kind, d, _attrs(variable, d)) for kind in ("ensemble", "time"))]
    return tuple(d for d in variable.dims if d not in other and d != layer)


def upright(dims: Sequence[_Dim], attrs: Mapping[_Dim, Mapping[Any, Any]]) -> tuple[_Dim, _Dim]:
    """Two horizontal dimensions as (y, x), whatever their order in the data; unnamed ones are (y, x) already.

    Parameters
    ----------
    dims
        Names of the two dimensions.
    attrs
        Attributes of their coordinates, by name.
    """
    first, second = dims
    swapped = _is_x(first, attrs.get(first, {})) or _is_y(second, attrs.get(second, {}))
    return (second, first) if swapped else (first, second)


def _is_x(dim: Hashable, attrs: Mapping[Any, Any]) -> bool:
    return attrs.get("axis") == "X" or is_longitude(dim, attrs) or str(dim).lower() == "x"


def _is_y(dim: Hashable, attrs: Mapping[Any, Any]) -> bool:
    return attrs.get("axis") == "Y" or is_latitude(dim, attrs) or str(dim).lower() == "y"


def _is(kind: str, name: Hashable, attrs: Mapping[Any, Any]) -> bool:
    if str(name).lower() in _NAMES[kind]:
        return True
    from cf_xarray.criteria import coordinate_criteria

    criteria = [pair for key in _CRITERIA.get(kind, ()) for pair in coordinate_criteria[key].items()]
    criteria.append(("standard_name", _STANDARD_NAMES.get(kind, ())))
    given = {str(k): str(v).lower() for k, v in attrs.items()}
    return any(given.get(attribute) in [v.lower() for v in values] for attribute, values in criteria)


def _attrs(data: xr.Dataset | xr.DataArray, dim: Hashable) -> Mapping[Any, Any]:
    return data[dim].attrs if dim in data.coords else {}
