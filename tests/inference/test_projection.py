"""Moments of observed quantities under a prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from white import white_prior

from sdaxr.inference import projection
from sdaxr.inference.evidence import Evidence, screen
from sdaxr.inference.projection import local_moments, natural_moments
from sdaxr.observations.observe import operator_for
from sdaxr.observations.screening import Screening


@pytest.fixture
def data() -> xr.Dataset:
    """Noise of standard deviation 2 around 10 in the south and 20 in the north."""
    values = np.array([10.0, 20.0])[:, None] + 2 * np.random.default_rng(0).normal(size=(1000, 2, 8))
    coords = {"time": np.arange(1000.0), "y": [0.0, 1.0], "x": np.arange(8.0)}
    return xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, coords)


def evidence(data: xr.Dataset, number: int) -> Evidence:
    random, prior = np.random.default_rng(1), white_prior(data)
    at = {"time": random.integers(0, 5, number) * 1.0, "y": random.integers(0, 2, number) * 1.0}
    at["x"] = random.uniform(0, 7, number)
    seen = xr.Dataset(
        {"t": ("obs", np.full(number, 15.0), {"units": "K"}), "t_error": 1.0}, {n: ("obs", v) for n, v in at.items()}
    )
    times = prior.layout.times(0.0, 5)
    return screen(seen, operator_for(seen), prior, times, torch.device("cpu"), Screening())


def test_natural_moments_are_those_of_all_places(data: xr.Dataset) -> None:
    mean, scale = natural_moments(evidence(data, 4000).seen, 5)
    np.testing.assert_allclose(mean, 15.0, rtol=0.02)
    # The variance of an interpolation between two independent points is 2/3 of theirs on average.
    np.testing.assert_allclose(scale, np.sqrt(25 + 4 * 2 / 3), rtol=0.02)


def test_local_moments_are_those_of_a_place(data: xr.Dataset) -> None:
    found = evidence(data, 50)
    mean, variance = local_moments(found.seen, 5, draws=400)
    north = found.points.template.coords["y"].values == 1
    np.testing.assert_allclose(mean, np.where(north, 20.0, 10.0), atol=0.5)
    x = found.points.template.coords["x"].values % 1
    np.testing.assert_allclose(variance, 4 * (x**2 + (1 - x) ** 2), rtol=0.3)


def test_very_many_places_are_represented_by_some(data: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evidence(data, 2000)
    monkeypatch.setattr(projection, "PLACES", 500)
    some = evidence(data, 2000)
    assert whole.seen.sparse is None and some.seen.sparse.bound.template.sizes["obs"] == 500
    assert some.scale.shape == (2000,) and not torch.equal(some.scale, whole.scale)
    np.testing.assert_allclose(some.scale, whole.scale, rtol=0.1)
