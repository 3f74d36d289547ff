"""Distances between the points of a grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.states.geometry import positions
from sdaxr.states.infer import infer_layout


def layout_of(coords: dict, dims: tuple[str, ...], shape: tuple[int, ...]):
    values = np.random.default_rng(0).normal(size=(20, *shape))
    data = xr.Dataset({"a": (("time", *dims), values, {"units": "m"})}, {"time": np.arange(20.0), **coords})
    return infer_layout(data)


def distances(layout) -> tuple[np.ndarray, str]:
    places, unit = positions(layout)
    return np.linalg.norm(places[:, None] - places, axis=-1), unit


def test_points_with_latitude_and_longitude_lie_on_the_sphere() -> None:
    lat, lon = np.array([-90.0, 0.0, 60.0]), np.arange(0.0, 360.0, 90.0)
    found, unit = distances(layout_of({"lat": lat, "lon": lon}, ("lat", "lon"), (3, 4)))
    assert unit == "km"
    radius = EARTH_RADIUS / 1000
    # The pole is one point; a quarter of a circle has the chord sqrt(2), and longitude has no seam.
    assert found[0, 3] == pytest.approx(0, abs=1e-6)
    assert found[4, 5] == pytest.approx(2**0.5 * radius) and found[4, 7] == pytest.approx(2**0.5 * radius)
    assert found[8, 9] == pytest.approx(2**0.5 * radius / 2)


def test_curvilinear_points_are_on_the_sphere_too() -> None:
    lat, lon = np.meshgrid([10.0, 20.0], [0.0, 30.0, 60.0], indexing="ij")
    plain, _ = distances(layout_of({"lat": lat[:, 0], "lon": lon[0]}, ("lat", "lon"), (2, 3)))
    places = {"nav_lat": (("j", "i"), lat), "nav_lon": (("j", "i"), lon), "j": [0, 1], "i": [0, 1, 2]}
    found, unit = distances(layout_of(places, ("j", "i"), (2, 3)))
    assert unit == "km"
    np.testing.assert_allclose(found, plain, rtol=1e-6, atol=1e-6)


def test_planes_and_rings_have_the_unit_of_their_coordinates() -> None:
    x = ("x", np.arange(4.0), {"units": "m", "period": 4.0})
    y = ("y", 2 * np.arange(3.0), {"units": "m"})
    found, unit = distances(layout_of({"y": y, "x": x}, ("y", "x"), (3, 4)))
    assert unit == "m" and found[0, 4] == pytest.approx(2.0)
    # Chords of a ring of circumference 4.
    assert found[0, 1] == found[0, 3] == pytest.approx(2 * 4 / (2 * np.pi) * np.sin(np.pi / 4))


def test_coordinates_of_different_units_count_points() -> None:
    coords = {"y": ("y", [0.0, 5.0], {"units": "m"}), "x": ("x", [0.0, 5.0], {"units": "km"})}
    found, unit = distances(layout_of(coords, ("y", "x"), (2, 2)))
    assert unit == "grid points" and found[0, 1] == found[0, 2] == pytest.approx(1.0)
