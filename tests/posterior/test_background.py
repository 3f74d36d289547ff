"""Ensembles of the first state as evidence, against Gaussian posteriors in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain
from gaussian_fields import covariance_of, sampled
from ring import LEVELS, POINTS, SPACE, Nothing, windows
from ring import prior as ring_network
from unknown_offset import OffsetSeries
from white import white_prior

import sdaxr
from sdaxr.posterior import background, hybrid, modulation
from sdaxr.posterior.background import Climate, background_observation
from sdaxr.posterior.hybrid import tapers
from sdaxr.prior.files import Prior
from sdaxr.prior.modes import Modes
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.infer import infer_layout

CPU = torch.device("cpu")


def ring_prior() -> Prior:
    """A prior of fields on a ring whose states have the covariance `SPACE`."""
    states = windows(500, 0.0, 1)
    attrs = {"units": "1", "periodic": 1, "period": float(POINTS)}
    coords = {"time": np.arange(8.0), "x": ("x", np.arange(float(POINTS)), attrs)}
    data = xr.Dataset({"f": (("trajectory", "time", "x"), states[:, :, 0], {"units": "1"})}, coords)
    network, _ = ring_network(0.0)
    return Prior(
        infer_layout(data), network, (states[:50], np.ones((1, 8, 1, POINTS), np.float32)), {"window": 8, "name": "r"}
    )


def conditioned(climate: np.ndarray, observation, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a state N(0, climate) given the observation."""
    basis = torch.eye(len(climate)).reshape(len(climate), 1, *shape)
    rows = (observation.operator(basis) / observation.errors).numpy().astype(float)
    precision = np.linalg.inv(climate) + rows @ rows.T
    covariance = np.linalg.inv(precision)
    return covariance @ rows @ (observation.values / observation.errors).numpy(), covariance


def loss(covariance: np.ndarray, truth: np.ndarray) -> float:
    """Stein's loss, twice the Kullback-Leibler divergence of the two Gaussian distributions."""
    ratio = np.linalg.solve(covariance, truth)
    return np.trace(ratio) - np.linalg.slogdet(ratio)[1] - len(truth)


def test_coordinates_are_those_of_modes_that_vary():
    """Of a flow without divergence on 8 x 8 points, 63: those of its stream function but for the constant."""
    psi = np.random.default_rng(0).normal(size=(4000, 8, 8))
    flow = np.stack([np.roll(psi, -1, 1) - psi, psi - np.roll(psi, -1, 2)], 1).astype(np.float32)
    modes = Modes(2, (8, 8), (True, True))
    modes.measure([torch.as_tensor(flow)])
    axis = {"units": "1", "periodic": 1, "period": 8.0}
    coords = {"time": np.arange(4000.0), **{d: (d, np.arange(8.0), axis) for d in "yx"}}
    data = xr.Dataset({v: (("time", "y", "x"), flow[:, i], {"units": "1"}) for i, v in enumerate("uv")}, coords)
    network = DenoisingNetwork(Nothing(), "spectral", LEVELS, modes)
    prior = Prior(infer_layout(data), network, (flow[:8, None], np.ones((1, 1, 2, 8, 8), np.float32)), {"name": "f"})
    found = Climate.of(prior, 1, CPU).whiten(torch.as_tensor(flow))
    assert found.shape == (4000, 63)
    np.testing.assert_allclose(np.cov(found.numpy().T), np.eye(63), atol=0.12)


def ensemble_of(mean: np.ndarray, covariance: np.ndarray, members: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, members)


@pytest.mark.parametrize(("dense", "members"), [(512, 4000), (0, 4000), (0, 40)])
def test_given_the_climate_and_the_ensemble_a_state_is_as_the_ensemble_says(monkeypatch, dense: int, members: int):
    """Observations of all points leave a covariance that is diagonal in Fourier modes, as bands have it."""
    monkeypatch.setattr(background, "_DENSE", dense)
    # The waves that are observed best are known to a fiftieth of their variance, the shortest not at all.
    spread = np.linalg.inv(np.linalg.inv(SPACE) + np.eye(POINTS) / 0.3)
    truth = np.random.default_rng(2).multivariate_normal(np.zeros(POINTS), SPACE - spread)
    drawn = ensemble_of(truth, spread, members)
    found = background_observation(torch.as_tensor(drawn[:, None], dtype=torch.float32), ring_prior(), 8)
    mean, covariance = conditioned(SPACE, found, (1, POINTS))
    expected = (1 + 1 / members) * spread
    np.testing.assert_allclose(mean, drawn.mean(0), atol=0.1)
    # Of seven variances with 39 degrees of freedom or twice as many, the loss is 0.3 on average, and of the hybrid 0.5.
    assert loss(covariance, expected) < (0.02 if members > 100 else 1.0)


