"""Systems and observations of them, as state-space models, for the filters."""

from __future__ import annotations

import numpy as np
import xarray as xr
from chains import TRIPLE, Ring

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.binding import build_model
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.posterior.methods import names
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout
from sdaxr.systems.lorenz63 import Lorenz63

LENGTH = 6
LORENZ = Lorenz63(spin_up=100)
QUIET = {"progress": False}
CASES = {
    "components": (TRIPLE, op.select("x1", "x3"), {"error": {"x1": 0.6, "x3": 0.9}, "every": 2}),
    "scaled and gappy": (TRIPLE, op.scale(2.0, offset=1.0), {"error": 2.0, "missing": 0.4}),
    "on a grid": (Ring(), op.coarsen(2), {"error": 0.8, "start": 1, "every": 3}),
    "at stations": (Ring(), op.points({"site": [0.25, 3.5]}), {"error": 1.0}),
    "correlated": (Ring(), op.coarsen(2), {"error": 0.8, "correlation": {"site": 3.0}}),
}


# The two means over half a ring of four sites are two sites apart.
CORRELATION = np.kron(np.eye(LENGTH), [[1.0, np.exp(-2 / 3)], [np.exp(-2 / 3), 1.0]])


# Options that keep methods that need a system short, and what the scalar, noisy chains of these tests are not for.
OPTIONS = {"ffbs": {"particles": 256}, "bpf": {"particles": 256}, "4dvar": {"particles": 256}}
SCALAR = [name for name in names("system") if name not in ("letkf", "ienks")]


def model_of(
    system: System, networks: dict[str, xr.Dataset], length: int = LENGTH, first: np.ndarray | None = None
) -> StateSpaceModel:
    operators = {name: sdaxr.observations.observe.operator_for(data) for name, data in networks.items()}
    return build_model(networks, operators, system, system_layout(system).times(0.0, length), first=first)[0]


def assert_same_gaussian(paths: np.ndarray, exact: tuple, independent: int) -> None:
    """Means, and covariances of each state with itself and the next one, within five standard errors."""
    mean, covariance, _ = exact
    deviation = np.sqrt(np.einsum("titi->ti", covariance))
    error = 5 / np.sqrt(independent)
    assert np.abs((paths.mean(0) - mean) / deviation).max() < error
    away = (paths - paths.mean(0)) / deviation
    for later in (0, 1):
        steps = range(len(mean) - later)
        found = np.array([away[:, t].T @ away[:, t + later] / len(paths) for t in steps])
        expected = np.array([covariance[t, :, t + later] / np.outer(deviation[t], deviation[t + later]) for t in steps])
        # The product of two correlated normal variables has a variance of at most two.
        assert np.abs(found - expected).max() < np.sqrt(2) * error
