"""Where the points of a grid are, and how much of the Earth each of them stands for."""

from __future__ import annotations

import numpy as np

from sdaxr.states.axes import is_latitude, is_longitude
from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.states.fields import StateLayout

# Cells whose areas differ by less than this factor count alike: within a region of middle latitudes, what is measured
# of the statistics differs more. From the equator to a polar circle areas differ by 2.5.
_ALIKE = 2.0


def positions(layout: StateLayout) -> tuple[np.ndarray, str]:
    """Positions of the grid points, (point, n), and the unit of their Euclidean distances.

    Points with latitude and longitude lie on a sphere in three dimensions, in km, wherever longitudes are counted from.
    Their distances are chords through the Earth, 2 R sin(g / 2 R) for a great circle of length g: a Gaussian function
    of them is a covariance on the sphere, one of great circles is not (Gneiting 2013, doi:10.3150/12-BEJSP06). Chords
    are shorter by 1 % at 3100 km, and end at 12 742 km. A periodic dimension is a circle of the same circumference.
    Coordinates without a common unit count grid points. State vectors have one point.
    """
    if not layout.space:
        return np.zeros((1, 1)), "1"
    placed = _on_sphere(layout)
    if placed is not None:
        return placed, "km"
    known = [layout.coords.get(d) for d in layout.space]
    units = {str(c.attrs.get("units", "1")) if c is not None and c.values.dtype.kind in "fiu" else None for c in known}
    labelled = len(units) == 1 and None not in units
    columns: list[np.ndarray] = []
    for dim, coordinate, period in zip(layout.space, known, layout.periodic, strict=True):
        size = layout.sizes[dim]
        line = np.asarray(coordinate.values, float) if labelled and coordinate is not None else np.arange(float(size))
        if period:
            turn = abs(line[1] - line[0]) * size
            angle = 2 * np.pi * line / turn
            columns += [_broadcast(layout, dim, turn / (2 * np.pi) * f(angle)) for f in (np.cos, np.sin)]
        else:
            columns.append(_broadcast(layout, dim, line))
    return np.stack(columns, 1), units.pop() or "1" if labelled else "grid points"


def channel_positions(layout: StateLayout) -> tuple[np.ndarray, str]:
    """Positions of the values of a state, (channel * point, n), and the unit of their Euclidean distances.

    All values of a parameter are at the mean position of the points: in the centre of a circle or a sphere, as far from
    one point as from another. A Gaussian function of the distances then is a covariance of states and parameters.
    """
    places, unit = positions(layout)
    centre = np.broadcast_to(places.mean(0), places.shape)
    still = set(layout.parameter_channels.values())
    return np.concatenate([centre if c in still else places for c in range(layout.channels)]), unit


def areas(layout: StateLayout) -> np.ndarray | None:
    """Area of the cell of each grid point, in units of the mean, shape (*space).

    Returns
    -------
    Of a grid with a dimension of latitude, the differences of the sines of the latitudes half-way between neighbours; a
    row at a pole has the cap around it. None where cells are alike: their areas differ by less than a factor of 2, or
    nothing is known of them (curvilinear grids and meshes).
    """
    for dim in layout.space:
        if dim in layout.coords and is_latitude(dim, layout.coords[dim].attrs) and layout.sizes[dim] > 1:
            heights = _heights(np.asarray(layout.coords[dim].values, float))
            if heights.max() < _ALIKE * heights.min():
                return None
            return _broadcast(layout, dim, heights / heights.mean()).reshape(layout.shape)
    return None


def _heights(lat: np.ndarray) -> np.ndarray:
    """Heights of the zones around latitudes in degrees, in radii of the sphere; areas are proportional to them."""
    between = (lat[1:] + lat[:-1]) / 2
    ends = [(3 * lat[0] - lat[1]) / 2, (3 * lat[-1] - lat[-2]) / 2]
    edges = np.concatenate([ends[:1], between, ends[1:]]).clip(-90, 90)
    heights: np.ndarray = np.abs(np.diff(np.sin(np.deg2rad(edges))))
    return heights


def _on_sphere(layout: StateLayout) -> np.ndarray | None:
    """Points (point, 3) in km on the sphere; None where they have no latitude and longitude."""
    found: dict[str, np.ndarray] = {}
    for name, rule in {"lat": is_latitude, "lon": is_longitude}.items():
        for dim in layout.space:
            if dim in layout.coords and rule(dim, layout.coords[dim].attrs):
                found[name] = _broadcast(layout, dim, np.asarray(layout.coords[dim].values, float))
        for key, place in layout.places.items():
            if rule(key, place.attrs):
                shape = [layout.sizes[d] if d in place.dims else 1 for d in layout.space]
                found[name] = np.broadcast_to(place.values.reshape(shape), layout.shape).ravel()
    if len(found) < 2:
        return None
    lat, lon = (np.deg2rad(np.nan_to_num(found[name])) for name in ("lat", "lon"))
    on_unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    return EARTH_RADIUS / 1000 * on_unit


def _broadcast(layout: StateLayout, dim: str, values: np.ndarray) -> np.ndarray:
    """Values along one dimension, at all points, (point,)."""
    shape = [-1 if d == dim else 1 for d in layout.space]
    return np.broadcast_to(values.reshape(shape), layout.shape).ravel()
