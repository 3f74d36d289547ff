"""Coordinates: when they are periodic, and which of their points are the same.

There is one rule each for the period of a dimension (`period_of`), the nearest point of a grid (`nearest_points`), the
equality of two points (`match_points`) and the equality of two grids (`onto_grid`). `sdaxr.states.time` has the rules
for times.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from sdaxr.schema import DataError, GridError
from sdaxr.states.axes import is_longitude

TOLERANCE = 1e-3
"""Two labels are the same if they differ by at most this fraction of the spacing (of the step, for times).

In float32, longitudes are rounded by 2e-5 degrees, a thousandth of the finest spacing that a global grid has today.
Neighbours are a thousand times further apart, so that no two of them are confused.
"""

EARTH_RADIUS = 6_371_229.0
"""Radius of the Earth in m: the sphere of ERA5 and of most numerical weather models (WMO GRIB2, code table 3.2, 6)."""

_Labelled = TypeVar("_Labelled", xr.Dataset, xr.DataArray)


# Periods


@dataclass(frozen=True)
class Coordinate:
    """Values, shape (n,), and attributes of the coordinate of a dimension."""

    values: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def turn(self) -> float | None:
        """See `turn_of`."""
        return turn_of("", self.attrs)

    @property
    def period(self) -> float | None:
        """See `period_of`."""
        return period_of("", self.values, self.attrs)


def coordinate_of(coord: xr.DataArray) -> Coordinate:
    """Values and attributes of ``coord``; a longitude says so in its attributes, whatever its name is."""
    attrs = plain_attrs(coord.attrs)
    if is_longitude(str(coord.name), coord.attrs):
        attrs.setdefault("standard_name", "longitude")
    values = np.array(coord.values)
    return Coordinate(values if values.dtype.kind in "iuf" else values.astype(str), attrs)


def plain_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON can hold them."""
    return {str(k): v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in attrs.items()}


def turn_of(name: Hashable, attrs: Mapping[Any, Any]) -> float | None:
    """Distance after which the labels of a coordinate name the same place again.

    Returns
    -------
    The attribute ``period``, in units of the coordinate; 360 for a longitude; None for any other coordinate, and where
    the attribute ``periodic`` is 0.

    Raises
    ------
    DataError
        If the attribute ``period`` is not a number above 0.
    """
    if not attrs.get("periodic", 1):
        return None
    if "period" not in attrs:
        return 360.0 if is_longitude(name, attrs) else None
    try:
        turn = float(attrs["period"])
    except (TypeError, ValueError):
        turn = np.nan
    if not 0 < turn < np.inf:
        raise DataError(
            f"the attribute 'period' of '{name}' is {attrs['period']!r}, expected a length above 0 in units of the "
            "coordinate; correct or remove it"
        )
    return turn


def period_of(name: Hashable, values: np.ndarray, attrs: Mapping[Any, Any]) -> float | None:
    """Period of a dimension, in units of its coordinate; None where it is bounded.

    A dimension is periodic if its coordinate declares a ``period`` or is a longitude, and its points, equally spaced,
    go once around: number of points times spacing is the period. So a cut of a periodic domain is bounded, every second
    point of it is periodic. Points may run down, and may begin anywhere on the circle. A single point has no spacing,
    and is bounded; two points are periodic where they lie half a period apart.

    Parameters
    ----------
    name, attrs
        Name and attributes of the coordinate.
    values
        Coordinate, shape (n,).
    """
    turn = turn_of(name, attrs)
    if turn is None or values.ndim != 1 or values.size < 2 or values.dtype.kind not in "fiu":
        return None
    spacing = turn / values.size
    steps = np.diff(values.astype(float)) % turn
    around = any(np.abs(steps - step).max() <= TOLERANCE * spacing for step in (spacing, turn - spacing))
    return turn if around else None


def period_along(data: xr.Dataset | xr.DataArray, dim: Hashable) -> float | None:
    """Period of the dimension ``dim`` of ``data`` (`period_of`); None where it is bounded or has no coordinate."""
    return period_of(dim, data[dim].values, data[dim].attrs) if dim in data.coords else None


def unrolled(values: np.ndarray, turn: float | None) -> np.ndarray:
    """Points of a circle without the jump at its seam: 350, 0, 10 as 350, 360, 370; shape (n,), float."""
    values = values.astype(float)
    steps = np.diff(values)
    if turn is None or (steps > 0).all() or (steps < 0).all():
        return values
    return np.unwrap(values, period=turn)


def wrapped(values: np.ndarray, grid: np.ndarray, turn: float | None) -> np.ndarray:
    """``values`` as they are counted in ``grid``, a turn further up or down; shape of ``values``, float."""
    values = np.asarray(values, float)
    if turn is None:
        return values
    middle = (float(grid.min()) + float(grid.max())) / 2
    # Labels that are several turns away are in other units rather than counted from elsewhere.
    return values + turn * np.round((middle - values) / turn).clip(-1, 1)


def gathered(places: np.ndarray, turn: float | None) -> np.ndarray:
    """Places on a circle, in any order, counted without a jump: from the end of the widest gap between them on.

    Parameters
    ----------
    places
        Numbers, shape (n,), n >= 1.
    turn
        Distance after which labels name the same place again (`turn_of`).

    Returns
    -------
    Shape (n,), float: whole turns are added to ``places``. Where they have no jump as they are, none is added.
    """
    places = np.asarray(places, float)
    if turn is None or np.ptp(places) <= turn / 2:
        return places
    around = np.unique(places % turn)
    gaps = np.diff(around, append=around[0] + turn)
    widest = int(gaps.argmax())
    opposite = around[widest] + (gaps[widest] + turn) / 2
    counted: np.ndarray = places + turn * np.round((opposite - places) / turn)
    return counted


