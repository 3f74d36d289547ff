"""The ensemble score filter against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analyses import analysed, quantiles, seen
from chains import truth_of
from filtered import QUIET

from sdaxr import operators as op
from sdaxr.filters.ensf import EnSF
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.lorenz96 import Lorenz96


def gaussian_moments(method: EnSF, kappa: float, innovation: float, prior: float = 1.0) -> tuple[float, float]:
    """Mean and variance that the steps of the method give for the exact score of N(0, prior)."""
    mean, variance, step = 0.0, method.epsilon_alpha**2 * prior + 1, 1 / method.steps
    for number in range(method.steps):
        time = 1 - number * step
        alpha = 1 - time * (1 - method.epsilon_alpha)
        noise = method.epsilon_beta + time * (1 - method.epsilon_beta)
        rate = -(1 - method.epsilon_alpha) / alpha
        diffusion = (1 - method.epsilon_beta) - 2 * rate * noise
        length = step * diffusion * (1 - time)
        gain = length * kappa / (1 + length * kappa)
        factor = 1 - step * rate - step * diffusion / (alpha**2 * prior + noise) - gain
        mean, variance = factor * mean + gain * innovation, factor**2 * variance + step * diffusion
    return mean, variance


def reversed_with_the_exact_score(method: EnSF, kappa: float, members: np.ndarray) -> np.ndarray:
    def pulled(z: np.ndarray, step: float) -> np.ndarray:
        return step * kappa * (1.0 - z) / (1 + step * kappa)

    def score(z: np.ndarray, alpha: float, beta: float) -> np.ndarray:
        return -z / (alpha**2 + beta**2)

    return method.reverse(members, score, pulled, np.random.default_rng(1))


@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("options", [{}, {"epsilon_alpha": 0.05, "epsilon_beta": 0.0, "steps": 30}])
def test_with_the_exact_score_draws_have_the_moments_of_the_steps(kappa: float, options: dict) -> None:
    method, members = EnSF(**options), np.random.default_rng(0).normal(size=(20000, 1))
    drawn = reversed_with_the_exact_score(method, kappa, members)
    mean, variance = gaussian_moments(method, kappa, 1.0)
    error = 5 / np.sqrt(len(drawn))
    assert drawn.mean() == pytest.approx(mean, abs=error * variance**0.5)
    assert drawn.var() == pytest.approx(variance, rel=error * np.sqrt(2))


@pytest.mark.parametrize(
    ("kappa", "mean", "variance"), [(0.1, 0.0750, 0.9072), (1.0, 0.5167, 0.4434), (10.0, 0.9774, 0.0522)]
)
def test_what_damping_does_is_what_the_documentation_says(kappa: float, mean: float, variance: float) -> None:
    method = EnSF(steps=4000, epsilon_alpha=0.05, epsilon_beta=0.0)
    assert gaussian_moments(method, kappa, 1.0) == pytest.approx((mean, variance), abs=2e-3)


@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
def test_a_large_ensemble_knows_the_score_of_a_gaussian(kappa: float) -> None:
    method = EnSF(scale=2.0)
    drawn = analysed(method, 7.0 + 2 * quantiles(1000), seen(lambda x: x, 9.0, 2 / np.sqrt(kappa)))
    mean, variance = gaussian_moments(method, kappa, 1.0)
    error = 5 / np.sqrt(len(drawn))
    assert drawn.mean() == pytest.approx(7 + 2 * mean, abs=2 * error * variance**0.5)
    assert drawn.var() == pytest.approx(4 * variance, rel=error * np.sqrt(2))


def test_a_mean_over_elements_is_met_by_white_noise_only() -> None:
    method, size = EnSF(scale=2.0, batch=1, steps=50), 16
    members = np.full((500, size), 3.0)
    drawn = analysed(method, members, seen(lambda x: x.mean(-1, keepdim=True), [4.0], 0.1)).mean(1)
    # Noise of a mean has the scale 2 / 4, five times the error.
    mean, variance = gaussian_moments(method, 25.0, 1.0 / 0.5, prior=0.0)
    error = 5 / np.sqrt(len(drawn))
    assert drawn.mean() == pytest.approx(3 + 0.5 * mean, abs=error * 0.5 * variance**0.5)
    assert drawn.var() == pytest.approx(0.25 * variance, rel=error * np.sqrt(2))


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_without_information_draws_are_members_with_noise(batch: int | None) -> None:
    members = np.array([[-30.0, 10.0], [0.0, 0.0], [20.0, -40.0]])
    blind = seen(lambda x: x, [5.0, 5.0], 1e6)
    drawn = np.stack(
        [analysed(EnSF(scale=1.0, batch=batch, epsilon_beta=0.0, steps=steps), members, blind) for steps in (50, 5000)]
    )
    away = np.abs(drawn[:, :, None] - members).max(-1).min(-1)
    # What is left is the noise of the last step.
    assert (away[0] < 5 / np.sqrt(50)).all() and (away[1] < 5 / np.sqrt(5000)).all()
    if batch == 1:
        np.testing.assert_allclose(drawn[1], members, atol=5 / np.sqrt(5000))


def test_draws_follow_observations_that_saturate() -> None:
    random = np.random.default_rng(0)
    truth = 3 * random.normal(size=200)
    members = truth + 2 * random.normal(size=(20, 200))
    drawn = analysed(EnSF(scale=1.0), members, seen(torch.arctan, np.arctan(truth), 0.05))
    clear = np.abs(truth) < 1
    before, after = (np.abs(x - truth)[:, clear].mean() for x in (members, drawn))
    assert after < 0.5 * before


def test_a_ring_is_followed_and_draws_are_those_of_the_seed() -> None:
    truth = truth_of(Lorenz96(sites=12), 41, 1)
    arctans = observe(truth, op.arctan(), error=0.05, every=2, seed=2)
    options = {"method": {"name": "ensf", "scale": 1, "steps": 30}, "members": 12} | QUIET
    found = smooth(arctans, Lorenz96(sites=12), seed=1, **options)
    error = float(np.sqrt(((found.x.mean("member") - truth.x).isel(time=slice(20, None)) ** 2).mean()))
    assert error < 0.4 * float(truth.x.std())
    assert found.attrs["members_distribution"] == "filtering"
    few = arctans.isel(time=slice(3))
    one, again, other = (smooth(few, Lorenz96(sites=12), seed=seed, **options).x for seed in (1, 1, 2))
    assert again.equals(one) and not other.equals(one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "found steps=0 for ensf, expected a whole number of at least 1 and of at most 32768"),
        ({"epsilon_alpha": 0.0}, "found epsilon_alpha=0.0 for ensf, expected a number above 0 and of at most 1"),
        ({"epsilon_beta": 1.0}, "found epsilon_beta=1.0 for ensf, expected a number of at least 0 and below 1"),
        ({"batch": 0}, "found batch=0 for ensf, expected a whole number of at least 1"),
        ({"scale": -1.0}, "found scale=-1.0 for ensf, expected a number above 0"),
        ({"localisation": 3}, "unknown option of ensf: 'localisation'"),
    ],
)
def test_options_that_are_impossible(options: dict, message: str) -> None:
    seen = observe(truth_of(Lorenz96(sites=12), 3, 1), op.identity(), error=1.0)
    with pytest.raises(OptionError, match=message):
        smooth(seen, Lorenz96(sites=12), method={"name": "ensf"} | options, members=4, **QUIET)
