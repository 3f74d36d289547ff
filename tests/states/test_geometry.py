"""Distances between the points of a grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.states.geometry import areas, positions
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


@pytest.mark.parametrize("first", [0.0, -180.0, 90.0])
@pytest.mark.parametrize("north", [True, False])
def test_longitude_has_no_seam_and_chords_go_over_the_poles(first: float, north: bool) -> None:
    lat, lon = np.array([80.0, 20.0, -10.0]), first + np.arange(0.0, 360.0, 30.0)
    lat = lat if north else -lat
    found, _ = distances(layout_of({"lat": lat, "lon": lon}, ("lat", "lon"), (3, 12)))
    by_row = found.reshape(3, 12, 3, 12)
    for row in range(3):
        neighbours = by_row[row, np.arange(12), row, np.roll(np.arange(12), -1)]
        np.testing.assert_allclose(neighbours, neighbours[0], rtol=1e-9)
    # Over the pole the places at 80 degrees on opposite meridians are 20 degrees apart.
    radius = EARTH_RADIUS / 1000
    opposite = by_row[0, np.arange(12), 0, np.roll(np.arange(12), 6)]
    np.testing.assert_allclose(opposite, 2 * radius * np.sin(np.deg2rad(10)), rtol=1e-9)
    assert opposite[0] == pytest.approx(20 * np.pi / 180 * radius, rel=0.006)  # the great circle is hardly longer


@pytest.mark.parametrize(
    "lat",
    [
        np.linspace(-90, 90, 9),
        np.linspace(90, -90, 9),
        np.linspace(-85, 85, 18),
        np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(16)[0])),
    ],
    ids=["poles", "from north to south", "centres", "Gaussian"],
)
def test_areas_of_the_cells_of_a_globe(lat: np.ndarray) -> None:
    lon = np.arange(0.0, 360.0, 60.0)
    found = areas(layout_of({"lon": lon, "lat": lat}, ("lon", "lat"), (6, len(lat))))
    assert found is not None and found.shape == (6, len(lat)) and (found > 0).all()
    assert found.mean() == pytest.approx(1.0) and np.ptp(found, axis=0).max() == pytest.approx(0.0)
    # The mean of the square of the sine of latitude over the sphere is a third, that of its cosine pi / 4.
    sine, cosine = np.sin(np.deg2rad(lat)), np.cos(np.deg2rad(lat))
    assert (found * sine**2).mean() == pytest.approx(1 / 3, abs=0.03)
    assert (found * cosine).mean() == pytest.approx(np.pi / 4, abs=0.03)


def test_cells_that_are_nearly_alike_and_unknown_ones_have_no_areas() -> None:
    lat, lon = np.linspace(30, 58, 8), np.arange(0.0, 6.0, 1.0)
    assert areas(layout_of({"lat": lat, "lon": lon}, ("lat", "lon"), (8, 6))) is None
    assert areas(layout_of({"y": np.arange(8.0), "x": lon}, ("y", "x"), (8, 6))) is None
    places = {"nav_lat": (("j", "i"), np.add.outer(10 * lat - 300, lon) / 4), "j": np.arange(8), "i": np.arange(6)}
    assert areas(layout_of(places, ("j", "i"), (8, 6))) is None
    wider = areas(layout_of({"lat": np.linspace(30, 72, 8), "lon": lon}, ("lat", "lon"), (8, 6)))
    assert wider is not None and wider[0, 0] > 2 * wider[-1, 0]


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
