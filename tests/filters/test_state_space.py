"""Observations and errors as filters take them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from chains import TRIPLE, truth_of
from families import FAMILIES
from filtered import LENGTH, LORENZ, QUIET
from scipy import stats

from sdaxr import operators as op
from sdaxr.filters.smoothing import smooth
from sdaxr.filters.state_space import ObservationErrors
from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.observe import observe
from sdaxr.observations.shared import Biases
from sdaxr.schema import DataError, OptionError
from sdaxr.systems.lorenz63 import Lorenz63


def test_particle_filters_weigh_with_the_density() -> None:
    std, families = np.array([0.5, 2.0, 1.0]), np.array(["laplace", "gaussian", "gaussian"])
    correlation = np.array([[1.0, 0.3], [0.3, 1.0]])
    parts = [
        ObservationErrors(std[:1], families[:1]),
        ObservationErrors(std[1:], families[1:], correlation),
    ]
    d = np.random.default_rng(0).normal(size=(6, 3)) + 1
    joined = ObservationErrors.joined(parts).log_density(d)
    np.testing.assert_allclose(joined, parts[0].log_density(d[:, :1]) + parts[1].log_density(d[:, 1:]))
    covariance = std[1:, None] * correlation * std[1:]
    expected = FAMILIES["laplace"].logpdf(d[:, 0] / 0.5) - math.log(0.5)
    expected += stats.multivariate_normal(cov=covariance).logpdf(d[:, 1:])
    np.testing.assert_allclose(joined, expected, atol=0.15)


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_scores_are_derivatives_of_the_density(family: str) -> None:
    d, step = np.random.default_rng(0).normal(size=(4, 3)), 1e-5
    correlation = np.array([[1.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.0]])
    std, families = np.array([0.5, 2.0, 1.0]), np.full(3, family)
    biases = Biases(["p"], np.zeros(3, int), {"constant": 0.7}, np.ones((3, 1)))
    kinds = [ObservationErrors(std, families)]
    if family == "gaussian":
        kinds += [
            ObservationErrors(std, families, correlation),
            ObservationErrors(std, families, shared=SharedCovariance.of(std**2, biases)),
        ]
    for errors in kinds:
        up, down = (np.stack([errors.log_density(d + s * step * e) for e in np.eye(3)], -1) for s in (1, -1))
        np.testing.assert_allclose(errors.score(d), (down - up) / (2 * step), rtol=1e-4, atol=1e-6)


def test_errors_with_biases_have_their_joint_density() -> None:
    predictors = np.array([[1, 3], [1, 0], [1, -1]])
    biases = Biases(["p", "q"], np.array([0, 1, 0]), {"constant": 0.7, "height": 0.2}, predictors)
    shared = SharedCovariance.of(np.array([0.25, 1.0, 0.5]), biases)
    covariance = np.diag([0.25, 1.0, 0.5])
    covariance[np.ix_([0, 2], [0, 2])] += 0.49 + 0.04 * np.outer([3, -1], [3, -1])
    covariance[1, 1] += 0.49
    errors = ObservationErrors(np.sqrt(covariance.diagonal()), np.full(3, "gaussian"), shared=shared)
    d = np.random.default_rng(0).normal(size=(2, 4, 3))
    expected = stats.multivariate_normal(cov=covariance).logpdf(d)
    np.testing.assert_allclose(errors.log_density(d), expected)
    np.testing.assert_allclose(errors.covariance, covariance)
    single = ObservationErrors(np.array([0.6]), np.array(["gaussian"]))
    pair = ObservationErrors(np.ones(2), np.full(2, "gaussian"), np.array([[1.0, 0.3], [0.3, 1.0]]))
    for other in (single, pair):
        joined = ObservationErrors.joined([errors, other])
        np.testing.assert_allclose(joined.covariance, scipy.linalg.block_diag(covariance, other.covariance))
        extra = np.full((2, 4, len(other.std)), 0.4)
        together = joined.log_density(np.concatenate([d, extra], axis=-1))
        np.testing.assert_allclose(together, expected + other.log_density(extra))


def test_systems_that_do_not_fit(observations: xr.Dataset, lorenz_observations: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'lorenz96' has no Gaussian noise, expected a sdaxr.systems.MarkovChain"):
        smooth(observations, "lorenz96", **QUIET)
    with pytest.raises(OptionError, match="needs a Gaussian first state, the first state of lorenz63 is not"):
        smooth(lorenz_observations, LORENZ, method="kalman", store=tmp_path / "a.zarr", **QUIET)
    curved = observe(truth_of(TRIPLE, LENGTH, 1), op.arctan(), error=0.1)
    with pytest.raises(OptionError, match="needs linear functions, the observation operator at 0.0 is not"):
        smooth(curved, TRIPLE, method="kalman", store=tmp_path / "a.zarr", **QUIET)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OptionError, match="without noise there is no density"):
        smooth(lorenz_observations, Lorenz63(spin_up=10, noise=0), method={"name": "ffbs", "particles": 64}, **QUIET)
    with pytest.raises(DataError, match=r"expected linear's 1 .*|span .* steps of linear"):
        smooth(observations, "linear", times=0.5 * np.arange(LENGTH), **QUIET)
    with pytest.raises(DataError, match="gives no variable 'x3'"):
        smooth(observations.rename(x2="x3", x2_error="x3_error"), TRIPLE, operator=op.select("x2"), **QUIET)
