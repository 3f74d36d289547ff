"""Labelled observations as tensors, and the variances that guidance is given, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from families import quadrature
from gaussian import GaussianChain
from white import white_prior

from sdaxr import operators as op
from sdaxr.inference.binding import bind_observations
from sdaxr.observations.bias import with_bias
from sdaxr.observations.observe import observe
from sdaxr.posterior.guidance.mmps import MMPS
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, GridError, OperatorError, UnitsError

CPU = torch.device("cpu")
LENGTH = 8
CHAIN = GaussianChain(LENGTH)


def bound(observations: xr.Dataset, operator: op.Operator, prior: Prior, length: int = LENGTH):
    return bind_observations(observations, operator, prior, prior.layout.times(0.0, length), CPU)


def test_values_errors_and_operator_are_in_the_same_order() -> None:
    prior, truth = CHAIN.prior(), CHAIN.truth(1)
    observations = observe(truth, op.identity(), every=3, error={"a": 0.5, "b": 0.25}, missing=0.3, seed=2)
    found = bound(observations, op.identity(), prior)
    normalised = torch.as_tensor(prior.layout.to_array(truth))[None]
    innovation = found.innovation(normalised)[0].numpy()
    expected, errors = [], []
    for name in "ab":
        seen = observations[name].notnull().values
        expected.append((observations[name] - truth[name]).values[seen])
        errors.append(np.full(seen.sum(), observations[f"{name}_error"].item()))
    np.testing.assert_allclose(innovation, np.concatenate(expected), atol=1e-3)
    np.testing.assert_allclose(found.errors, np.concatenate(errors))


@pytest.mark.parametrize("correlated", [False, True])
def test_biases_are_integrated_out(correlated: bool) -> None:
    """E[x | z, y] is that of the joint Gaussian of the states and the coefficients of the biases."""
    prior, r, spread = CHAIN.prior(), 0.7, 0.5
    scales = {"correlation": {"time": 1.0}} if correlated else {}
    plain = observe(CHAIN.truth(1), op.identity(), error=spread, seed=2, **scales)
    angle, orbit = np.linspace(-1, 2, LENGTH), np.arange(LENGTH) % 2
    plain = plain.assign_coords(angle=("time", angle), orbit=("time", orbit))
    network = bound(with_bias(plain, {"a": 0.8}, by="orbit", predictors={"angle": 0.4}), op.identity(), prior)
    z = torch.as_tensor(np.random.default_rng(3).normal(size=(2, LENGTH, 2)), dtype=torch.float32)
    found = MMPS(iterations=40).guide(CHAIN.denoise, [network])(z, r)
    # Unknowns: the normalised states, then the constant and the slope of both orbits.
    xhat, v = CHAIN.denoise(z.double(), r).flatten(1).numpy(), r**2 * CHAIN.unresolved(r)
    design = np.concatenate([np.eye(2)[orbit], np.eye(2)[orbit] * angle[:, None]], axis=1)
    states = 2 * np.eye(2 * LENGTH).reshape(LENGTH, 2, -1).swapaxes(0, 1).reshape(2 * LENGTH, -1)
    h = np.hstack([states, np.concatenate([design, 0 * design])])
    joint = scipy.linalg.block_diag(v, np.diag([0.8, 0.8, 0.4, 0.4]) ** 2)
    lag = np.abs(np.subtract.outer(plain.time.values, plain.time.values))
    own = spread**2 * np.kron(np.eye(2), np.exp(-lag) if correlated else np.eye(LENGTH))
    innovation = np.concatenate([plain.a.values, plain.b.values]) - 280 - xhat @ states.T
    change = innovation @ np.linalg.inv(h @ joint @ h.T + own).T @ h @ joint
    np.testing.assert_allclose(found.flatten(1), xhat + change[:, : 2 * LENGTH], atol=2e-3)


@pytest.mark.parametrize("attribute", [{"bias": 0.3}, {"correlation_scales": '{"time": 1.0}'}], ids=str)
def test_shared_errors_beside_errors_that_are_not_gaussian_are_refused(attribute: dict[str, object]) -> None:
    seen = observe(CHAIN.truth(1), op.identity(), error=0.5)
    seen["a_error"].attrs |= attribute
    seen["b_error"].attrs["distribution"] = "laplace"
    with pytest.raises(DataError, match=r"families \['gaussian', 'laplace'\] in one network, .* as two networks"):
        bound(seen, op.identity(), CHAIN.prior())


def closed_form(r: float, times: list[int]) -> float:
    """Variance of one variable given z, times the largest eigenvalue of its correlation between the observed times."""
    covariance = r**2 * CHAIN.unresolved(r).reshape(LENGTH, 2, LENGTH, 2)[:, 0, :, 0]
    seen = covariance[np.ix_(times, times)]
    deviation = np.sqrt(np.diag(seen))
    return float(np.diag(covariance).mean() * np.linalg.eigvalsh(seen / np.outer(deviation, deviation))[-1])


@pytest.mark.parametrize("operator", [op.identity(), op.select("b"), op.scale(3.0)], ids=repr)
def test_variance_given_z_is_the_closed_form(operator: op.Operator) -> None:
    """r^2 C (C + r^2 I)^-1, averaged over the times, in physical units, and counted once."""
    prior = CHAIN.prior(samples=2500)
    observations = observe(CHAIN.truth(1), operator, every=2, error=0.5)
    found = bound(observations, operator, prior)
    scale = 6.0 if "scale" in repr(operator) else 2.0
    names = 1 if "select" in repr(operator) else 2
    assert found.values.shape == (names * LENGTH // 2,)
    np.testing.assert_allclose(found.scale, scale, rtol=0.25)  # from a few draws
    for r in (0.01, 0.1, 1.0, 10.0, 100.0):
        expected = closed_form(r, list(range(0, LENGTH, 2)))
        np.testing.assert_allclose(found.unresolved(r), scale**2 * expected, rtol=0.12)


def test_variance_for_longer_windows_than_the_reference() -> None:
    prior = CHAIN.prior(samples=1000)
    longer = GaussianChain(20)
    observations = observe(longer.truth(1), op.select("a"), every=5, error=0.5)
    found = bound(observations, op.select("a"), prior, length=20)
    assert found.values.shape == (4,)
    np.testing.assert_allclose(found.unresolved(1.0), 4 * closed_form(1.0, [0, 5]), rtol=0.15)


def test_quantities_without_time() -> None:
    """A difference of two times is one number a variable."""
    prior = CHAIN.prior(samples=500)
    operator = op.time_difference()
    observations = operator.apply(CHAIN.truth(1)).assign(a_error=0.1, b_error=0.1)
    found = bound(observations, operator, prior)
    assert found.values.shape == (2,)
    states = torch.as_tensor(prior.reference[0][:3])
    np.testing.assert_allclose(found.operator(states), 2 * (states[:, -1] - states[:, 0]), atol=1e-3)
    gap = CHAIN.unresolved(1.0)
    row = np.zeros(2 * LENGTH)
    row[[-2, 0]] = 1, -1
    np.testing.assert_allclose(found.unresolved(1.0), 4 * row @ gap @ row, rtol=0.2)


def white(levels: int = 2) -> xr.Dataset:
    """White noise; the levels have very different means and standard deviations."""
    random = np.random.default_rng(0)
    values = random.normal(size=(200, levels, 6, 6)) * np.array([1.0, 5.0])[:levels, None, None]
    values += np.array([200.0, 300.0])[:levels, None, None]
    coords = {"time": np.arange(200.0), "level": np.arange(levels), "y": np.arange(6.0), "x": np.arange(6.0)}
    return xr.Dataset({"t": (("time", "level", "y", "x"), values, {"units": "K"})}, coords)


def test_each_layer_has_its_own_scale_and_variance() -> None:
    data = white()
    observations = observe(data.isel(time=slice(5)), op.identity(), every=4, error=0.5)
    found = bound(observations, op.identity(), white_prior(data), length=5)
    scale = found.scale.reshape(2, 2, 36)
    np.testing.assert_allclose(scale[:, 0], 1, rtol=0.1)
    np.testing.assert_allclose(scale[:, 1], 5, rtol=0.1)
    variance = found.unresolved(1.0).reshape(2, 2, 36)
    np.testing.assert_allclose(variance[:, 0], 0.5, rtol=0.1)
    np.testing.assert_allclose(variance[:, 1], 12.5, rtol=0.1)


def test_land_is_neither_noisy_nor_counted() -> None:
    """Two thirds of land would otherwise make the variance three times too small."""
    data = white(1)
    sea = data.where(data.y < 2)
    prior = white_prior(sea)
    operator = op.identity()
    observations = observe(sea.isel(time=slice(5)), operator, error=0.5)
    found = bound(observations, operator, prior, length=5)
    assert found.values.shape == (5 * 12,)
    assert all(bool((z[..., 2:, :] == 0).all()) for z in prior.network.asked)
    np.testing.assert_allclose(found.scale, 1, rtol=0.1)
    np.testing.assert_allclose(found.unresolved(1.0), 0.5, rtol=0.1)
    coarse = op.coarsen(2)
    found = bound(observe(sea.isel(time=slice(5)), coarse, error=0.5), coarse, prior, length=5)
    assert found.values.shape == (5 * 3,)
    np.testing.assert_allclose(found.unresolved(1.0), 0.125, rtol=0.12)


def test_observations_that_do_not_fit() -> None:
    prior, truth = CHAIN.prior(), CHAIN.truth(1)
    good = observe(truth, op.identity(), error=0.5)
    with pytest.raises(DataError, match="found no finite observation"):
        bound(good.assign(a=good.a * np.nan, b=good.b * np.nan), op.identity(), prior)
    with pytest.raises(UnitsError, match="'a' has units 'degC'"):
        bound(good.assign(a=good.a.assign_attrs(units="degC")), op.identity(), prior)
    with pytest.raises(DataError, match="gives no variable 'c'"):
        bound(good.rename(a="c", a_error="c_error"), op.identity(), prior)
    with pytest.raises(OperatorError, match="no variable 'c'"):
        bound(good, op.select("c"), prior)
    with pytest.raises(DataError, match="lies outside the window"):
        bound(good, op.identity(), prior, length=4)
    grid = white(1).drop_vars("level").isel(level=0)
    layered = white_prior(grid)
    observations = observe(grid.isel(time=slice(5)), op.identity(), error=0.5)
    with pytest.raises(GridError, match="'y' of the observations"):
        bound(observations.assign_coords(y=observations.y + 0.5), op.identity(), layered, length=5)


def test_members_share_or_own_their_observations() -> None:
    found = bound(observe(CHAIN.truth(1), op.identity(), error=0.5), op.identity(), CHAIN.prior())
    assert found.select(torch.tensor([3, 1])) is found
    own = replace(found, values=torch.stack([found.values, found.values + 1]))
    torch.testing.assert_close(own.select(torch.tensor([1])).values, found.values[None] + 1)


def test_correlations_are_bound_in_the_order_of_the_values() -> None:
    prior, truth = CHAIN.prior(), CHAIN.truth(1)
    observations = observe(truth, op.identity(), error=0.5, correlation={"time": 1.5}, missing=0.3, seed=2)
    found = bound(observations, op.identity(), prior)
    times = [truth.time.values[observations[name].notnull().values] for name in "ab"]
    count = len(times[0])
    for name, seen in zip("ab", times, strict=True):
        block = found.correlation[:count, :count] if name == "a" else found.correlation[count:, count:]
        np.testing.assert_allclose(block, np.exp(-np.abs(np.subtract.outer(seen, seen)) / 1.5), rtol=1e-6)
    assert not found.correlation[:count, count:].any()
    np.testing.assert_allclose(found.covariance, 0.25 * found.correlation, rtol=1e-6)
    assert bound(observe(truth, op.identity(), error=0.5), op.identity(), prior).correlation is None


def test_what_is_made_of_each_value_by_itself_is_known_as_such() -> None:
    prior, truth = CHAIN.prior(), CHAIN.truth(1)
    states = torch.as_tensor(prior.layout.to_array(truth))[None]
    bent = op.standardise({"a": 2.0, "b": 2.0}, {"a": 280.0, "b": 280.0}) >> op.arctan(3.0) >> op.scale(2.0)
    found = bound(observe(truth, bent, every=3, error=0.1, missing=0.3, seed=2), bent, prior)
    assert found.pointwise is not None
    torch.testing.assert_close(found.pointwise.outer(found.pointwise.inner(states)), found.operator(states))
    # The same variable at the same time, in the order of the values.
    assert found.pointwise.group.tolist() == list(range(len(found.values)))
    for other in (op.identity(), op.arctan() >> op.select("a")):
        assert bound(observe(truth, other, error=0.1), other, prior).pointwise is None


def test_each_variable_has_its_own_family() -> None:
    seen = observe(CHAIN.truth(2), op.identity(), every=3, error=0.5, seed=1)

    def found() -> GaussianObservation:
        prior = CHAIN.prior()
        times = prior.layout.times(0.0, LENGTH)
        return bind_observations(seen, op.identity(), prior, times, CPU, measured=False)

    assert type(found()) is GaussianObservation
    seen["a_error"].attrs["distribution"] = "gaussian"
    assert type(found()) is GaussianObservation
    seen["b_error"].attrs["distribution"] = "lognormal"
    mixed = found()
    assert isinstance(mixed, MixtureObservation) and mixed.unresolved is not None
    weights = mixed.weigh(torch.ones(2, 6), torch.full((6,), 0.1))
    expected = np.repeat([1 / 0.35, quadrature("lognormal", np.array([2.0]), 0.4)[0] / 0.5], 3)
    np.testing.assert_allclose(weights, [expected, expected], rtol=0.03)