def separation(here: np.ndarray, there: np.ndarray, turn: float | None) -> np.ndarray:
    """Distance of two places, the shorter way round where there is a ``turn``; broadcast shape."""
    distance: np.ndarray = np.abs(here - there)
    return distance if turn is None else np.minimum(distance % turn, -distance % turn)


# Points and grids


def spacing_of(grid: np.ndarray) -> float:
    """Smallest distance of two points of ``grid``, shape (n,); one unit where there is a single point."""
    steps = np.diff(np.sort(grid.astype(float)))
    return float(steps[steps > 0].min()) if (steps > 0).any() else 1.0


def nearest_points(labels: np.ndarray, grid: np.ndarray, turn: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Nearest point of a grid.

    Parameters
    ----------
    labels
        Numbers, shape (n,).
    grid
        Numbers in any order, shape (m,), m >= 1.
    turn
        Distance after which labels name the same place again (`turn_of`).

    Returns
    -------
    index, distance
        Shape (n,) each: the position in ``grid``, and how far the label lies above it, in spacings of the grid.
    """
    order = np.argsort(grid, kind="stable")
    there, labels = grid[order].astype(float), wrapped(labels, grid, turn)
    if turn is not None:
        there, order = np.r_[there[-1] - turn, there, there[0] + turn], np.r_[order[-1], order, order[0]]
    above = np.searchsorted(there, labels).clip(max=there.size - 1)
    below = (above - 1).clip(min=0)
    at = np.where(labels - there[below] <= there[above] - labels, below, above)
    return order[at], (labels - there[at]) / spacing_of(grid)


def match_points(labels: np.ndarray, grid: np.ndarray, turn: float | None = None) -> np.ndarray:
    """Position in ``grid`` of each label, -1 where it has none there; shape (n,).

    Numbers are the same up to `TOLERANCE` and whole turns (`turn_of`), everything else is the same or is not.
    """
    if labels.dtype.kind not in "fiu" or grid.dtype.kind not in "fiu":
        places = {str(label): i for i, label in reversed(list(enumerate(grid)))}
        return np.array([places.get(str(label), -1) for label in labels], int)
    found = np.full(labels.shape, -1)
    # As they are first: a grid may hold both ends of the circle.
    for distance_of_turn in (None, turn):
        index, distance = nearest_points(labels, grid, distance_of_turn)
        found = np.where((found < 0) & (np.abs(distance) <= TOLERANCE), index, found)
    return found


def onto_grid(
    data: _Labelled,
    grid: Mapping[Any, Coordinate | int],
    *,
    of: str,
    like: str,
    remedy: str | None = None,
) -> _Labelled:
    """``data`` in the order, and with the labels, of a grid that has the same points.

    Points are matched by their labels (`match_points`): latitudes may run the other way, longitudes may be counted
    from elsewhere. A dimension without labels is taken as it is. Dask arrays stay lazy.

    Parameters
    ----------
    data
        Has all dimensions of ``grid``.
    grid
        Coordinates by dimension; the number of points where it has none.
    of, like
        What ``data`` and ``grid`` are, for errors.
    remedy
        What to do where the points differ; by default, how to interpolate.

    Raises
    ------
    GridError
        If a point of one has no place in the other.
    """
    for dim, coordinate in grid.items():
        size = coordinate if isinstance(coordinate, int) else coordinate.values.size
        if data.sizes[dim] != size:
            raise GridError(
                f"'{dim}' has {data.sizes[dim]} points in {of} and {size} in {like}, expected the same; "
                f"{remedy or 'coarsen, cut or interpolate one of them first'}"
            )
        if isinstance(coordinate, int) or dim not in data.coords:
            continue
        found, expected, turn = data[dim].values, coordinate.values, coordinate.turn
        if np.array_equal(found, expected):
            continue
        order = _order(found, expected, turn)
        if (order < 0).any():
            raise GridError(
                f"'{dim}' has {describe_points(found)} in {of}, {describe_points(expected)} in {like}: "
                f"{expected[np.argmin(order)]} is not among the former; {remedy or _regrid(dim, turn)}"
            )
        data = data.isel({dim: order}) if (order != np.arange(order.size)).any() else data
        data = data.assign_coords({dim: (dim, expected, coordinate.attrs)})
    return data


def describe_points(values: np.ndarray) -> str:
    """How many points there are, the first and the last, for messages."""
    return f"{values.size} points from {values[0]} to {values[-1]}" if values.size else "no points"


def _order(found: np.ndarray, expected: np.ndarray, turn: float | None) -> np.ndarray:
    # Where each expected point is among those found; -1 where it is not, or is there for another point already.
    numbers = found.dtype.kind in "fiu" and expected.dtype.kind in "fiu"
    if numbers and np.abs(found.astype(float) - expected).max() <= TOLERANCE * spacing_of(expected):
        return np.arange(expected.size)
    order = match_points(expected, found, turn)
    first = np.zeros(order.size, bool)
    first[np.unique(order, return_index=True)[1]] = True
    return np.where(first, order, -1)


def _regrid(dim: Hashable, turn: float | None) -> str:
    if turn is None:
        return f"interpolate one of them to the points of the other first, ds.interp({dim}=...)"
    return (
        "interpolate one of them to the points of the other first, with sdaxr.baselines.interpolate, which goes across "
        f"the seam of '{dim}' (ds.interp does not)"
    )
