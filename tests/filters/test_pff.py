"""The particle flow filter against quadrature, the Kalman filter and dense sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analyses import analysed, quantiles, seen
from chains import truth_of
from families import FAMILIES
from filtered import QUIET
from linear_ensembles import exact_ensemble

from sdaxr import operators as op
from sdaxr.filters.localisation import Points, gaspari_cohn
from sdaxr.filters.pff import PFF, Covariance, matrix_flow, scalar_flow
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96

# The end of the flow, and not what it reaches in few steps.
END = {"tolerance": 1e-3, "steps": 5000}
NODES = np.linspace(-6, 6, 6001)


def quadrature(log_density: np.ndarray, members: int) -> np.ndarray:
    """Quantiles of a density at `NODES`, (members,)."""
    density = np.exp(log_density - log_density.max())
    return np.interp((np.arange(members) + 0.5) / members, np.cumsum(density) / density.sum(), NODES)


@pytest.mark.parametrize(("members", "ratio"), [(20, 0.940), (80, 0.960), (320, 0.977)])
def test_a_scalar_has_the_mean_of_the_kalman_filter_and_its_spread_in_the_limit(members: int, ratio: float) -> None:
    found = analysed(PFF(**END), 3 + 2 * quantiles(members), seen(lambda x: x, 5.0, 2.0))
    assert found.mean() == pytest.approx(4, abs=5e-3)
    assert found.std(ddof=1) / np.sqrt(2) == pytest.approx(ratio, abs=2e-3)


@pytest.mark.parametrize("prior", [0.0, 0.3])
@pytest.mark.parametrize("error", [0.5, 1.0])
def test_two_modes_are_those_of_quadrature(prior: float, error: float) -> None:
    members = 200
    found = np.sort(analysed(PFF(**END), prior + quantiles(members), seen(torch.square, 1.0, error))[:, 0])
    expected = quadrature(-((NODES - prior) ** 2) / 2 - (1 - NODES**2) ** 2 / (2 * error**2), members)
    assert np.abs(found - expected).mean() < 0.015 * expected.std()


def test_errors_of_another_family() -> None:
    members = 200
    found = np.sort(analysed(PFF(**END), quantiles(members), seen(lambda x: x, 2.0, 0.5, "laplace"))[:, 0])
    expected = quadrature(-(NODES**2) / 2 + FAMILIES["laplace"].logpdf((2 - NODES) / 0.5), members)
    # The density of the errors is a mixture close to that of the family (`sdaxr.posterior.mixture`).
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize("kernel", ["matrix", "scalar"])
def test_correlated_elements_have_what_their_kernel_knows(kernel: str) -> None:
    covariance, errors, y = np.array([[1.0, 0.7], [0.7, 1.0]]), np.array([0.5, 1.0]), np.array([1.0, 0.5])
    precision = np.linalg.inv(covariance) + np.diag(1 / errors**2)
    posterior = np.linalg.inv(precision)
    method = PFF(kernel=kernel, width=0.3 if kernel == "scalar" else None, **END)
    found = analysed(method, exact_ensemble(np.zeros(2), covariance, 200), seen(lambda x: x, y, errors))
    np.testing.assert_allclose(found.mean(0), posterior @ (y / errors**2), atol=5e-3)
    products = precision @ np.cov(found.T)
    np.testing.assert_allclose(products.diagonal(), 1, atol=0.07)
    if kernel == "scalar":
        np.testing.assert_allclose(np.cov(found.T), posterior, rtol=0.03)


def test_flows_are_the_sums_over_pairs_of_members() -> None:
    random = np.random.default_rng(0)
    x, gradient = random.normal(size=(5, 3)), random.normal(size=(5, 3))
    widths = np.array([0.3, 0.0, 2.0])
    expected = np.zeros_like(x)
    for i in range(5):
        for j in range(5):
            for a in (0, 2):
                apart = x[i, a] - x[j, a]
                kernel = np.exp(-(apart**2) / 2 / widths[a])
                expected[i, a] += (kernel * gradient[j, a] + kernel * apart / widths[a]) / 5
    np.testing.assert_allclose(matrix_flow(x, gradient, widths), expected)
    prior, inverse = Covariance.of(x, None, None), np.linalg.inv(np.cov(x.T))
    expected = np.zeros_like(x)
    for i in range(5):
        for j in range(5):
            apart = x[i] - x[j]
            kernel = np.exp(-apart @ inverse @ apart / 2 / 0.4)
            expected[i] += (kernel * gradient[j] + kernel * inverse @ apart / 0.4) / 5
    np.testing.assert_allclose(scalar_flow(x, gradient, prior, 0.4), expected, atol=1e-12)


def test_localisation_is_that_of_a_dense_covariance() -> None:
    points, x = Points.of(Lorenz96(sites=9)), np.random.default_rng(0).normal(size=(5, 9))
    apart = np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
    dense = np.cov(x.T) * gaspari_cohn(np.minimum(apart, 9 - apart), 2.0)
    prior = Covariance.of(x, points, 2.0)
    np.testing.assert_allclose(prior.times(np.eye(9)), dense, atol=1e-12)
    np.testing.assert_allclose(prior.solve(np.eye(9)), np.linalg.inv(dense), rtol=1e-6)
    np.testing.assert_allclose(prior.variances, dense.diagonal())
    observed = np.array([0, 3, 4])
    y, error = np.array([0.5, -1.0, 2.0]), 0.7
    observation = seen(lambda x: x[:, observed], y, error)
    found = analysed(PFF(localisation=2.0, steps=1, step=1e-3), x, observation, points=points)
    slope = np.zeros_like(x)
    slope[:, observed] = (y - x[:, observed]) / error**2
    slope -= (x - x.mean(0)) @ np.linalg.inv(dense)
    flow = matrix_flow(x, slope, dense.diagonal() / 5)
    np.testing.assert_allclose(found, x + 1e-3 * flow @ dense, atol=1e-10)
    # Without localisation, members move within their span only.
    found = analysed(PFF(), x, observation)
    assert np.linalg.matrix_rank(np.vstack([x - x.mean(0), found - x.mean(0)]), tol=1e-8) == 4


def test_observations_that_saturate_do_not_throw_members_away() -> None:
    x = 10 * quantiles(20)
    found = analysed(PFF(), x, seen(torch.arctan, np.arctan(0.5), 0.02))
    assert np.abs(found).max() <= np.abs(x).max()
    assert (np.abs(found - 0.5) < 0.5).sum() > 2 * (np.abs(x - 0.5) < 0.5).sum()


def test_a_ring_is_followed() -> None:
    truth = truth_of(Lorenz96(sites=12), 41, 1)
    some = observe(truth, op.subsample(2), error=0.3, every=2, seed=2)
    method = {"name": "pff", "localisation": 3, "rtps": 0.3}
    found = smooth(some, Lorenz96(sites=12), method=method, members=12, seed=1, **QUIET)
    error = float(np.sqrt(((found.x.mean("member") - truth.x).isel(time=slice(20, None)) ** 2).mean()))
    assert error < 0.4 * float(truth.x.std())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"localisation": 0.0}, "found localisation=0.0 for PFF, expected a number above 0"),
        ({"kernel": "full"}, "found kernel='full' for PFF, expected 'matrix' or 'scalar'"),
        ({"width": 0.0}, "found width=0.0 for PFF, expected a number above 0"),
        ({"steps": 0}, "found steps=0 for PFF, expected a whole number of at least 1"),
        ({"step": 0.0}, "found step=0.0 for PFF, expected a number above 0"),
        ({"tolerance": 1.0}, "found tolerance=1.0 for PFF, expected a number of at least 0 and below 1"),
    ],
)
def test_options_that_are_impossible(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PFF(**options)


def test_localisation_needs_places() -> None:
    method = {"name": "pff", "localisation": 3}
    scalars = observe(truth_of(Lorenz63(spin_up=10), 3, 1), op.identity(), error=1.0)
    with pytest.raises(OptionError, match="a state of lorenz63 has none"):
        smooth(scalars, Lorenz63(spin_up=10), method=method, members=4, **QUIET)
