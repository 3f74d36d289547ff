"""Covariance of fields given z, and guidance with it, against closed forms of a Gaussian field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from ring import (
    LAGS,
    PHI,
    POINTS,
    SLOW,
    SPACE,
    TIMES,
    dense,
    prior,
    prior_of_windows,
    smooth,
    smoothed,
    windows,
)  # fmt: skip

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.covariance import modal
from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.guidance.jacobian_free import JacobianFree
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.guidance.soad import SOAD
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.prior.assembly import assemble
from sdaxr.prior.files import Prior
from sdaxr.states.infer import infer_layout


@pytest.mark.parametrize("r", [0.05, 0.7, 5.0])
def test_independent_states_have_the_covariance_of_the_filter(r: float) -> None:
    _, covariance = prior(0.0)
    exact = np.linalg.inv(np.linalg.inv(SPACE) + np.eye(POINTS) / r**2)
    np.testing.assert_allclose(dense(covariance, r), np.kron(np.eye(TIMES), exact), atol=0.06 * exact.max())


@pytest.mark.parametrize("scale", [1.0, 0.2**0.5])
@pytest.mark.parametrize("r", [0.3, 2.0, 10.0])
def test_it_is_the_covariance_that_the_network_has_whatever_the_held_out_windows_are(r: float, scale: float) -> None:
    """That of the smoother is correlated in time; windows with a fifth of the variance do not change it."""
    covariance = smoothed(PHI, scale)
    found = dense(covariance, r).reshape(TIMES, POINTS, TIMES, POINTS)
    prior_covariance = np.kron(PHI**LAGS, SPACE)
    exact = np.linalg.inv(np.linalg.inv(prior_covariance) + np.eye(len(prior_covariance)) / r**2)
    exact = exact.reshape(TIMES, POINTS, TIMES, POINTS)
    now = np.mean([exact[i, :, i] for i in range(TIMES)], axis=0)
    lag = TIMES // 2
    later = np.mean([exact[i, :, i + lag] for i in range(TIMES - lag)], axis=0)
    np.testing.assert_allclose(found[0, :, 0], now, atol=0.08 * now.max())
    if scale == 1:
        np.testing.assert_allclose(found[0, :, lag], later, atol=0.08 * now.max())


def test_it_is_symmetric_and_positive_and_acts_where_something_is() -> None:
    covariance = smoothed(PHI, 1.0)
    assert covariance.temporal_correlation.max() > 0.5
    whole = dense(covariance, 1.3)
    np.testing.assert_allclose(whole, whole.T, atol=1e-5)
    assert np.linalg.eigvalsh(whole)[0] > 0
    u = torch.zeros(2, TIMES, 1, POINTS)
    u[:, [1, 4, 5]] = torch.randn(2, 3, 1, POINTS, generator=torch.Generator().manual_seed(0))
    expected = (whole @ u.flatten(1).numpy().T).T.reshape(u.shape)
    found = covariance.product(u, 1.3).numpy()
    np.testing.assert_allclose(found[:, [1, 4, 5]], expected[:, [1, 4, 5]], atol=1e-4)
    assert not found[:, [0, 2, 3, 6, 7]].any()


@pytest.mark.parametrize("r", [0.05, 0.7, 5.0])
def test_windows_have_the_covariance_of_their_smoother(r: float) -> None:
    _, covariance = prior_of_windows()
    exact = np.linalg.inv(np.linalg.inv(np.kron(SLOW, SPACE)) + np.eye(TIMES * POINTS) / r**2)
    whole = dense(covariance, r)
    np.testing.assert_allclose(whole, exact, atol=0.06 * exact.max())
    draws = covariance.draw((TIMES, 1, POINTS), r, 20_000).flatten(1).numpy()
    np.testing.assert_allclose(draws.T @ draws / len(draws), whole, atol=0.03 * exact.max())
    u = torch.zeros(1, TIMES, 1, POINTS)
    u[:, [1, 4]] = torch.randn(1, 2, 1, POINTS, generator=torch.Generator().manual_seed(0))
    some = covariance.product(u, r).numpy()
    np.testing.assert_allclose(some[:, [1, 4]], (u.flatten(1).numpy() @ whole).reshape(u.shape)[:, [1, 4]], atol=1e-4)


def test_longer_trajectories_than_windows_have_a_covariance_too() -> None:
    """A stationary one, whose variance is the mean over the states of a window, and which its draws have."""
    _, covariance = prior_of_windows()
    r, states = 0.7, 2 * TIMES
    basis = torch.eye(states * POINTS).reshape(-1, states, 1, POINTS)
    whole = covariance.product_everywhere(basis, r).flatten(1).numpy()
    np.testing.assert_allclose(whole, whole.T, atol=1e-5)
    assert np.linalg.eigvalsh(whole)[0] > 0
    blocks = whole.reshape(states, POINTS, states, POINTS)
    for lag in (0, 1, TIMES + 1):
        for i in range(states - lag):
            np.testing.assert_allclose(blocks[i, :, i + lag], blocks[0, :, lag], atol=1e-5)
    exact = np.linalg.inv(np.linalg.inv(np.kron(SLOW, SPACE)) + np.eye(TIMES * POINTS) / r**2)
    assert np.trace(blocks[0, :, 0]) == pytest.approx(np.trace(exact) / TIMES, rel=0.05)
    assert 0 < np.trace(blocks[0, :, TIMES + 1]) < np.trace(blocks[0, :, 1]) < np.trace(blocks[0, :, 0])
    draws = covariance.draw((states, 1, POINTS), r, 20_000).flatten(1).numpy()
    # Five standard errors of a variance.
    np.testing.assert_allclose(draws.T @ draws / len(draws), whole, atol=5 * np.sqrt(2 / 20_000) * whole.max())


@pytest.mark.parametrize("method", [SDA, JacobianFree, SOAD])
@pytest.mark.parametrize("r", [0.05, 0.7, 5.0, 40.0])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.2**0.5])
def test_guidance_with_it_is_the_exact_posterior_mean(
    method: Any, r: float, slow: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over three points at every third state, which a guidance of independent variances overshoots.

    A gain with the held-out windows' variance on one side does so, too, where this is a fifth of the training data's.
    """
    monkeypatch.setattr(modal, "_TOLERANCE", 1e-5)
    network, covariance = prior_of_windows(scale) if slow else prior(0.0, scale)
    states = np.kron(SLOW if slow else np.eye(TIMES), SPACE)
    random_states = smooth if slow else lambda count, seed: windows(count, 0.0, seed)
    seen = np.kron(np.eye(TIMES)[::3], np.kron(np.eye(4), np.full((1, 3), 1 / 3)))
    random = np.random.default_rng(2)
    y = seen @ random_states(1, 3).ravel() + 0.1 * random.normal(size=len(seen))
    h = torch.as_tensor(seen, dtype=torch.float32)
    ones = torch.ones(len(seen))
    observed = GaussianObservation(lambda x: x.flatten(1) @ h.T, torch.as_tensor(y).float(), 0.1 * ones, ones)
    context = torch.ones(1, TIMES, 1, POINTS)
    guided = method(covariance).guide(lambda z, r: network(z, torch.full((len(z),), r), context), [observed])
    z = torch.as_tensor(random_states(3, 4)) + r * torch.randn(3, TIMES, 1, POINTS)
    joint = np.linalg.inv(np.linalg.inv(states) + np.eye(TIMES * POINTS) / r**2)
    mean = (z.flatten(1).numpy() / r**2) @ joint
    gain = joint @ seen.T @ np.linalg.inv(seen @ joint @ seen.T + 0.01 * np.eye(len(seen)))
    exact = mean + (y - mean @ seen.T) @ gain.T
    error = np.sqrt(((guided(z, r).flatten(1).numpy() - exact) ** 2).mean())
    assert error < 0.05 * np.sqrt(((mean - exact) ** 2).mean())


