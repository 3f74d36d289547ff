"""Guidance against closed forms: a linear Gaussian chain has a Kalman smoother."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from gaussian import GaussianChain

from sdaxr.posterior.covariance.unresolved import UnresolvedVariance, measure
from sdaxr.posterior.execution import batch_size, sample_batch
from sdaxr.posterior.guidance import DPS, SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import DDIM, DPMSolver, Langevin, Sampler, karras_levels, log_snr_levels, member_noise
from sdaxr.prior.held_out import HeldOut
from sdaxr.schema import DivergenceError, OptionError

LENGTH, MEMBERS = 8, 2500
CPU = torch.device("cpu")
CHAIN = GaussianChain(LENGTH)
# Right to half a per cent of each variance (test_samplers.py).
FINE = Sampler(log_snr_levels(96, 80.0, 0.01), DPMSolver(eta=1.0, below=math.inf), Langevin())

CASES = {
    "full": (np.eye(2), 1, 0.5),
    "partial": (np.array([[1.0, 0.0]]), 3, 0.3),
    "noisy": (np.array([[0.6, 0.8]]), 2, 1.5),
}


def draws(seed: int, members: int = MEMBERS, length: int = LENGTH) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, length, 2, generator=generator, dtype=torch.float64)


def matrix_observation(matrix: np.ndarray, y: np.ndarray, error: np.ndarray) -> GaussianObservation:
    """Observations through ``matrix`` (n, 2 length)."""
    h = torch.as_tensor(matrix)
    scale = torch.as_tensor(np.sqrt(np.einsum("ij,jk,ik->i", matrix, CHAIN.covariance, matrix)))
    return GaussianObservation(lambda x: x.flatten(1) @ h.T, torch.as_tensor(y), torch.as_tensor(error), scale)


def scenario(case: str, chain: GaussianChain = CHAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple]:
    """Matrix (n, 2 length), values (n,), errors (n,), and the Kalman smoother's means and covariances."""
    block, every, sd = CASES[case]
    length = chain.length
    operator = np.broadcast_to(block, (length, *block.shape))
    error = np.full(operator.shape[:2], sd)
    truth = chain.draw(1, 3)[0]
    y = np.einsum("lmi,li->lm", operator, truth) + sd * np.random.default_rng(4).normal(size=error.shape)
    y[np.arange(length) % every > 0] = np.nan
    seen = np.isfinite(y).ravel()
    matrix = np.kron(np.eye(length), block)[seen]
    return matrix, y.ravel()[seen], error.ravel()[seen], chain.smoother(operator, y, error)


def exact_gamma(matrix: np.ndarray, scale: np.ndarray) -> Callable[[float], torch.Tensor]:
    """H C (C + r^2 I)^-1 H^T (appendix B), in units of the natural scale: exact for Gaussian priors."""
    return lambda r: torch.as_tensor(matrix @ CHAIN.unresolved(r) @ matrix.T / np.outer(scale, scale))


def assert_moments(samples: np.ndarray, mean: np.ndarray, cov: np.ndarray, sigmas: float = 5.0) -> None:
    """Mean and covariance of each state within Monte-Carlo error."""
    n = len(samples)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < sigmas / np.sqrt(n)
    departure = samples - samples.mean(0)
    found = np.einsum("nli,nlj->lij", departure, departure) / (n - 1)
    spread = np.sqrt((np.einsum("li,lj->lij", deviation, deviation) ** 2 + cov**2) / n)
    assert np.abs((found - cov) / spread).max() < sigmas


def variance_ratio(samples: np.ndarray, cov: np.ndarray) -> float:
    """Total variance of the samples over the true one."""
    return float(samples.var(0, ddof=1).sum() / np.einsum("lii->", cov))


# The smoother itself


@pytest.mark.parametrize("case", CASES)
def test_kalman_smoother_is_the_gaussian_posterior(case: str) -> None:
    matrix, y, error, (mean, cov) = scenario(case)
    gain = CHAIN.covariance @ matrix.T @ np.linalg.inv(matrix @ CHAIN.covariance @ matrix.T + np.diag(error**2))
    expected = CHAIN.covariance - gain @ matrix @ CHAIN.covariance
    np.testing.assert_allclose((gain @ y).reshape(LENGTH, 2), mean, atol=1e-10)
    for i in range(LENGTH):
        np.testing.assert_allclose(expected[2 * i : 2 * i + 2, 2 * i : 2 * i + 2], cov[i], atol=1e-10)


# Sampling against it


@pytest.mark.parametrize("case", CASES)
def test_sda_matches_the_kalman_smoother(case: str) -> None:
    matrix, y, error, (mean, cov) = scenario(case)
    observed = matrix_observation(matrix, y, error)
    guided = SDA(CHAIN.denoise, [observed], gamma=exact_gamma(matrix, observed.scale.numpy()))
    samples = FINE(guided, draws(5)).numpy()
    assert_moments(samples, mean, cov)
    assert variance_ratio(samples, cov) == pytest.approx(1.0, abs=0.03)


