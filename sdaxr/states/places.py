"""Latitudes and longitudes of grid points, where the grid is no product of the two: curvilinear grids and meshes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import GridError
from sdaxr.states.axes import is_latitude, is_longitude
from sdaxr.states.coordinates import TOLERANCE, plain_attrs, separation, turn_of


@dataclass(frozen=True)
class Places:
    """Latitudes or longitudes of the points of a grid that is no product of the two.

    Attributes
    ----------
    dims
        Dimensions of the grid.
    values
        Degrees, with the shape of the grid; NaN where it has no point.
    attrs
        Attributes of the coordinate.
    """

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)


def places_of(data: xr.Dataset, space: Sequence[str]) -> dict[str, Places]:
    """Latitudes and longitudes of the grid points of ``data``, where they depend on ``space`` and are no dimensions."""
    found = {}
    for name, variable in data.variables.items():
        dims = tuple(map(str, variable.dims))
        known = is_latitude(name, variable.attrs) or is_longitude(name, variable.attrs)
        if known and name not in dims and dims and set(dims) <= set(space) and variable.dtype.kind in "fiu":
            order = tuple(d for d in space if d in dims)
            values = np.array(variable.transpose(*order).values, float)
            found[str(name)] = Places(order, values, plain_attrs(variable.attrs))
    return found


def check_places(data: xr.Dataset, places: Mapping[str, Places], *, of: str, like: str) -> None:
    """Raise `GridError` where grid points of ``data`` have another latitude or longitude than ``places``."""
    for name, expected in places.items():
        if name not in data.variables or set(data[name].dims) != set(expected.dims):
            continue
        found = np.asarray(data[name].transpose(*expected.dims).values, float)
        apart = separation(found, expected.values, turn_of(name, expected.attrs))
        extent = np.ptp(expected.values[np.isfinite(expected.values)]) if np.isfinite(expected.values).any() else 0.0
        # NaN, where a model has no point, says nothing.
        bad = apart > TOLERANCE * (extent / max(expected.values.shape) or 1.0)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise GridError(
                f"'{name}' at {dict(zip(expected.dims, at, strict=True))} is {found[at]:g} in {of} and "
                f"{expected.values[at]:g} in {like}, expected the same points in the same order; reorder or interpolate"
            )
