"""The taper, and distances in the units of the coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, Ring, truth_of
from filtered import model_of

from sdaxr import operators as op
from sdaxr.filters.localisation import Points, gaspari_cohn
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, OptionError
from sdaxr.systems.base import System
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic


@dataclass(frozen=True)
class Field(System):
    """A field that does not move, on the grid ``coords``."""

    name: ClassVar[str] = "field"

    kind: str = "plane"

    def template(self) -> xr.Dataset:
        coords = {
            "plane": {"y": ("y", [0.0, 3.0, 6.0], {"units": "m"}), "x": ("x", [0.0, 4.0], {"units": "m"})},
            "sphere": {"lat": ("lat", [-60.0, 0.0, 60.0]), "lon": ("lon", [0.0, 90.0, 180.0, 270.0])},
            "bare": {},
        }[self.kind]
        dims = tuple(coords) or ("y", "x")
        shape = tuple(len(c[1]) for c in coords.values()) or (2, 2)
        return xr.Dataset({"h": (dims, np.zeros(shape, np.float32), {"units": "m"})}, coords)

    def trajectory(self, steps, seed):
        first = np.random.default_rng(seed).normal(size=self.template().h.shape)
        return {"h": np.stack([first] * steps).astype(np.float32)}

    def advance(self, state, steps, seed=0):
        return {"h": np.stack([state["h"]] * steps)}


def test_the_taper_is_that_of_gaspari_and_cohn() -> None:
    distance = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    # Equation 4.10 with z = 1/2, 1, 3/2 as fractions.
    expected = [1.0, 0.684896, 5 / 24, 0.0164931, 0.0, 0.0]
    np.testing.assert_allclose(gaspari_cohn(distance, 1.0), expected, atol=1e-6)
    np.testing.assert_array_equal(gaspari_cohn(7 * distance, 7.0), gaspari_cohn(distance, 1.0))


def test_distances_along_a_ring_are_the_shorter_way_round() -> None:
    points = Points.of(Ring(sites=8))
    found = points.distances({"site": np.array([0.0, 6.5])})
    np.testing.assert_allclose(found[:, 0], [0, 1, 2, 3, 4, 3, 2, 1])
    np.testing.assert_allclose(found[:, 1], [1.5, 2.5, 3.5, 3.5, 2.5, 1.5, 0.5, 0.5])
    np.testing.assert_allclose(points.among({"site": np.array([0.0, 6.5])}), [[0, 1.5], [1.5, 0]])


def test_distances_in_a_bounded_plane_are_euclidean() -> None:
    found = Points.of(Field()).distances({"y": np.array([0.0]), "x": np.array([4.0])})
    np.testing.assert_allclose(found[:, 0], np.hypot(*np.meshgrid([0, 3, 6], [4, 0], indexing="ij")).ravel())


def test_distances_in_a_periodic_plane_go_across_its_edges() -> None:
    system = Kolmogorov(resolution=8, coarsen=2)
    points, y = Points.of(system), system.template().y.values
    assert points.channels == 2 and points.count == 16
    found = points.distances({"y": y[:1], "x": y[:1]}).reshape(4, 4)
    assert found[0, 3] == pytest.approx(found[0, 1]) and found[3, 3] == pytest.approx(np.sqrt(2) * found[0, 1])
    assert points.spread(found).shape == (8, 4)
    assert Points.of(QuasiGeostrophic(resolution=8, coarsen=2)).channels == 2


def test_distances_on_the_sphere_are_great_circles_in_km() -> None:
    points, quarter = Points.of(Field(kind="sphere")), 6371.229 * np.pi / 2
    found = points.distances({"lat": np.array([0.0]), "lon": np.array([360.0])}).reshape(3, 4)
    np.testing.assert_allclose(found[1], quarter * np.array([0, 1, 2, 1]), atol=1e-8)
    np.testing.assert_allclose(found[[0, 2], 0], quarter * 60 / 90)


@pytest.mark.parametrize(
    "system", [Ring(sites=20), Kolmogorov(resolution=16, coarsen=2), Field(kind="sphere")], ids=repr
)
def test_tapers_are_correlations(system: System) -> None:
    points = Points.of(system)
    half = {"ring": 5.0, "kolmogorov": np.pi / 2, "field": 6371.0 * np.pi / 2}[system.name]
    taper = gaspari_cohn(points.among(points.places), half)
    assert np.linalg.eigvalsh(taper).min() > -1e-12


def test_observations_know_where_they_are() -> None:
    system = Kolmogorov(resolution=8, coarsen=2, spin_up=0)
    truth = truth_of(system, 2, 0)
    stations = op.points({"y": [1.0, 2.0, 3.0], "x": [0.1, 5.0, 2.0]})
    networks = {
        "blocks": observe(truth, op.coarsen(2), error=1.0, missing=0.3, seed=1),
        "stations": observe(truth, op.compose(op.select("u"), stations), error=1.0),
    }
    places = model_of(system, networks, 2, first=system.initial(2, seed=0)).observations[1].places
    assert set(places) >= {"y", "x"} and np.isfinite(places["y"]).all()
    np.testing.assert_allclose(places["y"][-3:], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(places["x"][-3:], [0.1, 5.0, 2.0])
    blocks = networks["blocks"].isel(time=1)
    seen = np.isfinite(blocks.u.values).ravel()
    expected = np.meshgrid(blocks.y, blocks.x, indexing="ij")[0].ravel()[seen]
    np.testing.assert_allclose(places["y"][: seen.sum()], expected)


def test_a_mean_along_a_dimension_is_everywhere_along_it() -> None:
    points = Points.of(Kolmogorov(resolution=8, coarsen=2))
    found = points.distances({"y": points.places["y"][:1], "x": np.array([np.nan])}).reshape(4, 4)
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], 4, axis=1))


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(OptionError, match="needs places, a state of linear has none .it is the scalars x1, x2, x3."):
        Points.of(TRIPLE)
    with pytest.raises(OptionError, match="needs numbers as coordinate of ..y., .x.. of field, found none"):
        Points.of(Field(kind="bare"))
    points = Points.of(Ring())
    with pytest.raises(DataError, match="the place of each observation along site, found 1 without"):
        points.distances({"site": np.array([0.0, np.nan])})
    with pytest.raises(DataError, match="found all without"):
        points.distances({})
    with pytest.raises(DataError, match="along lat or lon, found 1 without"):
        Points.of(Field(kind="sphere")).distances({"lat": np.array([0.0]), "lon": np.array([np.nan])})


def test_tapers_of_a_network_are_computed_once(monkeypatch) -> None:
    points, calls = Points.of(Ring(sites=8)), []
    between = Points._between
    monkeypatch.setattr(Points, "_between", lambda *args: calls.append(1) or between(*args))
    networks = [{"site": np.array([0.0, shift])} for shift in (1.0, 2.5)]
    for _ in range(3):
        for observed in networks:
            expected = gaspari_cohn(between(points, points.places, observed), 1.5)
            np.testing.assert_array_equal(points.tapers(observed, 1.5), expected)
            expected = gaspari_cohn(between(points, observed, observed), 1.5)
            np.testing.assert_array_equal(points.tapers_among(observed, 1.5), expected)
    assert len(calls) == 4
    np.testing.assert_array_equal(points.tapers(networks[0], 3.0), gaspari_cohn(points.distances(networks[0]), 3.0))
    for shift in np.linspace(3, 4, 20):
        points.tapers({"site": np.array([shift])}, 1.5)
    assert len(points._tapers) == 8  # places of a moving instrument do not pile up