def test_two_networks_are_as_good_as_one() -> None:
    matrix, y, error, (mean, cov) = scenario("full")
    half = np.arange(len(y)) % 2 == 0
    parts = [matrix_observation(matrix[k], y[k], error[k]) for k in (half, ~half)]
    order = np.concatenate([np.flatnonzero(half), np.flatnonzero(~half)])
    scale = torch.cat([p.scale for p in parts]).numpy()
    samples = FINE(SDA(CHAIN.denoise, parts, gamma=exact_gamma(matrix[order], scale)), draws(6)).numpy()
    assert_moments(samples, mean, cov)


def test_exact_guidance_is_the_exact_posterior_mean_at_every_level() -> None:
    """E[x | z, y] has a closed form; guidance has to give it to rounding, the 1 / mu of the Jacobian included."""
    matrix, y, error, _ = scenario("partial")
    observed = matrix_observation(matrix, y, error)
    guided = SDA(CHAIN.denoise, [observed], gamma=exact_gamma(matrix, observed.scale.numpy()))
    z = 3 * draws(7, members=5)()
    for r in (0.03, 0.5, 4.0, 50.0):
        precision = (
            np.linalg.inv(CHAIN.covariance) + np.eye(2 * LENGTH) / r**2 + matrix.T @ (matrix / error[:, None] ** 2)
        )
        pull = z.flatten(1).numpy() / r**2 + (matrix.T @ (y / error**2))
        np.testing.assert_allclose(guided(z, r).flatten(1), np.linalg.solve(precision, pull.T).T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.02, "measured"])
