"""What a posterior is drawn from: every method with what it is given, against closed forms."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from assimilated import CHAIN, QUICK, WARM
from gaussian import GaussianChain

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.assimilate import assimilate
from sdaxr.inference.problem import Problem
from sdaxr.observations.observe import observe
from sdaxr.observations.screening import Screening
from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance
from sdaxr.posterior.methods import METHODS, Bounded, Independent, Measured, Method, Scalar, names
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.schema import OptionError


def problem_of(
    observations: xr.Dataset, prior: Prior | str, method: str | dict | Method = "sda", **options: object
) -> Problem:
    times = CHAIN.prior().layout.times(0.0, CHAIN.length) if isinstance(prior, Prior) else observations.time
    networks, operators = {"o": observations}, {"o": op.identity()}
    sampler = resolve_sampler(open_prior(prior), options)
    return Problem(networks, operators, prior, times, METHODS.build(method), sampler, "auto", Screening(), "cpu")


def test_only_what_it_is_made_of_travels(
    observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks and likelihood are built where they are used, from a file that is found from any folder."""
    chain = sdaxr.generate("lorenz63", tmp_path / "t.zarr", trajectories=1, steps=9, split=(0, 0, 1), progress=False)
    seen = observe(chain.isel(trajectory=0), op.identity(), error=1.0)
    monkeypatch.chdir(tmp_path)
    shutil.copy(str(files("sdaxr.prior") / "shipped" / "lorenz63.safetensors"), "own.safetensors")
    here = problem_of(seen.chunk(time=3), "own.safetensors")
    z = torch.randn(2, *here.shape, generator=torch.Generator().manual_seed(0))
    expected = here.guided(z, 1.0)
    sent = pickle.dumps(here.loaded())
    assert len(sent) < 50_000
    monkeypatch.chdir("/")
    there = pickle.loads(sent)
    assert set(there.__dict__) == {field.name for field in fields(Problem)}
    assert there.networks["o"].chunks == {} and there.prior == tmp_path / "own.safetensors"
    torch.testing.assert_close(there.guided(z, 1.0), expected)


@pytest.mark.parametrize(
    ("method", "measured", "expected"),
    [
        ({"name": "sda"}, True, Measured()),
        ({"name": "sda", "variance": 0.1}, False, Scalar(0.1)),
        ({"name": "sda", "variance": "bounded"}, False, Bounded()),
        ({"name": "sda", "variance": "covariance"}, False, TrajectoryCovariance),
        ({"name": "jacobian_free"}, False, TrajectoryCovariance),
        ({"name": "jacobian_free", "covariance": "independent"}, False, Independent()),
        ({"name": "soad"}, False, Bounded()),
    ],
)
def test_what_is_not_given_is_measured_where_it_is_needed(
    prior: Prior, observations: xr.Dataset, method: dict, measured: bool, expected: object
) -> None:
    problem = problem_of(observations, prior, method)
    (network,) = problem.observations
    assert (network.unresolved is not None) == measured
    resolved = problem.guided.method
    found = getattr(resolved, "covariance" if method["name"] == "jacobian_free" else "variance")
    assert isinstance(found, expected) if isinstance(expected, type) else found == expected


def test_the_sampler_stays_within_the_levels_of_the_prior(prior: Prior, observations: xr.Dataset) -> None:
    levels = problem_of(observations, prior, steps=8, largest=1000.0, smallest=1e-6).algorithm.levels
    assert (levels[0], levels[-2]) == pytest.approx(prior.network.levels[::-1])


METHOD_SETTINGS = {
    "sda": {"variance": "covariance"},
    "mmps": {"iterations": 4},
    "jacobian_free": {},
    "dmps": {},
    "soad": {},
    "dps": {"zeta": 3.0},
}


def background_of(truth: xr.Dataset, error: float) -> xr.Dataset:
    first = truth.isel(time=0, drop=True)
    return first.assign(a=first.a + 0.5, b=first.b - 0.5, a_error=error, b_error=error)


@pytest.mark.parametrize("method", names("prior"))
def test_every_method_takes_correlated_errors_and_a_background(prior: Prior, truth: xr.Dataset, method: str) -> None:
    observations = observe(truth, op.select("a"), every=2, start=2, error=0.4, correlation={"time": 1.0}, seed=3)
    options = {"method": {"name": method, **METHOD_SETTINGS.get(method, {})}, "members": 30, "progress": False}
    options["sampler"] = {"steps": 40, "corrections": 4 if method == "dmps" else 0}
    background = background_of(truth, 0.1)
    found = assimilate(observations, prior, background=background, **options)
    assert found.attrs["method"] == method and found.attrs["networks"] == ["background", "observations"]
    assert found.attrs["observations_used"] == [2, 4]
    assert json.loads(found.attrs["operators"][0]) == op.identity().to_dict()
    without = assimilate(observations, prior, **options)
    for name in "ab":
        near, far = (abs(p[name].isel(time=0) - background[name]) for p in (found, without))
        assert float(near.mean()) < (0.3 if method != "dps" else 0.8 * float(far.mean()))


