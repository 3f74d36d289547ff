"""A prior without a network samples the posterior of optimal interpolation, whatever method and sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian_fields import covariance_of

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.drawing import draw_batch
from sdaxr.inference.problem import Problem
from sdaxr.observations import with_bias
from sdaxr.observations.screening import Screening
from sdaxr.posterior.covariance.adaptation import variance_factors
from sdaxr.posterior.methods import resolve_method
from sdaxr.posterior.samplers.registry import SAMPLERS, resolve_sampler
from sdaxr.prior.files import Prior
from sdaxr.schema import OptionError

LENGTH, ERROR = 5, 0.5
SMALL: dict[str, Any] = {"network": {"widths": [8], "patch": 1}, "optimisation": {"batch": 2}}
AT = {"lat": [50.4, 51.0, 53.2], "lon": [2.0, 5.5, 3.1]}
# On grid points, as `SOAD` takes them.
NODES = {"lat": [51.0, 51.0, 53.0], "lon": [2.2, 5.8, 3.4]}


def weather(count: int, seed: int) -> xr.Dataset:
    """Hours of a smooth field that changes faster over land, with a lake of NaN; K."""
    random = np.random.default_rng(seed)
    lat, lon = np.linspace(50, 54, 5), np.linspace(1, 7, 6)
    y, x = np.meshgrid(lat, lon, indexing="ij")
    patterns = np.stack(
        [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 4) for a, b in random.uniform([50, 1], [54, 7], (8, 2))]
    )
    series = np.zeros((count, 8))
    for i in range(1, count):
        series[i] = 0.9 * series[i - 1] + random.normal(size=8)
    values = 280 + np.einsum("tk,kyx->tyx", series, patterns) + 0.1 * random.normal(size=(count, 5, 6))
    values[:, 4, 5] = np.nan
    time = np.datetime64("2020-01-01", "ns") + np.arange(count) * np.timedelta64(1, "h")
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, {"time": time, "lat": lat, "lon": lon})


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    store = tmp_path_factory.mktemp("prior") / "p.safetensors"
    sdaxr.train(
        weather(480, 0), store, window=LENGTH, steps=0, statistics={"normalise": "point"}, progress=False,
        network={"widths": [8], "patch": 1}, optimisation={"batch": 2},
    )  # fmt: skip
    return sdaxr.open_prior(store)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return weather(LENGTH, 7)


@pytest.fixture(scope="module")
def observations(truth: xr.Dataset) -> xr.Dataset:
    return sdaxr.observe(truth, op.points(AT), error=ERROR, missing=0.2, seed=1)


def closed_form(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, at: dict[str, list[float]] = AT
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the normalised posterior, flattened, in double precision."""
    modes, layout = prior.network.modes, prior.layout
    b = covariance_of(modes, LENGTH).numpy()
    units = np.eye(len(b)).reshape(len(b), LENGTH, *modes.present.shape)
    template = layout.template(truth.time, {"member": np.arange(len(b))})
    fields = layout.to_physical(units, truth.time)["t2m"]
    offset = layout.to_physical(0 * units[:1], truth.time)["t2m"]
    operator = op.points(at)
    # Land has neither a value nor a weight.
    columns = operator.apply(
        template.assign(t2m=(template.t2m.dims, np.nan_to_num(fields - offset), template.t2m.attrs))
    )
    background = operator.apply(
        template.isel(member=[0]).assign(t2m=(template.t2m.dims, np.nan_to_num(offset), template.t2m.attrs))
    )
    seen = np.isfinite(observations.t2m.values)
    h = columns.t2m.values[:, seen].T
    innovation = observations.t2m.values[seen] - background.t2m.values[0][seen]
    gain = b @ h.T @ np.linalg.inv(h @ b @ h.T + ERROR**2 * np.eye(len(h)))
    return gain @ innovation, b - gain @ h @ b


def check(prior: Prior, posterior: xr.Dataset, mean: np.ndarray, covariance: np.ndarray, slack: float = 1.0) -> None:
    """Mean and covariance agree within the sampling errors of the members."""
    states = prior.layout.to_array(posterior).reshape(posterior.sizes["member"], -1)
    sea = covariance.diagonal() > 1e-12
    deviation, members = np.sqrt(covariance.diagonal()[sea]), len(states)
    off = (states.mean(0) - mean)[sea] / deviation
    # Few directions carry the variance, so that the mean square is far from its expectation of 1 / members.
    assert np.sqrt((off**2).mean()) < 2.5 * slack / members**0.5
    correlation = covariance[np.ix_(sea, sea)] / np.outer(deviation, deviation)
    found = np.cov(states[:, sea].T) / np.outer(deviation, deviation)
    assert np.abs(found - correlation).max() < 6 * slack / members**0.5
    assert abs(np.log(found.diagonal()).mean()) < 2.5 * slack / members**0.5


