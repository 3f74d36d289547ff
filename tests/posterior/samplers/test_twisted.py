"""Twisted sequential Monte Carlo against closed forms: a Gaussian chain, and mixtures with modes of known shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scenarios import CHAIN, LENGTH, exact_gamma, matrix_observation, scenario

from sdaxr.posterior.covariance.variance import Matrix
from sdaxr.posterior.guidance.base import GuidedDenoiser
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.base import refuse_together
from sdaxr.posterior.samplers.dpm import SDEDPMSolver
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.particles import Particles
from sdaxr.posterior.samplers.predictor_corrector import Noise, PredictorCorrector, Streams
from sdaxr.posterior.samplers.twisted import Twisted, TwistedParticles
from sdaxr.schema import OptionError

# Two modes of states of two values, of equal share under the prior.
CENTRES = torch.tensor([[2.0, 1.0], [-2.0, -1.0]], dtype=torch.float64)
SPREAD = 0.3
# Observations of the first value; each is exact for neither mode, all together are.
COUNT, ERROR, SEEN = 16, 2.0, 0.1


def mixture(z: torch.Tensor, r: float) -> torch.Tensor:
    """E[x | z] for the mixture, z of shape (batch, 1, 2)."""
    flat = z.flatten(1)
    distance = (flat[:, None] - CENTRES).square().sum(2) / (SPREAD**2 + r**2)
    weights = torch.softmax(-distance / 2, 1)
    means = CENTRES + SPREAD**2 / (SPREAD**2 + r**2) * (flat[:, None] - CENTRES)
    return (weights[..., None] * means).sum(1).reshape(z.shape)


def variance_given_noise(r: float) -> float:
    """Mean variance of the first value given z, by sampling."""
    random = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (4000,), generator=random)
    x = CENTRES[sign] + SPREAD * torch.randn(4000, 2, generator=random, dtype=torch.float64)
    z = x + r * torch.randn(4000, 2, generator=random, dtype=torch.float64)
    return float((x - mixture(z[:, None], r)[:, 0])[:, 0].square().mean())


def two_modes() -> GuidedDenoiser:
    known: dict[float, float] = {}

    def unresolved(r: float) -> torch.Tensor:
        return torch.full((COUNT,), known.setdefault(r, variance_given_noise(r)), dtype=torch.float64)

    ones = torch.ones(COUNT, dtype=torch.float64)
    observed = GaussianObservation(
        lambda x: x[:, 0, :1].expand(-1, COUNT), SEEN * ones, ERROR * ones, 2 * ones, unresolved=unresolved
    )
    return SDA().guide(mixture, [observed])


def share_of_the_first() -> float:
    """Posterior probability of the first mode; all observations together have the error ERROR / sqrt(COUNT)."""
    variance = SPREAD**2 + ERROR**2 / COUNT
    odds = math.exp(((SEEN + 2) ** 2 - (SEEN - 2) ** 2) / (2 * variance))
    return odds / (1 + odds)


def noise(members: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, 1, 2, generator=random, dtype=torch.float64)


LEVELS = log_snr_levels(64, 20.0, 0.01)


def softer(r: float) -> float:
    """A power that makes the likelihood less sharp at high noise levels."""
    return (1 + r) ** -1.5


def particles(
    levels: tuple[float, ...] = LEVELS, corrections: int = 1, candidates: int = 1, narrow: float = 0.5, **options: Any
) -> TwistedParticles:
    corrector = LangevinCorrector(corrections, 0.5, 0.1, 1.0)
    return TwistedParticles(
        PredictorCorrector(levels, SDEDPMSolver().predictor(), corrector), candidates, narrow, **options
    )


def draw(
    sampler: TwistedParticles, guided: GuidedDenoiser, members: int, seed: int, *, chunk: int | None = None, **how: Any
) -> tuple[torch.Tensor, float]:
    """Members, and their effective number."""
    tick = how.get("tick", lambda _: None)
    states, about = sampler.members(
        guided, range(members), streams(seed), attempt=0, chunk=chunk or 10**6, tick=tick
    )  # fmt: skip
    return states, about["effective_members"]


def streams(seed: int, shape: tuple[int, ...] = (1, 2)) -> Streams:
    def stream(numbers: Sequence[int], key: int) -> Noise:
        own = [torch.Generator().manual_seed(10**6 * seed + 10**7 * key + n) for n in numbers]
        return lambda: torch.stack([torch.randn(*shape, generator=g, dtype=torch.float64) for g in own])

    return stream


def test_modes_have_their_shares_where_the_default_gives_them_others() -> None:
    members, exact = 4000, share_of_the_first()
    states, effective = draw(particles(candidates=4, narrow=0.02, power=softer), two_modes(), members, 1)
    share = float((states[:, 0, 0] > 0).double().mean())
    error = math.sqrt(exact * (1 - exact) / effective)
    assert abs(share - exact) < 3 * error and error < 0.02
    # Within its mode, a sample is as exact.
    precision = 1 / SPREAD**2 + COUNT / ERROR**2
    mean = (2 / SPREAD**2 + COUNT * SEEN / ERROR**2) / precision
    first = states[states[:, 0, 0] > 0][:, 0, 0]
    assert float(first.mean()) == pytest.approx(mean, abs=0.05)
    assert float(first.var()) * precision == pytest.approx(1, rel=0.15)

    usual = PredictorCorrector(LEVELS, SDEDPMSolver().predictor(), LangevinCorrector(3, 0.5, 0.1, 10.0))
    plain = usual(two_modes(), noise(members, 1))
    assert abs(float((plain[:, 0, 0] > 0).double().mean()) - exact) > 5 * error


def test_few_members_are_effective_where_observations_count_as_independent() -> None:
    """The same value seen often: the likelihood of z counts its uncertainty once for each observation."""
    effective = [
        draw(particles(narrow=0.02, power=power), two_modes(), 2000, 3)[1] for power in (softer, lambda r: 1.0)
    ]
    assert effective[0] > 5 * effective[1]


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_gaussian_posterior_stays_exact(candidates: int) -> None:
    matrix, y, error, (mean, covariance) = scenario("partial")
    observed = matrix_observation(matrix, y, error)
    guided = SDA(variance=Matrix(exact_gamma(matrix, observed.scale.numpy()))).guide(CHAIN.denoise, [observed])
    sampler = particles(log_snr_levels(128, 80.0, 0.01), 0, candidates, narrow=1.0)
    members = 1500
    states, about = sampler.members(
        guided, range(members), streams(1, (LENGTH, 2)), attempt=0, chunk=1000, tick=lambda _: None
    )
    effective = about["effective_members"]
    assert states.shape == (members, LENGTH, 2)
    # The exact twisting function leaves nothing to the weights, but for the length of the steps.
    assert effective > 0.7 * members
    deviation = np.sqrt(np.einsum("lii->li", covariance))
    found = states.numpy()
    np.testing.assert_allclose((found.mean(0) - mean) / deviation, 0, atol=4 / math.sqrt(effective))
    np.testing.assert_allclose(found.std(0) / deviation, 1, atol=0.12)


def test_members_are_the_same_again_and_in_any_chunk() -> None:
    sampler = particles(candidates=2)
    first, _ = draw(sampler, two_modes(), 10, 1)
    assert torch.equal(draw(sampler, two_modes(), 10, 1)[0], first)
    torch.testing.assert_close(draw(sampler, two_modes(), 10, 1, chunk=3)[0], first)
    assert float((draw(sampler, two_modes(), 10, 5)[0] - first).abs().max()) > 0.1


def test_evaluations_count_the_candidates() -> None:
    built = Twisted(steps=20, corrections=2, above=0.3, candidates=5, narrow=1.0).build((0.01, 10.0))
    counted: list[int] = []
    draw(built, two_modes(), 10, 1, tick=counted.append)
    assert sum(counted) == 10 * built.evaluations
    assert counted.count(50) == 1 + sum(r > 1 for r in built.levels) and min(counted) == 10


@pytest.mark.parametrize("narrow", [0.001, 100.0])
def test_members_are_chosen_at_the_last_or_the_first_level_at_the_extremes(narrow: float) -> None:
    sampler = particles(narrow=narrow, candidates=2)
    assert sampler.chosen_at == (len(LEVELS) - 2 if narrow < 1 else 0)
    assert bool(draw(sampler, two_modes(), 10, 1)[0].isfinite().all())


def test_a_budget_takes_candidates_first() -> None:
    sampler, levels = Twisted(), {"levels": (0.01, 10.0)}
    whole = sampler.build(**levels).evaluations
    assert sampler.within(whole, **levels) == sampler
    for share in (0.9, 0.3, 0.05):
        found = sampler.within(share * whole, **levels)
        assert found.build(**levels).evaluations <= share * whole
        assert found.candidates < 24 and (found.steps == 32) == (share > 0.2)


def test_few_effective_members_are_told(caplog: pytest.LogCaptureFixture) -> None:
    draw(particles(), two_modes(), 40, 1)
    assert "of 40 members are effective" in caplog.text


def test_sorted_particles_keep_the_shares_of_their_groups() -> None:
    """However the particles lie, and whatever the number from 0 to 1, each group has its share to one particle."""
    random = torch.Generator().manual_seed(0)
    right = torch.rand(60, generator=random) < 0.3
    xhat = torch.where(right, 2.0, -2.0)[:, None] + 0.3 * torch.randn(60, 3, generator=random)
    weight = torch.rand(60, generator=random)
    crowd = Particles(xhat, xhat, xhat, weight, weight.log(), torch.arange(60))
    share = float(weight[right].sum() / weight.sum())
    for uniform in (0.0, 0.3, 0.99):
        chosen = crowd.resampled(uniform, 20)
        assert abs(float((chosen.xhat.mean(1) > 0).sum()) - 20 * share) < 1
        assert len(chosen.z) == 20 and not chosen.log_weight.any()


def test_impossible_options_are_refused() -> None:
    for options in ({"threshold": 2.0}, {"candidates": 0}, {"narrow": 0.0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            Twisted(**options)
    with pytest.raises(OptionError, match="draws members together .* found a forecast"):
        refuse_together(Twisted(), "a forecast")
    refuse_together(SDEDPMSolver(), "a forecast")


def test_the_slope_is_the_derivative_of_the_likelihood() -> None:
    guided, z = two_modes(), noise(3, 1)() * 0.5
    xhat, log, slope = guided.twist(z, 0.5)
    assert xhat.shape == slope.shape == (3, 1, 2) and log.shape == (3,)
    step = 1e-5 * noise(3, 9)()
    change = guided.twist(z + step, 0.5)[1] - guided.twist(z - step, 0.5)[1]
    torch.testing.assert_close(change, 2 * (slope * step).flatten(1).sum(1), rtol=1e-4, atol=1e-12)