@pytest.mark.parametrize("method", ["sda", "jacobian_free", "mmps"])
def test_posterior_with_a_background_and_correlated_errors_is_the_closed_form(truth: xr.Dataset, method: str) -> None:
    scale, errors = 1.0, 0.4
    observations = observe(truth, op.select("a"), error=errors, correlation={"time": scale}, seed=3)
    background = background_of(truth, 0.6)
    options = {"sda": {"variance": "covariance"}, "jacobian_free": {}, "mmps": {"iterations": 6}}[method]
    posterior = assimilate(
        observations, CHAIN.prior(samples=4000), background=background, method={"name": method, **options},
        sampler={"steps": 80, "corrections": 0}, members=300, progress=False,
    )  # fmt: skip
    h = np.concatenate([np.eye(2, 18), np.kron(np.eye(9), [[1.0, 0.0]])])
    times = 0.5 * np.arange(9)
    noise = np.zeros((11, 11))
    noise[:2, :2] = 0.3**2 * np.eye(2)
    noise[2:, 2:] = 0.2**2 * np.exp(-np.abs(np.subtract.outer(times, times)) / scale)
    y = (np.array([background.a, background.b, *observations.a]) - 280) / 2
    gain = CHAIN.covariance @ h.T @ np.linalg.inv(h @ CHAIN.covariance @ h.T + noise)
    mean, cov = (gain @ y).reshape(9, 2), CHAIN.covariance - gain @ h @ CHAIN.covariance
    for i, name in enumerate("ab"):
        deviation = 2 * np.sqrt(np.diag(cov)[i::2])
        distance = (posterior[name].mean("member") - 280 - 2 * mean[:, i]) / deviation
        assert np.abs(distance).max() < 0.3
        assert np.abs(posterior[name].std("member") / deviation - 1).max() < 0.2


def test_evaluations_are_recorded(prior: Prior, observations: xr.Dataset) -> None:
    how = {"members": 1, "sampler": {"steps": 5, "corrections": 1}, "progress": False}
    assert assimilate(observations, prior, **how).attrs["evaluations_per_member"] == 6
    found = assimilate(observations, prior, method={"name": "mmps", "iterations": 4}, **how).attrs
    assert found["evaluations_per_member"] == 12 and json.loads(found["method_options"])["iterations"] == 4
    assert found["sampler"] == "sde-dpm++" and json.loads(found["sampler_options"])["steps"] == 5


def test_what_a_prior_records_for_one_method_does_not_disturb_another(prior: Prior, observations: xr.Dataset) -> None:
    tuned = prior.with_sampling(method={"name": "sda", "variance": {"name": "scalar", "gamma": 0.3}})
    recorded = {
        "sda": {"variance": {"name": "scalar", "gamma": 0.3}},
        "jacobian_free": {"covariance": None},
        "dmps": {},
    }
    for method, options in recorded.items():
        found = assimilate(observations, tuned, method=method, members=1, **QUICK)
        assert json.loads(found.attrs["method_options"]) == {"adapt": True, **options}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": {"name": "dps", "variance": 0.1}},
            "unknown option of dps: 'variance'; expected one of adapt, zeta",
        ),
        ({"method": "ffbs"}, "found prior= and method='ffbs', which needs a physical model"),
        ({"method": "sdaa"}, "unknown method 'sdaa'.*Did you mean 'sda'"),
        ({"sampler": {"stepps": 3}}, "unknown option of sde-dpm.*'stepps'.*Did you mean 'steps'"),
        (
            {"method": {"variance": "covariance"}, "times": 0.5 * np.arange(3000)},
            "3000 states of 2 values is too large, expected at most 4096",
        ),
        ({"method": "dmps", "operator": WARM}, "method='dmps' is for linear operators"),
        (
            {"method": "soad", "operator": WARM},
            "method='soad' is for observations that are a part of the state",
        ),
    ],
)
def test_options_of_methods(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, options: dict, message: str
) -> None:
    if "operator" in options:
        observations = observe(CHAIN.truth(1), options["operator"], error=0.1).drop_attrs(deep=False)
    with pytest.raises(OptionError, match=message):
        assimilate(observations, prior, **(QUICK | {"store": tmp_path / "p.zarr"} | options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damping", [0.9, 0.97])
def test_dense_observations_of_a_slow_chain(damping: float) -> None:
    """Every state is seen, and the errors of the denoised states are correlated: the information counts once."""
    chain, error = GaussianChain(32, damping, 0.1), 0.2
    truth = chain.truth(1)
    observations = observe(truth, op.identity(), error=2 * error, seed=3)
    posterior = assimilate(
        observations, chain.prior(samples=200), members=40, sampler={"steps": 32, "corrections": 1}, progress=False
    )
    y = (np.stack([observations.a, observations.b], -1) - 280) / 2
    operator = np.broadcast_to(np.eye(2), (32, 2, 2))
    mean, covariance = chain.smoother(operator, y, np.full((32, 2), error))
    deviation = 2 * np.sqrt(covariance[:, 0, 0])
    distance = (posterior.a.mean("member") - 280 - 2 * mean[:, 0]) / deviation
    assert float(np.sqrt((distance**2).mean())) < 0.35
    assert 0.9 < float((posterior.a.std("member") / deviation).mean()) < 1.3
