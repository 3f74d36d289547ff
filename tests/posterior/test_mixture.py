"""Errors that are not Gaussian: mixtures, and guidance with them, against quadrature with the densities of scipy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from families import FAMILIES, quadrature
from gaussian import GaussianChain
from ring import POINTS, SPACE, TIMES, windows
from ring import prior as ring_prior

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.binding import bind_observations
from sdaxr.observations.observe import observe
from sdaxr.posterior import mixture
from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance
from sdaxr.posterior.covariance.variance import Bounded
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.guidance.jacobian_free import JacobianFree
from sdaxr.posterior.guidance.mmps import MMPS
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.methods import names
from sdaxr.posterior.mixture import Mixture, MixtureObservation
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector
from sdaxr.schema import DataError, OptionError
from sdaxr.verification.densities import log_likelihood

CHAIN = GaussianChain(8)
CPU = torch.device("cpu")
QUICK = {"members": 2, "sampler": {"steps": 4}, "progress": False}


def innovations(family: str, variance: float, count: int = 200) -> np.ndarray:
    random = np.random.default_rng(0)
    return FAMILIES[family].rvs(count, random_state=random) + math.sqrt(variance) * random.normal(size=count)


def score(family: str, d: np.ndarray, variance: float, dtype: torch.dtype = torch.float64) -> np.ndarray:
    x = torch.as_tensor(d, dtype=dtype)[None]
    return Mixture.of([family] * len(d), x).score(x, torch.full((len(d),), variance, dtype=dtype))[0].numpy()


@pytest.mark.parametrize("family", ["gaussian", *FAMILIES])
def test_mixture_has_mean_zero_and_variance_one(family: str) -> None:
    log_weights, means, variances = mixture.components(family)
    weights = np.exp(log_weights)
    assert weights.sum() == pytest.approx(1)
    assert weights @ means == pytest.approx(0, abs=1e-12)
    assert weights @ (means**2 + variances) == pytest.approx(1)
    assert variances.min() >= mixture.SHARE**2


@pytest.mark.parametrize(("deviation", "bound"), [(0.3, 0.08), (0.6, 0.025), (1.0, 0.01), (3.0, 0.002)])
@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_that_of_the_convolved_density(family: str, deviation: float, bound: float) -> None:
    """Root mean square over innovations as they occur; one Gaussian is wrong by 14 to 88 % of it up to one error."""
    variance = deviation**2
    d = innovations(family, variance)
    exact = quadrature(family, d, variance)
    size = math.sqrt((exact**2).mean())
    gaussian = math.sqrt(((d / (1 + variance) - exact) ** 2).mean())
    for dtype in (torch.float32, torch.float64):
        departure = math.sqrt(((score(family, d, variance, dtype) - exact) ** 2).mean())
        assert departure < bound * size and departure < 0.1 * gaussian


@pytest.mark.parametrize("variance", [0.0, 0.1, 5.0])
def test_gaussian_family_is_a_gaussian(variance: float) -> None:
    d = np.linspace(-4, 4, 50)
    np.testing.assert_allclose(score("gaussian", d, variance), d / (1 + variance), atol=2e-3)


@pytest.mark.parametrize(("family", "bound"), [("laplace", 0.002), ("uniform", 0.04), ("lognormal", 0.05)])
def test_density_of_errors(family: str, bound: float) -> None:
    """Integrates to one, and little information is lost (Kullback-Leibler divergence, in nats)."""
    points = np.linspace(-60, 60, 40_001)
    assert np.exp(mixture.log_density(points, family)).sum() * (points[1] - points[0]) == pytest.approx(1, abs=1e-4)
    errors = FAMILIES[family].ppf((np.arange(20_000) + 0.5) / 20_000)
    lost = (FAMILIES[family].logpdf(errors) - mixture.log_density(errors, family)).mean()
    assert 0 <= lost < bound
    gaussian = (FAMILIES[family].logpdf(errors) - mixture.log_density(errors, "gaussian")).mean()
    assert lost < gaussian / 4


@pytest.mark.parametrize("family", FAMILIES)
def test_far_from_all_components_the_score_is_finite_and_pulls_back(family: str) -> None:
    d = np.array([-1e6, -1e3, -100.0, 100.0, 1e3, 1e6])
    for variance in (0.0, 1e-8, 1.0, 1e8):
        found = score(family, d, variance, torch.float32)
        assert np.isfinite(found).all() and (np.sign(found) == np.sign(d)).all()


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    d = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    names, variance = ["laplace"] * 15 + ["uniform"] * 5 + ["lognormal"] * 20, torch.linspace(0, 2, 40)
    whole = Mixture.of(names, d).score(d, variance)
    for name, part in (("laplace", slice(15)), ("lognormal", slice(20, 40))):
        torch.testing.assert_close(
            whole[:, part], Mixture.of([name] * d[:, part].shape[1], d).score(d[:, part], variance[part])
        )
    monkeypatch.setattr(mixture, "_CHUNK", 41 * 3 * 7)
    torch.testing.assert_close(Mixture.of(names, d).score(d, variance), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variance", [1e-4, 0.09, 1.0, 1e4])
@pytest.mark.parametrize("family", ["gaussian", *FAMILIES])
def test_matched_gaussian_has_the_score_of_the_family(family: str, variance: float, dtype: torch.dtype) -> None:
    d = math.sqrt(1 + variance) * torch.linspace(-4, 4, 41, dtype=dtype)[None]
    v = torch.full((41,), variance, dtype=dtype)
    errors = Mixture.of([family] * 41, d)
    b, r = errors.matched(d, v)
    assert (r >= mixture.SHARE**2).all() and r.isfinite().all()
    expected = errors.score(d, v)
    torch.testing.assert_close((d - b) / (r + v), expected, rtol=1e-3, atol=5e-3 * float(expected.abs().mean()))
    if family == "gaussian":
        torch.testing.assert_close(r, torch.ones_like(r), rtol=0.02, atol=0)
    if family == "lognormal" and variance < 1:
        assert r[0, -1] > 20 * r[0, 20]  # one large error is no surprise


def observed(
    family: str, matrix: np.ndarray, y: np.ndarray, error: float, unresolved: Any, dtype: torch.dtype = torch.float64
) -> tuple[MixtureObservation, GaussianObservation]:
    """Observations through ``matrix`` with errors of a family, and with errors that are treated as Gaussian."""
    h, one = torch.as_tensor(matrix, dtype=dtype), torch.ones(len(y), dtype=dtype)
    gaussian = GaussianObservation(
        lambda x: x.flatten(1) @ h.T, torch.as_tensor(y, dtype=dtype), error * one, one, unresolved
    )
    parts = (gaussian.operator, gaussian.values, gaussian.errors, one, unresolved)
    return MixtureObservation(*parts, mixture=Mixture.of([family] * len(y), one)), gaussian


PRIOR = TrajectoryCovariance.from_matrix(torch.as_tensor(CHAIN.covariance))
GUIDES = {
    "sda measured": lambda o: SDA().guide(CHAIN.denoise, [o]),
    "sda covariance": lambda o: SDA(variance=PRIOR).guide(CHAIN.denoise, [o]),
    "jacobian_free": lambda o: JacobianFree(covariance=PRIOR).guide(CHAIN.denoise, [o]),
    "mmps": lambda o: MMPS(iterations=8).guide(CHAIN.denoise, [o]),
}


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_by_one_observation_is_the_exact_posterior_mean(family: str, guide: str) -> None:
    """E[x | z] + Cov[x | z] h w, with the score w of the mixture convolved with the variance of h x given z."""
    row, error = np.zeros((1, 16)), 0.5
    row[0, [6, 7]] = 0.6, 0.8
    z = 2 * torch.randn(20, 8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for r in (0.3, 1.0, 5.0):
        spread = r**2 * CHAIN.unresolved(r) @ row[0]
        variance = float(row[0] @ spread)
        known = torch.tensor([variance], dtype=torch.float64)
        mixed, _ = observed(family, row, np.array([0.7]), error, lambda r, known=known: known)
        xhat = CHAIN.denoise(z, r).flatten(1).numpy()
        weights = score(family, (0.7 - xhat @ row[0]) / error, variance / error**2) / error
        exact = xhat + weights[:, None] * spread
        np.testing.assert_allclose(GUIDES[guide](mixed)(z, r).flatten(1), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [SDA, JacobianFree])
@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_of_fields_by_one_observation(family: str, method: type[ScoreMethod]) -> None:
    """The default for fields, whose covariance given z is measured."""
    network, covariance = ring_prior(0.0)
    row, error, r = np.zeros((1, TIMES * POINTS)), 0.3, 0.7
    row[0, 30] = 1.0
    context = torch.ones(1, TIMES, 1, POINTS)
    left = np.kron(np.eye(TIMES), np.linalg.inv(np.linalg.inv(SPACE) + np.eye(POINTS) / r**2)) @ row[0]
    mixed, gaussian = observed(
        family, row, np.array([0.7]), error, lambda r: torch.tensor([left[30]]).float(), torch.float32
    )
    z = torch.as_tensor(windows(30, 0.0, 4))

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return network(z, torch.full((len(z),), r), context)

    xhat = denoise(z, r).detach().flatten(1).numpy()
    weights = quadrature(family, (0.7 - xhat @ row[0]) / error, left[30] / error**2) / error
    exact = xhat + weights[:, None] * left
    found, taken = (method(covariance).guide(denoise, [o])(z, r).detach().flatten(1).numpy() for o in (mixed, gaussian))
    distance, other = (np.sqrt(((x - exact) ** 2).mean()) for x in (found, taken))
    assert distance < 0.1 * np.sqrt(((exact - xhat) ** 2).mean())
    assert distance < 0.6 * other


def test_guidance_of_fields_by_linearised_operators() -> None:
    """Members with errors of their own are whitened the same way; of a linear operator nothing is missed."""
    _, covariance = ring_prior(0.0)
    size = TIMES * POINTS
    mixed, gaussian = observed(
        "lognormal", np.eye(size)[::5], np.zeros(20), 0.3, lambda r: torch.full((20,), r**2 / (1 + r**2)), torch.float32
    )
    xhat = torch.as_tensor(windows(3, 0.0, 4))
    taken, linearised = Likelihood([mixed, gaussian]), Likelihood([mixed, gaussian])
    linearised.once("linear", lambda: (False, False))
    _, exact = covariance.weights(taken, xhat, 0.7)
    _, found = covariance.weights(linearised, xhat, 0.7)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


VALUES = np.array([-1.2, 0.4, 2.5])


def posterior_of_one_number(family: str, y: float, error: float) -> tuple[float, float]:
    """Mean and standard deviation of x for y = x + error, x standard normal."""
    x = np.linspace(-9, 9, 200_001)
    density = np.exp(-(x**2) / 2) * FAMILIES[family].pdf((y - x) / error)
    mean = (density @ x) / density.sum()
    return mean, math.sqrt(density @ (x - mean) ** 2 / density.sum())


@pytest.mark.parametrize("error", [0.4, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_posterior_of_one_number(family: str, error: float) -> None:
    members = 2000
    exact = np.array([posterior_of_one_number(family, y, error) for y in VALUES]).T
    both = observed(family, np.eye(3), VALUES, error, None)
    sampler = PredictorCorrector(log_snr_levels(40, 80.0, 0.005), DPMStep(eta=1.0, below=math.inf), LangevinCorrector())
    distance = []
    for observation in both:
        random = torch.Generator().manual_seed(2)
        samples = sampler(
            SDA(variance=Bounded()).guide(lambda z, r: z / (1 + r**2), [observation]),
            lambda random=random: torch.randn(members, 3, 1, generator=random, dtype=torch.float64),
        )[..., 0].numpy()
        distance.append(np.abs([(samples.mean(0) - exact[0]) / exact[1], samples.std(0) / exact[1] - 1]).max(1))
    assert distance[0][0] < 0.07 and distance[0][1] < 0.08  # Monte Carlo leaves 0.02
    assert distance[0].max() < distance[1].max()


def test_several_observations_at_once() -> None:
    """Densely observed, the systems are coupled: against Gibbs sampling of the components and the chain."""
    random = np.random.default_rng(3)
    error, family = 0.5, "lognormal"
    truth = CHAIN.draw(1, 4)[0].ravel()
    y = truth + error * FAMILIES[family].rvs(16, random_state=random)
    log_weights, means, variances = mixture.components(family)
    x, kept = np.zeros((40, 16)), []
    for sweep in range(120):
        away = ((y - x) / error)[..., None] - means
        joint = log_weights - (np.log(variances) + away**2 / variances) / 2
        chosen = (joint + random.gumbel(size=joint.shape)).argmax(-1)
        precision = np.linalg.inv(CHAIN.covariance) + np.eye(16) / (error**2 * variances[chosen])[:, None]
        pull = (y - error * means[chosen]) / (error**2 * variances[chosen])
        root = np.linalg.cholesky(np.linalg.inv(precision))
        x = np.linalg.solve(precision, pull[..., None])[..., 0] + (root @ random.normal(size=(40, 16, 1)))[..., 0]
        if sweep >= 20:
            kept.append(x)
    exact = np.concatenate(kept)
    levels = PredictorCorrector(log_snr_levels(32, 80.0, 0.01), DPMStep(eta=1.0, below=math.inf), LangevinCorrector(3))
    both = observed(family, np.eye(16), y, error, lambda r: torch.as_tensor(r**2 * np.diag(CHAIN.unresolved(r)).copy()))
    off, ratio = [], []
    for observation in both:
        noise = torch.Generator().manual_seed(5)
        samples = levels(
            SDA(variance=PRIOR).guide(CHAIN.denoise, [observation]),
            lambda noise=noise: torch.randn(400, 8, 2, generator=noise, dtype=torch.float64),
        )
        x = samples.flatten(1).numpy()
        off.append(np.sqrt((((x.mean(0) - exact.mean(0)) / exact.std(0)) ** 2).mean()))
        ratio.append((x.var(0) / exact.var(0)).mean())
    assert off[0] < 0.2 and 0.8 < ratio[0] < 1.1
    assert off[1] > 1 and ratio[1] > 2


def test_samples_that_the_errors_can_explain_are_kept() -> None:
    """2 (log p(mode) - log p) of draws is below the limit, and far beyond it for what is no such error."""
    for family in FAMILIES:
        y = np.ones(4)
        mixed, gaussian = observed(family, np.eye(4), y, 0.5, None)
        guided = SDA(variance=0.1).guide(CHAIN.denoise, [mixed])
        draws = FAMILIES[family].rvs((500, 4), random_state=np.random.default_rng(1))
        x = torch.as_tensor(y - 0.5 * draws)
        assert float(guided.misfit(x).max()) < 1
        assert float(guided.misfit(torch.full((1, 4), 60.0).double())) > 1
        square = (gaussian.innovation(x) / 0.5).square().sum(1)
        torch.testing.assert_close(gaussian.deviance(x), square)
        assert (mixed.deviance(x) > -0.1).all()


def test_variance_that_is_not_measured_is_an_error() -> None:
    mixed, _ = observed("laplace", np.eye(16), np.zeros(16), 0.5, None)
    with pytest.raises(OptionError, match="found it not measured"):
        JacobianFree(covariance=PRIOR).guide(CHAIN.denoise, [mixed])(torch.zeros(1, 8, 2).double(), 1.0)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return CHAIN.truth(2)


def test_family_is_recorded_and_survives_files(truth: xr.Dataset, tmp_path: Path) -> None:
    seen = observe(truth, op.identity(), error=0.5, noise="laplace", seed=1)
    assert "distribution" not in observe(truth, op.identity(), error=0.5)["a_error"].attrs
    seen.to_zarr(tmp_path / "a.zarr", consolidated=False)
    seen.to_netcdf(tmp_path / "a.nc")
    for found in (seen, xr.open_zarr(tmp_path / "a.zarr", consolidated=False), xr.open_dataset(tmp_path / "a.nc")):
        assert [found[f"{name}_error"].attrs["distribution"] for name in "ab"] == ["laplace", "laplace"]


def bound(observations: xr.Dataset) -> GaussianObservation:
    prior = CHAIN.prior()
    return bind_observations(observations, op.identity(), prior, prior.layout.times(0.0, 8), CPU, measured=False)


def test_families_that_are_not_there_or_correlated_are_refused(truth: xr.Dataset) -> None:
    seen = observe(truth, op.identity(), error=0.5)
    prior = CHAIN.prior()
    seen["a_error"].attrs["distribution"] = "lapalce"
    with pytest.raises(DataError, match=r"'distribution' of 'a_error' is 'lapalce'; expected one of gaussian, laplace"):
        sdaxr.assimilate(seen, prior, **QUICK)
    seen["a_error"].attrs |= {"distribution": "laplace", "correlation_scales": '{"time": 1.0}'}
    with pytest.raises(DataError, match=r"'laplace' beside the attribute 'correlation_scales'.*drop one"):
        sdaxr.assimilate(seen, prior, **QUICK)


@pytest.mark.parametrize("family", FAMILIES)
def test_posterior_of_observations_with_such_errors(truth: xr.Dataset, family: str) -> None:
    """The default method, against draws of the prior weighted with the density of scipy."""
    seen = observe(truth, op.identity(), every=2, error=2.0, noise=family, seed=3)
    draws = CHAIN.draw(200_000, 5)
    y = (np.stack([seen["a"], seen["b"]], axis=-1) - 280) / 2
    weights = np.exp(FAMILIES[family].logpdf(y - draws[:, ::2]).sum((1, 2)))
    mean = np.average(draws, axis=0, weights=weights)
    deviation = np.sqrt(np.average((draws - mean) ** 2, axis=0, weights=weights))
    distance = []
    gaussian = seen.assign({f"{name}_error": seen[f"{name}_error"].drop_attrs() for name in "ab"})
    for data in (seen, gaussian):
        found = sdaxr.assimilate(data, CHAIN.prior(samples=1000), members=400, progress=False)
        samples = (np.stack([found["a"], found["b"]], axis=-1) - 280) / 2
        distance.append(np.sqrt((((samples.mean(0) - mean) / deviation) ** 2).mean()))
        ratio = (samples.std(0) / deviation).mean()
        if data is seen:
            assert 0.85 < ratio < 1.15
    assert distance[0] < 0.2 and distance[0] < distance[1] / 2


@pytest.mark.parametrize("method", [name for name in names("prior") if name != "oi"])
def test_every_method_takes_them_beside_other_networks(truth: xr.Dataset, method: str) -> None:
    networks = {
        "odd": observe(truth, op.select("a"), every=3, error=0.5, noise="lognormal", seed=1),
        "even": observe(truth, op.select("b"), every=2, error=0.4, correlation={"time": 1.0}, seed=2),
    }
    found = sdaxr.assimilate(networks, CHAIN.prior(), method=method, **QUICK)
    assert found.attrs["observations_used"] == [3, 4] and bool(np.isfinite(found.a).all())
    networks["odd"]["a_error"].attrs.pop("distribution")
    gaussian = sdaxr.assimilate(networks, CHAIN.prior(), method=method, **QUICK)
    same = float(np.abs(found.a - gaussian.a).max()) < 1e-3
    assert same == (method in ("dmps", "dps"))
    assert found.attrs["observations_sha256"] != gaussian.attrs["observations_sha256"]


def test_log_likelihood_is_that_of_the_family(truth: xr.Dataset) -> None:
    seen = observe(truth, op.identity(), error=0.5, noise="laplace", seed=1)
    expected = sum(FAMILIES["laplace"].logpdf((seen[n] - truth[n]) / 0.5).sum() for n in "ab") - 16 * math.log(0.5)
    assert float(log_likelihood(truth, seen)) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_innovations_are_the_derivative_of_the_log_likelihood(family: str) -> None:
    random = torch.Generator().manual_seed(3)
    d, step = (torch.randn(5, 4, generator=random, dtype=torch.float64) for _ in range(2))
    errors, variance = torch.full((4,), 0.7, dtype=torch.float64), torch.full((4,), 0.2, dtype=torch.float64)
    mixed = mixture.Mixture.of(np.full(4, family), errors)
    observed = mixture.MixtureObservation(lambda x: x, 0 * errors, errors, errors, mixture=mixed)
    change = observed.log_likelihood(d + 1e-5 * step, variance) - observed.log_likelihood(d - 1e-5 * step, variance)
    torch.testing.assert_close(change, -2e-5 * (observed.weigh(d, variance) * step).sum(1), rtol=1e-5, atol=1e-10)