def test_of_a_prior_with_eofs_the_first_state_is_as_the_ensemble_says(tmp_path: Path):
    """Draws of the posterior given the ensemble alone, along the EOFs; what these leave is not told."""
    options = {"parameterisation": "eof", "steps": 0, "window": 4, "progress": False, "name": "e"}
    states, places, *_ = sampled(400, 12, 0.2)
    coords = {"time": np.arange(400.0), "x": ("x", places[:, 0], {"units": "m"})}
    series = xr.Dataset({"f": (("time", "x"), states, {"units": "K"})}, coords)
    prior = sdaxr.train(series, tmp_path / "e.safetensors", **options)
    modes, layout = prior.network.modes, prior.layout
    size = modes.vectors.shape[0]
    climate, vectors = covariance_of(modes, 4)[:size, :size].numpy(), modes.vectors.double().numpy()
    along = vectors.T @ climate @ vectors
    spread = np.linalg.inv(np.linalg.inv(along) + np.eye(modes.rank) / 0.1)
    drawn = ensemble_of(np.full(modes.rank, 0.5), spread, 3000)
    times = layout.times(0.0, 4)
    fields = layout.to_physical((drawn @ vectors.T).reshape(-1, 1, layout.channels, *layout.shape), times[:1])
    template = layout.template(times[:1], {"member": np.arange(len(drawn))})
    ensemble = template.assign({v: (template[v].dims, a, template[v].attrs) for v, a in fields.items()})
    method = {"name": "oi", "adapt": False}
    found = sdaxr.assimilate(
        {}, prior, times=times, background=ensemble, method=method, members=3000, seed=1, progress=False
    )
    states = layout.to_array(found.isel(time=[0])).reshape(3000, -1) @ vectors
    np.testing.assert_allclose(states.mean(0), drawn.mean(0), atol=0.05)
    ratio = np.linalg.solve(spread, np.cov(states.T))
    assert np.linalg.norm(ratio - np.eye(modes.rank), 2) < 0.2


def test_an_ensemble_of_the_climate_says_nothing():
    drawn = ensemble_of(np.zeros(POINTS), 1.2 * SPACE, 2000)[:, None]
    assert background_observation(torch.as_tensor(drawn, dtype=torch.float32), ring_prior(), 8) is None