METHODS: dict[str, Any] = {"sda": {}, "jacobian_free": {}, "mmps": {}, "oi": {}}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_samples_the_posterior_of_optimal_interpolation(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, method: str
) -> None:
    posterior = sdaxr.assimilate(
        observations, prior, times=truth.time, members=300, method=method, sampler={"steps": 64, "corrections": 0},
        progress=False,
    )  # fmt: skip
    check(prior, posterior, *closed_form(_posed(prior, observations, truth, method).adapted, observations, truth))


def test_soad_without_its_corrector_samples_it(prior: Prior, truth: xr.Dataset) -> None:
    seen = sdaxr.observe(truth, op.points(NODES), error=ERROR, missing=0.2, seed=1)
    method = sdaxr.methods.SOAD(corrector=False)
    posterior = sdaxr.assimilate(
        seen, prior, times=truth.time, members=300, method=method, sampler={"steps": 64, "corrections": 0},
        progress=False,
    )  # fmt: skip
    check(prior, posterior, *closed_form(_posed(prior, seen, truth, method, NODES).adapted, seen, truth, NODES))


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_every_sampler_samples_it(prior: Prior, observations: xr.Dataset, truth: xr.Dataset, sampler: str) -> None:
    how = {"name": sampler, "steps": 96, "corrections": 0} | ({"candidates": 4} if sampler == "twisted" else {})
    posterior = sdaxr.assimilate(
        observations, prior, times=truth.time, members=300, sampler=how, progress=False
    )  # fmt: skip
    adapted = _posed(prior, observations, truth, "sda").adapted
    check(prior, posterior, *closed_form(adapted, observations, truth), slack=1.5)


@pytest.mark.parametrize("method", ["sda", "jacobian_free", "mmps"])
def test_the_estimate_at_large_noise_is_the_analysis(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, method: str
) -> None:
    problem = _posed(prior, observations, truth, method)
    mean, covariance = closed_form(problem.adapted, observations, truth)
    with torch.no_grad():
        found = problem.guided(torch.zeros(1, *problem.shape), 1e4)
    spread = np.sqrt(covariance.diagonal().mean())
    assert np.sqrt(((found.numpy().ravel() - mean) ** 2).mean()) < 0.02 * spread


def test_the_prior_asks_for_a_sampler_without_corrections(prior: Prior) -> None:
    assert resolve_sampler(prior).corrections == 0 and resolve_sampler(prior, {"steps": 8}).corrections == 0


def test_variances_follow_the_observations_unless_told_not_to(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset
) -> None:
    still = _posed(prior, observations, truth, {"name": "oi", "adapt": False})
    assert still.adapted is still.opened
    followed = _posed(prior, observations, truth, "oi")
    modes: Any = followed.adapted.network.modes
    factors = modes.variances[:, -1] / prior.network.modes.variances[:, -1]
    assert 0.1 < float(factors.min()) < float(factors.max()) < 10 and float((factors - 1).abs().max()) > 0.05
    posterior = sdaxr.assimilate(observations, prior, times=truth.time, members=2, method="oi", progress=False)
    recorded = [float(text) for text in posterior.attrs["variance_factors"].split()]
    assert followed.factors is not None
    np.testing.assert_allclose(recorded, followed.factors.numpy(), rtol=2e-3)


