"""Places on curvilinear grids and on the cells of a mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.operators.measurements import Measurements
from sdaxr.operators.mesh import Corners, corners
from sdaxr.schema import OperatorError


def rotated(north: np.ndarray, east: np.ndarray, tilt: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of a grid whose pole is tilted."""
    a, b, t = np.deg2rad(north), np.deg2rad(east), np.deg2rad(tilt)
    x, y, z = np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)
    x, z = x * np.cos(t) + z * np.sin(t), z * np.cos(t) - x * np.sin(t)
    return np.rad2deg(np.arcsin(z)), np.rad2deg(np.arctan2(y, x))


REGION = rotated(*np.meshgrid(np.linspace(-20, 20, 31), np.linspace(150, 210, 46), indexing="ij"))
GLOBE = rotated(*np.meshgrid(np.linspace(-88, 88, 45), np.arange(0, 360, 4.0), indexing="ij"))


def cells(number: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Centres of cells of about equal area all over the globe (Fibonacci lattice)."""
    i = np.arange(number) + 0.5
    return np.rad2deg(np.arcsin(1 - 2 * i / number)), (i * 180 * (1 + 5**0.5)) % 360 - 180


def smooth(north: np.ndarray, east: np.ndarray) -> np.ndarray:
    a, b = np.deg2rad(north), np.deg2rad(east)
    return np.asarray(np.sin(a) + np.cos(a) * np.cos(b - 1) + 0.3 * np.cos(a) ** 2 * np.sin(2 * b))


def interpolated(grid: tuple[np.ndarray, np.ndarray], found: Corners) -> np.ndarray:
    return np.asarray((smooth(*grid).ravel()[found.indices] * found.weights).sum(0))


@pytest.mark.parametrize("grid", [REGION, GLOBE, cells()], ids=["region", "globe", "cells"])
def test_grid_points_have_their_own_values(grid: tuple[np.ndarray, np.ndarray]) -> None:
    north, east = (g.ravel()[::7] for g in grid)
    found = corners(tuple("yx"[-grid[0].ndim :]), *grid, north, east + 360)
    assert found.inside.all()
    np.testing.assert_allclose(interpolated(grid, found), smooth(north, east), atol=1e-6)


@pytest.mark.parametrize(("grid", "error"), [(GLOBE, 3e-3), (cells(), 3e-3)], ids=["globe", "cells"])
def test_the_whole_globe_is_inside_and_smooth_fields_are_found(grid: tuple, error: float) -> None:
    random = np.random.default_rng(0)
    north, east = np.rad2deg(np.arcsin(random.uniform(-0.98, 0.98, 3000))), random.uniform(-180, 180, 3000)
    found = corners(("y", "x")[-grid[0].ndim :], *grid, north, east)
    assert found.inside.mean() > 0.995  # the pole of the grid, where it has no points, is a hole
    apart = np.abs(interpolated(grid, found) - smooth(north, east))[found.inside]
    assert apart.max() < error
    np.testing.assert_allclose(found.weights.sum(0), 1.0)


def test_what_is_outside_of_a_region() -> None:
    inner = rotated(np.array([0.0, 19.9, -19.9]), np.array([180.0, 209.9, 150.1]))
    outer = rotated(np.array([21.0, 0.0, 0.0, 80.0]), np.array([180.0, 212.0, 0.0, 30.0]))
    assert corners(("y", "x"), *REGION, *inner).inside.all()
    assert not corners(("y", "x"), *REGION, *outer).inside.any()


def test_gaps_and_double_points() -> None:
    """Cells that a model leaves out are NaN or at one place; the columns of a halo repeat others."""
    north, east = (np.concatenate([g, g[:, :2]], axis=1) for g in GLOBE)
    found = corners(("y", "x"), north, east, np.array([10.0]), np.array([20.0]))
    assert found.inside.all()
    assert np.abs((smooth(north, east).ravel()[found.indices] * found.weights).sum(0) - smooth(10.0, 20.0)) < 3e-3
    holes = [np.where((abs(REGION[0]) < 6) & (abs(REGION[1] + 180) > 175), np.nan, g) for g in REGION]
    middle = rotated(np.array([0.0]), np.array([180.0]))
    assert corners(("y", "x"), *REGION, *middle).inside.all()
    centre = np.zeros(REGION[0].shape, bool)
    centre[12:19, 18:28] = True
    holes = [np.where(centre, np.nan, g) for g in REGION]
    assert not corners(("y", "x"), *holes, *middle).inside.any()


def test_points_in_one_plane_are_found_at_themselves() -> None:
    north, east = np.zeros(5), np.arange(5.0)
    found = corners(("cell",), north, east, np.array([0.0, 0.0]), np.array([3.0, 3.5]))
    assert found.inside.tolist() == [True, False] and found.indices[0, 0] == 3


def curvilinear(names: tuple[str, str] = ("nav_lat", "nav_lon")) -> xr.Dataset:
    north, east = REGION
    values = smooth(north, east) + np.arange(3.0)[:, None, None]
    places = {n: (("y", "x"), v) for n, v in zip(names, REGION, strict=True)}
    return xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, {"time": np.arange(3.0), **places})


@pytest.mark.parametrize("names", [("nav_lat", "nav_lon"), ("lat", "lon"), ("latitude", "longitude")])
def test_operators_look_at_places_of_a_curvilinear_grid(names: tuple[str, str]) -> None:
    north, east = rotated(np.array([3.3, -7.1]), np.array([160.2, 201.7]))
    stations = op.points({"lat": north, "lon": east}).apply(curvilinear(names))
    assert stations.t.dims == ("time", "station") and stations[names[0]].dims == ("station",)
    np.testing.assert_allclose(stations.t[0], smooth(north, east), atol=2e-3)
    at = op.locations({"time": [2.0, 0.0], "lat": north, "lon": east}).apply(curvilinear(names))
    assert at.t.dims == ("obs",)
    np.testing.assert_allclose(at.t, smooth(north, east) + np.array([2.0, 0.0]), atol=2e-3)


def test_places_outside_of_a_curvilinear_grid() -> None:
    north, east = rotated(np.array([3.3, 50.0]), np.array([160.2, 180.0]))
    with pytest.raises(OperatorError, match=r"points: station 1 \(nav_lat=.*lies outside the grid \(nav_lat from "):
        op.points({"lat": north, "lon": east}).apply(curvilinear())
    with pytest.raises(OperatorError, match=r"locations: obs 1 \(nav_lat=.*lies outside the grid"):
        op.locations({"time": [0.0, 0.0], "lat": north, "lon": east}).apply(curvilinear())
    kept = op.points({"lat": north, "lon": east}, outside="drop").apply(curvilinear())
    assert kept.sizes["station"] == 1 and kept.attrs["station_outside_grid"] == 1
    with pytest.raises(OperatorError, match="expected a latitude and a longitude of the same points"):
        op.points({"lat": north}).apply(curvilinear())
    with pytest.raises(OperatorError, match="points: there is no dimension 'lat'"):
        op.points({"lat": north, "lon": east}).apply(curvilinear().drop_vars(["nav_lat", "nav_lon"]))


def test_block_means_of_longitudes_go_the_shorter_way_round() -> None:
    data = curvilinear().isel(x=slice(None, 44), y=slice(None, 30))
    coarse = op.coarsen(2).apply(data)
    direct = np.abs(coarse.nav_lon - data.nav_lon[::2, ::2].values)
    assert float(np.minimum(direct, 360 - direct).max()) < 3


def test_measurements_on_a_curvilinear_grid() -> None:
    """Those that are not needed may lie anywhere, and need no place."""
    data = curvilinear()
    north, east = rotated(np.array([5.2, 0.0, -3.3, 60.0]), np.array([171.0, 180.0, 190.5, 180.0]))
    north[1] = np.nan
    coords = {"time": [0.5, 0.0, 2.0, 1.0], "lat": north, "lon": east, "altitude": np.full(4, np.nan)}
    labelled = {n: xr.DataArray(np.asarray(c), dims="obs") for n, c in coords.items()}
    needed = np.array([True, False, True, False])
    operator = Measurements(labelled, "obs", np.array(list("abcd")), "error", "linear", 0.0, needed)
    found = operator.apply(data)
    assert found.obs.values.tolist() == ["a", "c"] and {"nav_lat", "nav_lon", "time"} <= set(found.coords)
    np.testing.assert_allclose(found.t, smooth(north[[0, 2]], east[[0, 2]]) + np.array([0.5, 2.0]), atol=2e-2)
    with pytest.raises(OperatorError, match="'lat' of measurement 1 is nan"):
        replace(operator, needed=np.ones(4, bool)).apply(data)
    with pytest.raises(OperatorError, match=r"locations: obs 3 \(.*\) lies outside the grid"):
        replace(operator, needed=needed | [False, False, False, True]).apply(data)
    with pytest.raises(OperatorError, match="no position along 'x', 'y', found the coordinates"):
        replace(operator, coords={n: labelled[n] for n in ("time", "altitude")}).apply(data)
