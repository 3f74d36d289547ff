"""Ensemble filters of a state with parameters, against the Kalman filter of the augmented system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.localisation import Points
from sdaxr.schema import OptionError
from sdaxr.systems.augmented import Augmented
from sdaxr.systems.base import System
from sdaxr.systems.lorenz96 import Lorenz96

SITES, LENGTH, ERROR = 3, 6, 0.5
MATRIX = 0.6 * np.eye(SITES) + 0.2 * np.roll(np.eye(SITES), 1, 0)


@dataclass(frozen=True)
class Forced(System):
    """A linear map without noise, and a constant forcing of all sites."""

    name: ClassVar[str] = "forced"
    parameters: ClassVar[Mapping[str, str]] = {"forcing": "K"}

    forcing: float = 0.3

    def template(self) -> xr.Dataset:
        site = ("site", np.arange(float(SITES)), {"units": "1"})
        return xr.Dataset({"x": ("site", np.zeros(SITES, np.float32), {"units": "K"})}, {"site": site})

    def trajectory(self, steps: int, seed: int) -> dict[str, np.ndarray]:
        first = np.random.default_rng(seed).normal(size=(1, SITES)) + self.forcing
        return {"x": self.advance_ensemble(first, steps, np.random.default_rng(0))[:, 0].astype(np.float32)}

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def advance_ensemble(self, x: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
        states = np.empty((steps, *x.shape))
        for i in range(steps):
            x = states[i] = x @ MATRIX.T + self.forcing
        return states


def kalman(first: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the last augmented state from the moments of the first ensemble, (members, n)."""
    step = np.block([[MATRIX, np.ones((SITES, 1))], [np.zeros((1, SITES)), np.ones((1, 1))]])
    mean, covariance, h = first.mean(0), np.cov(first.T), np.eye(SITES + 1)[:SITES]
    for i, row in enumerate(y):
        if i:
            mean, covariance = step @ mean, step @ covariance @ step.T
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + ERROR**2 * np.eye(SITES))
        mean, covariance = mean + gain @ (row - h @ mean), covariance - gain @ h @ covariance
    return mean, covariance


# So far that the taper is 1: localisation changes nothing, with the parameter as with the field.
@pytest.mark.parametrize(
    "method", ["etkf", "ensrf", {"name": "letkf", "localisation": 1e4}, {"name": "ensrf", "localisation": 1e4}]
)
def test_square_root_filters_are_the_kalman_filter_of_state_and_parameter(method: str | dict) -> None:
    system = Augmented.of(Forced(), {"forcing": (-1, 1)})
    truth = xr.Dataset(
        {"x": (("time", "site"), Forced(0.7).trajectory(LENGTH, 3)["x"], {"units": "K"})},
        {"time": ("time", np.arange(float(LENGTH)), {"units": "1"}), "site": np.arange(float(SITES))},
    )
    observations = sdaxr.observe(truth, op.select("x"), error=ERROR, seed=1)
    background = xr.Dataset(
        {
            "x": (("member", "site"), np.random.default_rng(0).normal(size=(9, SITES)), {"units": "K"}),
            "forcing": ("member", np.random.default_rng(1).uniform(-1, 1, 9), {"units": "K"}),
        },
        {"time": 0.0, "site": np.arange(float(SITES))},
    )
    found = sdaxr.assimilate(
        observations, system=system, method=method, members=9, background=background, progress=False
    )
    assert found.forcing.dims == ("member", "time") and found.x.dims == ("member", "time", "site")
    first = np.column_stack([background.x.values, background.forcing.values])
    mean, covariance = kalman(first, observations.x.values.astype(float))
    last = np.column_stack([found.x.values[:, -1], found.forcing.values[:, -1]])
    np.testing.assert_allclose(last.mean(0), mean, atol=1e-4)
    np.testing.assert_allclose(np.cov(last.T), covariance, atol=1e-4)
    # The forcing is learnt, though it is not observed.
    assert covariance[-1, -1] ** 0.5 < 0.25 * first[:, -1].std()


@pytest.mark.parametrize("name", ["enkf", "letkf", "ensrf"])
def test_localised_filters_find_the_forcing_of_a_chaotic_system(name: str) -> None:
    model = Lorenz96(sites=20, spin_up=100)
    system = Augmented.of(model, {"forcing": (6, 10)})
    fields = Lorenz96(sites=20, spin_up=100, forcing=7.0).trajectory(120, 1)
    template = model.template()
    truth = xr.Dataset(
        {"x": (("time", "site"), fields["x"], template.x.attrs)},
        {"time": ("time", 0.05 * np.arange(120), {"units": "1"}), "site": template.site},
    )
    observations = sdaxr.observe(truth, op.select("x"), error=0.5, seed=2)
    found = sdaxr.cycle(
        observations, system=system, window=60, members=20, progress=False,
        method={"name": name, "localisation": 7.0, "inflation": 1.04},
    )  # fmt: skip
    ends = found.forcing.isel(time=[0, -1])
    assert abs(float(ends[:, 1].mean()) - 7.0) < 0.15 < float(ends[:, 0].std())


def test_patterns_of_trajectories_are_of_fields_alone() -> None:
    system = Augmented.of(Lorenz96(sites=8, spin_up=10), {"forcing": (6, 10)})
    time = ("time", [0.0, 0.05], {"units": "1"})
    truth = Lorenz96(sites=8).template().expand_dims(time=2).assign_coords(time=time)
    observations = sdaxr.observe(truth, op.identity(), error=3.0)
    for given, expected in (({"trajectories": truth}, r"found the scalars \['forcing'\]"), ({}, None)):
        method = {"name": "latent", "filter": "etkf", **given}
        if expected is None:
            assert "forcing" in sdaxr.assimilate(observations, system=system, method=method, progress=False)
            continue
        with pytest.raises(OptionError, match=expected):
            sdaxr.assimilate(observations, system=system, method=method, progress=False)


def test_scalars_are_near_to_everything() -> None:
    points = Points.of(Augmented.of(Lorenz96(sites=8), {"forcing": (6, 10), "damping": (0.9, 1.1)}))
    assert (points.count, points.channels, points.scalars) == (8, 1, 2)
    distances = points.distances({"site": np.array([0.0, 3.0])})
    np.testing.assert_allclose(distances[:, 0], [0, 1, 2, 3, 4, 3, 2, 1, 0, 0])
    np.testing.assert_array_equal(points.spread(distances), distances)


def test_the_particle_flow_refuses_a_taper_beside_scalars() -> None:
    system = Augmented.of(Lorenz96(sites=8, spin_up=10), {"forcing": (6, 10)})
    time = ("time", [0.0, 0.05], {"units": "1"})
    truth = Lorenz96(sites=8).template().expand_dims(time=2).assign_coords(time=time)
    observations = sdaxr.observe(truth, op.identity(), error=3.0)
    with pytest.raises(OptionError, match=r"method='pff' is for fields alone, found 1 scalars"):
        sdaxr.assimilate(observations, system=system, method={"name": "pff", "localisation": 2.0}, progress=False)