def test_score_is_the_gradient_of_the_log_likelihood(gamma: float | str) -> None:
    """Finite differences of log N(y | H(xhat(z)), R + r^2 Gamma) with a nonlinear H."""
    matrix, y, error, _ = scenario("noisy")
    h, values, errors = (torch.as_tensor(a) for a in (matrix, y, error))
    table = UnresolvedVariance((0.01, 10.0), torch.full((2, len(y)), 0.3, dtype=torch.float64))
    observed = GaussianObservation(
        lambda x: torch.atan(x.flatten(1) @ h.T), values, errors, 2 * torch.ones(len(y)), table
    )
    guided = SDA(CHAIN.denoise, [observed], gamma=None if gamma == "measured" else gamma)
    r = 0.7

    def log_likelihood(z: torch.Tensor) -> float:
        variance = errors**2 + (table(r) if gamma == "measured" else 0.02 * (2 * r) ** 2)
        innovation = values - torch.atan(CHAIN.denoise(z, r).flatten(1) @ h.T)
        return float(-(innovation**2 / variance).sum() / 2)

    z = draws(8, members=1)()
    score = ((guided(z, r) - CHAIN.denoise(z, r)) / r**2).flatten()
    for i in range(0, 2 * LENGTH, 3):
        step = torch.zeros(2 * LENGTH, dtype=torch.float64)
        step[i] = 1e-4
        slope = (log_likelihood(z + step.reshape(z.shape)) - log_likelihood(z - step.reshape(z.shape))) / 2e-4
        assert float(score[i]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_bias_of_a_scalar_gamma_shrinks_with_corrections() -> None:
    """A scalar Gamma is no posterior at any r > 0; corrections at the last levels undo what it did on the way."""
    chain = GaussianChain(64)
    matrix, y, error, (mean, _) = scenario("partial", chain)
    scale = torch.ones(len(y), dtype=torch.float64)
    h = torch.as_tensor(matrix)
    observed = GaussianObservation(lambda x: x.flatten(1) @ h.T, torch.as_tensor(y), torch.as_tensor(error), scale)
    guided = SDA(chain.denoise, [observed], gamma=0.5)
    distance = {}
    for corrections in (0, 3, 9):
        sampler = Sampler(karras_levels(48, 20.0, 0.02), DDIM(1.0), Langevin(corrections))
        samples = sampler(guided, draws(9, members=200, length=64)).numpy()
        distance[corrections] = float(np.sqrt(((samples.mean(0) - mean) ** 2).mean()))
    assert distance[9] < distance[3] < distance[0]


# Diffusion posterior sampling


def test_dps_moves_towards_the_observations() -> None:
    matrix, y, error, _ = scenario("partial")
    observed = matrix_observation(matrix, y, error)
    sampler = Sampler(karras_levels(64, 20.0, 0.02), DDIM(1.0), Langevin())
    samples = {zeta: sampler(DPS(CHAIN.denoise, [observed], zeta), draws(12, members=200)) for zeta in (0.0, 3.0)}
    residual = {zeta: float(observed.innovation(x).square().mean().sqrt()) for zeta, x in samples.items()}
    assert residual[0.0] > 0.8
    assert residual[3.0] < residual[0.0] / 2
    torch.testing.assert_close(samples[0.0], sampler(CHAIN.denoise, draws(12, members=200)))


def test_dps_step_is_normalised_for_each_member() -> None:
    """-zeta d|e|^2/dz / |e| against finite differences, and a member does not see the others of its batch."""
    matrix, y, error, _ = scenario("noisy")
    observed = replace(matrix_observation(matrix, y, error), scale=torch.full((len(y),), 2.0, dtype=torch.float64))
    guided = DPS(CHAIN.denoise, [observed], zeta=0.7)
    z, r = draws(13, members=3)(), 0.8
    together = guided(z, r)
    for i in range(3):
        torch.testing.assert_close(together[i], guided(z[i : i + 1], r)[0], rtol=1e-12, atol=1e-12)

    def norm(z: torch.Tensor) -> float:
        return float((observed.innovation(CHAIN.denoise(z, r)) / 2).square().sum().sqrt())

    step = torch.zeros_like(z[:1])
    step[0, 3, 1] = 1e-5
    slope = (norm(z[:1] + step) ** 2 - norm(z[:1] - step) ** 2) / 2e-5
    expected = CHAIN.denoise(z[:1], r)[0, 3, 1] - r**2 * 0.7 * slope / norm(z[:1])
    assert float(together[0, 3, 1]) == pytest.approx(float(expected), rel=1e-6)


# The variance of an observed quantity given z


def test_measured_variance_of_a_gaussian_is_the_closed_form() -> None:
    matrix, _, _, _ = scenario("noisy")
    windows = torch.as_tensor(CHAIN.draw(3000, 14))
    h = torch.as_tensor(matrix)

    def error(true: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        return ((true - denoised).flatten(1) @ h.T).square().mean(dim=0)

    measured = measure(HeldOut.of(CHAIN.denoise, windows, (0.02, 50.0)), error)
    for r in (0.02, 0.1, 1.0, 7.0, 50.0):
        expected = r**2 * np.diag(matrix @ CHAIN.unresolved(r) @ matrix.T)
        np.testing.assert_allclose(measured(r), expected, rtol=0.12)
    np.testing.assert_allclose(measured(0.002), measured(0.02) / 100)
    np.testing.assert_allclose(measured(500.0), measured(50.0))


def test_measured_variance_gives_nearly_the_smoother() -> None:
    """Only the correlation of the quantities given z is left out, which a sparse network hardly has."""
    matrix, y, error, (mean, cov) = scenario("partial")
    levels = tuple(np.geomspace(0.02, 20.0, 40))
    table = np.array([r**2 * np.diag(matrix @ CHAIN.unresolved(r) @ matrix.T) for r in levels])
    observed = replace(
        matrix_observation(matrix, y, error), unresolved=UnresolvedVariance(levels, torch.as_tensor(table))
    )
    samples = FINE(SDA(CHAIN.denoise, [observed]), draws(15)).numpy()
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < 0.2
    assert variance_ratio(samples, cov) == pytest.approx(1.0, abs=0.1)


def test_unmeasured_variance_without_gamma_is_an_error() -> None:
    matrix, y, error, _ = scenario("full")
    with pytest.raises(OptionError, match="pass gamma="):
        SDA(CHAIN.denoise, [matrix_observation(matrix, y, error)])(draws(0, members=1)(), 1.0)


# Members


def test_a_member_is_the_same_in_any_batch() -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(lambda z, r: CHAIN.denoise(z, r), [_float32(matrix_observation(matrix, y, error))], gamma=0.1)
    sampler = Sampler(karras_levels(16, 20.0, 0.02), DPMSolver(eta=1.0), Langevin(count=1))

    one, many = (
        sample_batch(guided, sampler, members, (LENGTH, 2), seed=1, device=CPU) for members in ([7], [3, 4, 5, 6, 7])
    )
    torch.testing.assert_close(one[0], many[4], rtol=1e-4, atol=1e-4)
    assert float((many[3] - many[4]).abs().max()) > 0.1


@dataclass(frozen=True)
class Locked:
    """Observations that the first attempt of some members misses, as far as its noise says."""

    members: torch.Tensor

    def of(self, members: torch.Tensor) -> Locked:
        return replace(self, members=members)

    def __call__(self, z: torch.Tensor, r: float) -> torch.Tensor:
        return z

    def misfit(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs().amax(dim=(1, 2))


@pytest.mark.parametrize("batch", [range(12), range(5, 12)])
def test_members_that_the_observations_exclude_are_drawn_again(batch: range, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def sampler(guided: Locked, noise: Callable[[], torch.Tensor], tick: Callable[[], object]) -> torch.Tensor:
        return noise() / 1.6

    def sample(attempts: int) -> torch.Tensor:
        return sample_batch(Locked(torch.zeros(0)), sampler, batch, (4, 2), seed=0, device=CPU, attempts=attempts)

    first, second, third = (sample(attempts) for attempts in (1, 2, 3))
    misfit = [x.abs().amax(dim=(1, 2)) for x in (first, second, third)]
    far = misfit[0] > 1
    assert 0 < int(far.sum()) < len(batch)
    assert torch.equal(second[~far], first[~far])
    assert (misfit[1] <= misfit[0]).all() and (misfit[1] < misfit[0])[far].any()
    assert torch.equal(third[misfit[1] <= 1], second[misfit[1] <= 1])
    # A member is the same whatever the others are.
    one = sample_batch(Locked(torch.zeros(0)), sampler, [11], (4, 2), seed=0, device=CPU, attempts=2)
    assert torch.equal(one[0], second[-1])
    assert f"{int(far.sum())} of {len(batch)} members are far from the observations" in caplog.text


def test_a_second_attempt_that_diverges_leaves_the_first() -> None:
    calls = []

    def sampler(guided: Locked, noise: Callable[[], torch.Tensor], tick: Callable[[], object]) -> torch.Tensor:
        calls.append(guided)
        if len(calls) > 1:
            raise DivergenceError("far away")
        return 10 * noise()

    drawn = sample_batch(Locked(torch.zeros(0)), sampler, [3], (4, 2), seed=0, device=CPU, attempts=3)
    assert torch.equal(drawn, 10 * member_noise(0, [3], (4, 2), CPU)())
    assert len(calls) == 2


def test_misfit_is_beyond_one_where_errors_cannot_explain_it() -> None:
    observed = GaussianObservation(lambda x: x.flatten(1), torch.zeros(8), torch.full((8,), 0.5), torch.ones(8))
    other = GaussianObservation(lambda x: x[:, :1, 0], torch.zeros(1), torch.ones(1), torch.ones(1))
    x = torch.zeros(3, 4, 2)
    x[1], x[2, 0, 0] = 0.5, 10.0
    misfit = SDA(CHAIN.denoise, [observed, other], gamma=0.1).misfit(x)
    # The chi-squared distribution with 9 degrees of freedom is beyond 45.1 once in a million.
    expected = torch.tensor([0.0, (8 + 0.25) / 45.1, (400 + 100) / 45.1])
    torch.testing.assert_close(misfit, expected, rtol=0.01, atol=0)
    many = GaussianObservation(lambda x: x.flatten(1), torch.zeros(4000), torch.ones(4000), torch.ones(4000))
    assert float(SDA(CHAIN.denoise, [many], gamma=0.1).misfit(torch.full((1, 2000, 2), 1.9))) < 1
    assert torch.equal(DPS(CHAIN.denoise, [observed]).misfit(x), torch.zeros(3))


def test_noise_of_members_does_not_depend_on_the_batch() -> None:
    noise, alone = member_noise(3, [4, 7], (5, 2), "cpu"), member_noise(3, [7], (5, 2), "cpu")
    for _ in range(3):
        assert torch.equal(noise()[1], alone()[0])
    other = member_noise(4, [7], (5, 2), "cpu")
    assert not torch.equal(other(), member_noise(3, [7], (5, 2), "cpu")())


def test_observations_of_its_own_for_each_member() -> None:
    matrix, y, error, _ = scenario("full")
    observed = matrix_observation(matrix, y, error)
    own = replace(observed, values=torch.stack([observed.values, observed.values + 1, observed.values + 2]))
    guided = SDA(CHAIN.denoise, [own], gamma=0.1).of(torch.tensor([2, 0]))
    z = draws(16, members=2)()
    shifted = SDA(CHAIN.denoise, [replace(observed, values=observed.values + 2)], gamma=0.1)
    torch.testing.assert_close(guided(z, 0.5)[:1], shifted(z[:1], 0.5))


def test_batches_fit_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, y, error, _ = scenario("full")
    guided = SDA(CHAIN.denoise, [_float32(matrix_observation(matrix, y, error))], gamma=0.1)
    assert batch_size(guided, (LENGTH, 2), 1, CPU) == 1
    assert batch_size(guided, (LENGTH, 2), 10, CPU) == 10
    monkeypatch.setattr("sdaxr.posterior.execution.CPU_BUDGET", 1.0)
    assert batch_size(guided, (LENGTH, 2), 10, CPU) == 1


def _float32(observed: GaussianObservation) -> GaussianObservation:
    matrix = observed.operator(torch.eye(2 * LENGTH, dtype=torch.float64)).float()
    values, errors, scale = observed.values.float(), observed.errors.float(), observed.scale.float()
    return GaussianObservation(lambda x: x.flatten(1) @ matrix, values, errors, scale)