def test_an_archive_goes_on_where_the_variances_differ_by_rounding(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"times": truth.time, "members": 3, "batch": 1, "method": "oi", "progress": False}
    whole = sdaxr.assimilate(observations, prior, **options)
    store, drawn = tmp_path / "p.zarr", []

    def killed(number: int, *rest: Any) -> Any:
        if number == 1:
            raise KeyboardInterrupt
        return draw_batch(number, *rest)

    def counted(number: int, *rest: Any) -> Any:
        drawn.append(number)
        return draw_batch(number, *rest)

    def rounded(*given: Any) -> Any:
        found = variance_factors(*given)
        return None if found is None else 1.001 * found

    monkeypatch.setattr("sdaxr.inference.drawing.draw_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        sdaxr.assimilate(observations, prior, store=store, **options)
    monkeypatch.setattr("sdaxr.inference.drawing.draw_batch", counted)
    monkeypatch.setattr("sdaxr.inference.problem.variance_factors", rounded)
    found = sdaxr.assimilate(observations, prior, store=store, **options)
    assert len(drawn) == 2
    np.testing.assert_allclose(found.t2m, whole.t2m, atol=0.05)
    assert len(found.attrs["variance_factors"].split()) == len(whole.attrs["variance_factors"].split())


def test_a_level_that_no_training_showed_is_found_and_has_its_spread(prior: Prior, truth: xr.Dataset) -> None:
    warm = truth.assign(t2m=(truth.t2m + 6).assign_attrs(truth.t2m.attrs))
    places = np.random.default_rng(0).uniform([50, 1], [54, 6], (6, 2)).T.tolist()
    seen = sdaxr.observe(warm, op.points(dict(zip(("lat", "lon"), places, strict=True))), error=2.0, seed=1)
    error = {}
    for adapt in (True, False):
        found = seen.sda.assimilate(prior, method={"name": "oi", "adapt": adapt}, members=50, progress=False)
        error[adapt] = float(((found.t2m.mean("member") - warm.t2m) ** 2).mean()) ** 0.5
    assert error[True] < 0.8 * error[False]


def _posed(prior: Prior, observations: xr.Dataset, truth: xr.Dataset, method: Any, at: Any = AT) -> Problem:
    chosen: Any = resolve_method(prior, method)
    return Problem(
        {"observations": observations}, {"observations": op.points(at)}, prior, truth.time, chosen,
        resolve_sampler(prior), "float32", Screening(), "cpu",
    )  # fmt: skip


@pytest.mark.parametrize(("bias", "steps"), [(None, 150), (0.7, 150), (0.7, 1)])
def test_many_observations_are_solved_by_conjugate_gradients_where_these_converge(
    prior: Prior, observations: xr.Dataset, truth: xr.Dataset, monkeypatch: pytest.MonkeyPatch, bias: float | None,
    steps: int,
) -> None:  # fmt: skip
    options: dict[str, Any] = {"times": truth.time, "members": 4, "progress": False, "sampler": {"steps": 8}}
    observations = observations if bias is None else with_bias(observations, bias, by="station")
    expected = sdaxr.assimilate(observations, prior, **options)
    monkeypatch.setattr("sdaxr.posterior.covariance.eofs._DENSE", 0)
    monkeypatch.setattr("sdaxr.posterior.covariance.eofs._STEPS", steps)
    found = sdaxr.assimilate(observations, prior, **options)
    np.testing.assert_allclose(found.t2m, expected.t2m, atol=0.05)


def test_held_out_windows_with_a_fifth_of_the_variance_do_not_overshoot(
    tmp_path: Path, observations: xr.Dataset, truth: xr.Dataset
) -> None:
    # The held-out windows have a fifth of the variance of the training data.
    data = weather(480, 0)
    calm = data.isel(time=slice(400, None))
    quiet = calm.mean("time") + (calm - calm.mean("time")) * 0.2**0.5
    both = xr.concat([data.isel(time=slice(400)), quiet], "time").assign_attrs(data.attrs)
    both["t2m"].attrs["units"] = "K"
    prior = sdaxr.train(
        both, tmp_path / "p.safetensors", window=LENGTH, steps=0, progress=False, statistics={"normalise": "point"},
        network={"widths": [8], "patch": 1}, optimisation={"batch": 2},
    )  # fmt: skip
    problem = _posed(prior, observations, truth, "sda")
    mean, covariance = closed_form(problem.adapted, observations, truth)
    z = 1000 * torch.randn(1, *problem.shape, generator=torch.Generator().manual_seed(0))
    found = problem.guided(z, 1000.0).detach().numpy().ravel()
    assert np.sqrt(((found - mean) ** 2).mean()) < 0.1 * np.sqrt(covariance.diagonal().mean())


def test_oi_refuses_what_is_not_linear_and_priors_without_modes(
    prior: Prior, truth: xr.Dataset, tmp_path: Path
) -> None:
    nonlinear = sdaxr.observe(truth, op.arctan(), error=0.1)
    with pytest.raises(OptionError, match="method='oi' is for linear operators and Gaussian errors"):
        sdaxr.assimilate(nonlinear, prior, method="oi", progress=False)
    store = tmp_path / "p.safetensors"
    plain = sdaxr.train(weather(60, 0).fillna(0.0), store, steps=1, parameterisation="edm", progress=False, **SMALL)
    linear = sdaxr.observe(truth.fillna(0.0), op.points(AT), error=0.1)
    with pytest.raises(OptionError, match="method='oi' needs a prior with modes"):
        sdaxr.assimilate(linear, plain, method="oi", progress=False)


def test_nothing_is_trained_of_a_prior_without_modes(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="steps=0 with parameterisation='edm', expected 'spectral', 'space-time'"):
        sdaxr.train(weather(60, 0), tmp_path / "p.safetensors", steps=0, parameterisation="edm", progress=False)
