"""Filters in the space of patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chains import truth_of
from filtered import QUIET
from linear_ensembles import linear_case

from sdaxr import operators as op
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.latent import Latent, Patterns
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.lorenz96 import Lorenz96

RING = Lorenz96(sites=12)


@pytest.mark.parametrize("inner", [ETKF(), ETKF(rotation=True, inflation=1.1), ETKF(rtps=0.5, rtpp=0.2)])
def test_with_all_patterns_a_filter_is_itself(inner: ETKF) -> None:
    model, _ = linear_case(op.coarsen(2), error=0.4, missing=0.2)
    plain, latent = (method.draw(model, 20, seed=1) for method in (inner, Latent(filter=inner)))
    np.testing.assert_allclose(latent.paths, plain.paths, atol=1e-6)
    assert latent.about == pytest.approx(plain.about, rel=1e-6)


def test_patterns_are_those_of_the_covariance() -> None:
    states = np.random.default_rng(0).normal(size=(50, 6)) @ np.random.default_rng(1).normal(size=(6, 6)) + 3
    patterns = Patterns.of(states, 1)
    np.testing.assert_allclose(patterns.rows.T @ patterns.rows, np.cov(states.T))
    values, vectors = np.linalg.eigh(np.cov(states.T))
    leading = patterns.leading(2)
    np.testing.assert_allclose(np.linalg.norm(leading.rows, axis=1), np.sqrt(values[:-3:-1]))
    np.testing.assert_allclose(np.abs(leading.rows @ vectors[:, -1]), [np.sqrt(values[-1]), 0], atol=1e-9)
    np.testing.assert_allclose(leading.rows @ leading.inverse, np.eye(2), atol=1e-12)
    coefficients = (states - states.mean(0)) @ patterns.inverse
    np.testing.assert_allclose(np.cov(coefficients.T), np.eye(6), atol=1e-9)


def test_fields_have_the_same_weight_and_constant_ones_none() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(40, 3)), random.normal(size=(40, 3))
    found, scaled = (Patterns.of(np.hstack([one, factor * other, np.ones((40, 3))]), 3) for factor in (1, 1e6))
    assert found.rows.shape == scaled.rows.shape == (6, 9)
    np.testing.assert_allclose(scaled.rows / np.repeat([1, 1e6, 1], 3), found.rows, atol=1e-9)
    assert not found.rows[:, 6:].any()


def test_what_patterns_do_not_span_stays_the_forecast() -> None:
    truth = truth_of(RING, 2, 1)
    every = observe(truth, op.identity(), error=0.5, start=1, every=2, seed=2)
    found, free = (
        smooth(seen, RING, method={"name": "latent", "modes": 3}, members=20, seed=1, times=truth.time.values, **QUIET)
        for seen in (every, every.assign(x_error=1e6))
    )
    changed = (found.x - free.x).isel(time=1).values
    patterns = Patterns.of(free.x.isel(time=0).values.astype(float), 1).leading(3)
    outside = changed - changed @ patterns.inverse @ patterns.rows
    assert np.abs(changed).max() > 0.1 and np.abs(outside).max() < 1e-4


def test_patterns_of_trajectories_from_a_file(tmp_path: Path) -> None:
    library, truth = truth_of(RING, 200, 7), truth_of(RING, 11, 1)
    seen = observe(truth, op.subsample(2), error=0.3, every=2, seed=2)
    library.to_netcdf(tmp_path / "library.nc")
    options = {"members": 8, "seed": 1} | QUIET
    method = {"name": "latent", "filter": {"name": "ensf", "scale": 1, "steps": 20}, "modes": 9}
    one, other = (
        smooth(seen, RING, method=method | {"trajectories": t}, **options) for t in (library, tmp_path / "library.nc")
    )
    xr.testing.assert_identical(one, other)
    listed = library.drop_vars("time").coarsen(time=2).construct(time=("pair", "of_pair")).transpose("site", ...)
    assert one.x.equals(smooth(seen, RING, method=method | {"trajectories": listed}, **options).x)
    assert not one.x.equals(smooth(seen, RING, method=method | {"modes": 5, "trajectories": library}, **options).x)
    assert one.attrs["members_distribution"] == "filtering"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": 0}, "found modes=0 for latent, expected a whole number of at least 1"),
        (
            {"modes": 8},
            "modes=8 for latent, expected at most 7, the patterns of the 8 states of the first ensemble",
        ),
        ({"filter": "ffbs"}, "found filter='ffbs' for Latent, expected an ensemble filter"),
        ({"filter": 3}, "found filter=3 for Latent, expected an ensemble filter"),
        ({"filter": "latent"}, "found filter='latent' for Latent, expected an ensemble filter"),
        (
            {"filter": {"name": "pff", "localisation": 3}},
            "filter='pff' with localisation for Latent, expected one",
        ),
        ({"filter": "enf"}, "unknown method 'enf'.*Did you mean"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str) -> None:
    seen = observe(truth_of(RING, 3, 1), op.identity(), error=1.0)
    with pytest.raises(OptionError, match=message):
        smooth(seen, RING, method={"name": "latent"} | options, members=8, **QUIET)


def test_the_errors_are_those_that_the_filter_takes() -> None:
    seen = observe(truth_of(RING, 3, 1), op.identity(), error=1.0, noise="laplace")
    with pytest.raises(OptionError, match="method='latent' is for Gaussian errors, found laplace"):
        smooth(seen, RING, method="latent", members=8, **QUIET)
    smooth(seen, RING, method={"name": "latent", "filter": "pff"}, members=8, **QUIET)