def test_posterior_of_a_gaussian_field(tmp_path: Path) -> None:
    """The whole way, from labelled observations to members, against optimal interpolation."""
    attrs = {"units": "K"}
    x = ("x", np.arange(POINTS) + 0.5, {"period": float(POINTS), "units": "m"})
    states = 280 + 3 * windows(600, 0.0, 5)[:, :, 0]
    data = xr.Dataset({"t": (("trajectory", "time", "x"), states, attrs)}, {"time": np.arange(TIMES) * 1.0, "x": x})
    layout = infer_layout(data)
    about = {"name": "field", "network": {"name": "space-time-unet", "widths": [4], "blocks": 1, "patch": 1}}
    about |= {"parameterisation": "spectral", "optimisation": {"levels": [0.01, 50.0]}, "window": TIMES}
    network = assemble(layout, about).requires_grad_(False)
    for weight in network.network.last.parameters():
        weight.zero_()
    assert network.modes is not None
    network.modes.measure([torch.as_tensor(layout.to_array(data))])
    reference = layout.to_array(data)[:100], layout.context_array(data.time)[None]
    prior = Prior(layout, network.eval(), reference, about)
    truth = data.isel(trajectory=3)
    seen = sdaxr.observe(truth, op.subsample(3), every=2, error=0.5, seed=1)
    posterior = sdaxr.assimilate(
        seen, prior, sampler={"steps": 40, "corrections": 0}, times=truth.time, members=400, seed=1, progress=False
    )
    covariance = 9 * SPACE
    h = np.eye(POINTS)[[list(data.x.values).index(v) for v in seen.x.values]]
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + 0.25 * np.eye(len(h)))
    left = covariance - gain @ h @ covariance
    for step in range(0, TIMES, 2):
        mean = 280 + gain @ (seen.t.sel(time=float(step)).values - 280)
        found = posterior.t.sel(time=float(step))
        assert np.abs(found.mean("member").values - mean).max() < 0.35
        ratio = found.var("member").values / left.diagonal()
        assert abs(ratio.mean() - 1) < 0.15 and np.abs(ratio - 1).max() < 0.45
    between = posterior.t.sel(time=1.0)
    np.testing.assert_allclose(between.var("member").values, covariance.diagonal(), rtol=0.3)


def test_networks_without_modes_have_none() -> None:
    assert ModalCovariance.of_prior(sdaxr.open_prior("lorenz63"), torch.device("cpu")) is None


@pytest.mark.parametrize("method", [SDA, JacobianFree, SOAD])
def test_methods_ask_for_the_variance_of_each_observation_beside_it(method: type) -> None:
    """A part of that variance is taken for the observation's own: without it the weights are others."""
    _, covariance = prior(0.8)
    assert method(covariance).measured
    ones = torch.ones(POINTS * TIMES)
    x = torch.as_tensor(windows(2, 0.8, 4))
    plain = GaussianObservation(lambda x: x.flatten(1), 0 * ones, 0.1 * ones, ones)
    known = GaussianObservation(lambda x: x.flatten(1), 0 * ones, 0.1 * ones, ones, lambda r: r**2 / (1 + r**2) * ones)
    weights = [covariance.weights(Likelihood([o]), x, 1.0)[1] for o in (plain, known)]
    assert float((weights[0] - weights[1]).abs().max()) > 0.01 * float(weights[0].abs().max())