@pytest.mark.parametrize("dense", [512, 0])
def test_what_only_a_part_of_the_domain_knows_is_told_of_this_part(monkeypatch, dense: int):
    """The covariance of the ensemble itself has the places; bands of waves, the share 0, do not."""
    monkeypatch.setattr(background, "_DENSE", dense)
    seen = np.eye(POINTS)[: POINTS // 2]
    spread = np.linalg.inv(np.linalg.inv(SPACE) + seen.T @ seen / 0.05)
    drawn = torch.as_tensor(ensemble_of(np.zeros(POINTS), spread, 60)[:, None], dtype=torch.float32)
    losses = []
    for change in (False, True):
        if change:
            monkeypatch.setattr(hybrid, "SHARES", (0.0,))
            monkeypatch.setattr(modulation, "SHARES", (0.0,))
        _, covariance = conditioned(SPACE, background_observation(drawn, ring_prior(), 8), (1, POINTS))
        losses.append(loss(covariance, spread))
    assert losses[0] < 0.35 * losses[1]


def test_without_modes_each_value_has_its_own_error(monkeypatch):
    """Of large fields, too: what is known of one half is not told of the other."""
    monkeypatch.setattr(background, "_DENSE", 0)
    random = np.random.default_rng(3)
    x = ("x", np.arange(8.0), {"units": "m"})
    data = xr.Dataset(
        {"f": (("time", "x"), random.normal(size=(100, 8)), {"units": "K"})}, {"time": np.arange(100.0), "x": x}
    )
    ratio = np.where(np.arange(8) < 4, 0.01, 0.25)
    drawn = ensemble_of(np.zeros(8), np.diag(ratio), 4000)[:, None]
    found = background_observation(torch.as_tensor(drawn, dtype=torch.float32), white_prior(data), 5)
    np.testing.assert_allclose(found.errors.square(), ratio / (1 - ratio), rtol=0.15)


def test_of_few_members_the_hybrid_knows_more_than_the_sample(monkeypatch):
    """The loss of the covariance of 16 members of a short-scale field."""
    away = np.minimum(lag := np.subtract.outer(*2 * [np.arange(POINTS)]) % POINTS, POINTS - lag)
    short = 0.05 * np.exp(-0.5 * away**2) + 0.01 * np.eye(POINTS)
    losses = []
    for shares, lengths in ((hybrid.SHARES, hybrid.TAPERS), ((1.0,), (np.inf,))):
        monkeypatch.setattr(hybrid, "SHARES", shares)
        monkeypatch.setattr(hybrid, "TAPERS", lengths)
        found = []
        for seed in range(5):
            drawn = torch.as_tensor(ensemble_of(np.zeros(POINTS), short, 16, seed)[:, None], dtype=torch.float32)
            _, covariance = conditioned(SPACE, background_observation(drawn, ring_prior(), 8), (1, POINTS))
            found.append(loss(covariance, short))
        losses.append(np.mean(found))
    assert losses[0] < 0.3 * losses[1]


def test_a_chain_goes_on_from_the_ensemble_as_if_all_were_observed_at_once():
    """The posterior of the second half given its observations and draws from the past is that of the whole chain."""
    whole, half = GaussianChain(12, damping=0.95), GaussianChain(6, damping=0.95)
    prior, truth = half.prior(samples=2000), whole.truth(4)
    operator = np.tile(np.array([[1.0, 0.0]]), (12, 1, 1))
    y, error = np.full((12, 1), np.nan), np.full((12, 1), 0.2)
    observed = [1, 3, 5, 9]
    y[observed, 0] = (truth.a.values[observed] - 280) / 2 + 0.2 * np.random.default_rng(1).normal(size=len(observed))
    past = y.copy()
    past[6:] = np.nan
    first_mean, first_cov = (a[6] for a in whole.smoother(operator, past, error))
    drawn = 280 + 2 * ensemble_of(first_mean, first_cov, 4000)
    times = truth.time[6:]
    ensemble = xr.Dataset({v: ("member", drawn[:, k], {"units": "K"}) for k, v in enumerate("ab")})
    seen = xr.Dataset(
        {"a": ("time", 280 + 2 * y[6:, 0], {"units": "K"}), "a_error": ("time", np.full(6, 0.4))},
        {"time": times},
        {"operator": sdaxr.operators.select("a").to_json()},
    )
    posterior = sdaxr.assimilate(
        seen, prior, times=times, background=ensemble, method="oi", members=4000, seed=2, progress=False
    )
    mean, covariance = (a[6:] for a in whole.smoother(operator, y, error))
    states = (posterior.to_dataarray().transpose("member", "time", "variable").values - 280) / 2
    np.testing.assert_allclose(states.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(states.std(0), np.sqrt(np.diagonal(covariance, 0, 1, 2)), atol=0.04)
    assert posterior.attrs["background_directions"] == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda e: e.isel(member=[0]), "one member along 'member', expected at least 2"),
        (lambda e: e.assign(a_error=0.1), r"members along 'member' and \['a_error'\], expected members, whose spread"),
        (lambda e: e.expand_dims(time=[0.0, 0.5]), "the background has 2 times, expected one"),
        (lambda e: e[["a"]], "b"),
    ],
)
def test_ensembles_that_do_not_fit(change, expected: str):
    prior = GaussianChain(6).prior()
    random = np.random.default_rng(0)
    ensemble = xr.Dataset({v: ("member", 280 + random.normal(size=5), {"units": "K"}) for v in "ab"})
    with pytest.raises(DataError, match=expected):
        sdaxr.assimilate(
            {}, prior, times=prior.layout.times(0.0, 6), background=change(ensemble), members=2, progress=False
        )


def test_parameters_are_numbers_beside_the_values_whose_level_they_tell() -> None:
    """Of a series around a constant the coordinates have the covariance I, with one for the whole channel."""
    series = OffsetSeries(6, sites=4)
    climate = Climate.of(series.prior(2000), 6, torch.device("cpu"))
    found = climate.whiten(torch.as_tensor(series.draw(4000, 1)[:, 0], dtype=torch.float32)).numpy()
    assert found.shape == (4000, 5) and climate.bands.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(np.cov(found.T), np.eye(5), atol=0.08)
    np.testing.assert_allclose(found[:, 4], series.draw(4000, 1)[:, 0, 1, 0], rtol=1e-5, atol=1e-6)


def test_tapered_covariances_of_states_and_parameters_are_covariances() -> None:
    layout = OffsetSeries(6, sites=4).layout()
    ring = {"site": Coordinate(np.arange(4.0), {"units": "1", "periodic": 1, "period": 4.0})}
    for taper in tapers(replace(layout, coords=ring))[:-1]:
        assert torch.linalg.eigvalsh(taper).min() > -1e-9
        assert torch.allclose(taper[4:, 4:], torch.ones(4, 4).double())
        assert torch.allclose(taper[4:, :4], taper[4, 0].expand(4, 4)) and 0 <= taper[4, 0] <= 1
