"""Places on grids whose points have a latitude and a longitude each: curvilinear grids, and the cells of a mesh.

The points lie on a sphere. Their convex hull is the Delaunay triangulation of the sphere (Brown 1979,
doi:10.1016/0020-0190(79)90074-7), and a place has the barycentric weights of the triangle that its direction meets.
Triangles that only close the hull, across the outside of a regional grid or a gap in it, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdaxr.states.coordinates import TOLERANCE

# Points nearer to each other are one point (of a pole, of the halo of a periodic grid): some metres on the Earth.
_SAME = 1e-6  # radians
# A triangle spans neighbours: the diagonal of a cell is at most 1.5 of its longer side, that of a skewed one 2.
_LONGEST = 2.0
_NEIGHBOURS = 6  # of a point of a mesh of triangles
# Triangles with the nearest centres that may hold a place; more are looked at where the first few do not.
_CANDIDATES = (4, 32)
_AT_ONCE = 20_000


@dataclass(frozen=True)
class Corners:
    """Grid points around each of n places, and their weights.

    Attributes
    ----------
    dims
        Dimensions of the grid.
    indices, weights
        Flat indices along ``dims`` and weights, shape (corner, n) each.
    inside
        Whether the place lies in the grid, shape (n,).
    """

    dims: tuple[str, ...]
    indices: np.ndarray
    weights: np.ndarray
    inside: np.ndarray

    def take(self, places: np.ndarray) -> Corners:
        """The corners of some of the places."""
        return Corners(self.dims, self.indices[:, places], self.weights[:, places], self.inside[places])


def corners(
    dims: tuple[str, ...], latitude: np.ndarray, longitude: np.ndarray, north: np.ndarray, east: np.ndarray
) -> Corners:
    """Corners of the triangle around each place.

    Parameters
    ----------
    dims
        Dimensions of the grid.
    latitude, longitude
        Of the grid points, along ``dims``, in degrees; NaN where there is no point.
    north, east
        Latitudes and longitudes of the places, shape (n,), in degrees. A place that is NaN is outside.

    Returns
    -------
    Corners
        Three for each place. A place at a grid point, and any place outside, has the nearest point alone.
    """
    from scipy.spatial import cKDTree

    grid, places = _directions(latitude, longitude), _directions(north, east)
    known = np.isfinite(places).all(1)
    places = np.where(known[:, None], places, [1.0, 0.0, 0.0])
    reach = _reach(grid)
    flat, reach = grid.reshape(-1, 3), reach.reshape(-1)
    there = np.flatnonzero(np.isfinite(flat).all(1))
    there = there[np.unique(np.round(flat[there] / _SAME), axis=0, return_index=True)[1]]
    points, reach = flat[there], reach[there]
    distance, nearest = cKDTree(points).query(places)
    indices = np.broadcast_to(nearest, (3, nearest.size)).copy()
    weights = np.repeat([[1.0], [0.0], [0.0]], nearest.size, 1)
    inside = distance <= TOLERANCE * reach[nearest]
    triangles = _triangles(points, reach)
    if len(triangles):
        inverse = np.linalg.inv(np.swapaxes(points[triangles], 1, 2))
        centres = cKDTree(points[triangles].mean(1))
        for count in _CANDIDATES:
            waiting = np.flatnonzero(~inside)
            for first in range(0, waiting.size, _AT_ONCE):
                part = waiting[first : first + _AT_ONCE]
                which, share = _around(places[part], centres, inverse, min(count, len(inverse)))
                found = share.min(1) >= -TOLERANCE
                indices[:, part[found]] = triangles[which[found]].T
                share = share[found].clip(0.0)
                weights[:, part[found]] = (share / share.sum(1, keepdims=True)).T
                inside[part[found]] = True
    return Corners(dims, there[indices], weights, inside & known)


def _directions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Unit vectors, shape (..., 3)."""
    north, east = np.deg2rad(np.asarray(latitude, float)), np.deg2rad(np.asarray(longitude, float))
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], -1)


def _reach(grid: np.ndarray) -> np.ndarray:
    """Distance from each point to its neighbours, shape of ``grid`` without the last dimension."""
    if grid.ndim == 2:
        from scipy.spatial import cKDTree

        finite = np.isfinite(grid).all(1)
        count = min(_NEIGHBOURS + 1, int(finite.sum()))
        reach = np.full(len(grid), np.nan)
        reach[finite] = cKDTree(grid[finite]).query(grid[finite], count)[0].reshape(-1, count)[:, -1]
        return reach
    reach = np.zeros(grid.shape[:-1])
    for axis in range(grid.ndim - 1):
        steps = np.linalg.norm(np.diff(grid, axis=axis), axis=-1)
        pad = [(int(a == axis),) * 2 for a in range(grid.ndim - 1)]
        steps = np.pad(np.where(steps > _SAME, steps, np.inf), pad, constant_values=np.inf)
        # The nearer of the two sides: a row may jump, where it goes on elsewhere on the globe.
        nearer = np.fmin(np.delete(steps, -1, axis), np.delete(steps, 0, axis))
        reach = np.maximum(reach, np.where(np.isfinite(nearer), nearer, 0.0))
    return reach


def _triangles(points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Corners of the triangles between neighbouring points, shape (triangle, 3)."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):  # fewer than four points, or all of them in one plane
        return np.zeros((0, 3), int)
    edges = points[hull.simplices] - points[np.roll(hull.simplices, 1, axis=1)]
    longest = np.linalg.norm(edges, axis=2).max(1)
    seen_from_outside = hull.equations[:, 3] < 0
    kept = seen_from_outside & (longest <= _LONGEST * reach[hull.simplices].max(1))
    # Points along one meridian or one line make triangles without an area.
    kept &= np.abs(np.linalg.det(points[hull.simplices])) > 1e-14
    return np.asarray(hull.simplices[kept], int)


def _around(places: np.ndarray, centres: object, inverse: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The triangle that holds each place best, and the shares of its corners, shape (n,) and (n, 3)."""
    candidates = centres.query(places, count)[1].reshape(-1, count)  # type: ignore[attr-defined]
    shares = np.einsum("nkij,nj->nki", inverse[candidates], places)
    best = shares.min(2).argmax(1)
    rows = np.arange(len(places))
    return candidates[rows, best], shares[rows, best]
