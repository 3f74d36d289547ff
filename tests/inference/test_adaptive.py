"""Adaptive inflation against Gaussian posteriors in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.inference.adaptive import AdaptiveFactor


def window(
    random: np.random.Generator, factor: float, used: float, members: int, error: float, n: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """A forecast whose error has ``factor`` times its variance, and the analysis that takes ``used`` for the factor."""
    scale = np.linspace(0.5, 1.5, n)
    centre = random.normal(size=n)
    forecast = centre + scale * random.normal(size=(members, n))
    # The members are draws about the centre; so is the truth, but for the factor.
    away = np.sqrt(factor * (1 + 1 / members)) * scale * random.normal(size=n)
    observed = forecast.mean(0) + away + error * random.normal(size=n)
    prior = used * (1 + 1 / members) * scale**2
    gain = prior / (prior + error**2)
    mean = forecast.mean(0) + gain * (observed - forecast.mean(0))
    return forecast, mean + np.sqrt((1 - gain) * prior) * random.normal(size=(members, n))


@pytest.mark.parametrize("error", [0.5, 2.0])
@pytest.mark.parametrize("factor", [0.6, 1.0, 3.0])
def test_the_factor_is_found_and_remembered(factor: float, error: float) -> None:
    random, adaptive, found = np.random.default_rng(1), AdaptiveFactor(), []
    for _ in range(1500):
        adaptive = adaptive.after(*window(random, factor, adaptive.value, 12, error))
        found.append((adaptive.value, adaptive.variance))
    values, variances = np.array(found[200:]).T
    # Where observations are weak, a small factor and the little that they tell of it are hardly told apart.
    assert values.mean() == pytest.approx(factor, rel=0.25 if error > 1 and factor < 1 else 0.07)
    # The filter allows for a factor that drifts: of one that does not, its error is less than it says.
    assert values.std() < 1.2 * np.sqrt(variances.mean())


def test_windows_that_tell_nothing_leave_the_factor() -> None:
    forecast = np.random.default_rng(2).normal(size=(8, 5))
    same = AdaptiveFactor(1.3, 0.1).after(forecast, np.sqrt(1.3 * 1.125) * forecast)
    assert same.value == 1.3 and same.variance > 0.1


def test_one_observation_is_its_innovation() -> None:
    """The first window with exact moments: an estimate (d^2 - r) / P, and the error of a square."""
    members, variance, factor, r, d = 2, 1.5 * 2.0, 1.4, 0.8, 1.7
    plain = np.array([[-1.0], [1.0]]) / np.sqrt(2)
    gain = factor * variance / (factor * variance + r)
    moved = np.sqrt((gain * d) ** 2 + gain * r / members)  # the mean of two draws has an error, which counts as none
    found = AdaptiveFactor(factor, 0.3).after(np.sqrt(2.0) * plain, moved + np.sqrt(gain * r) * plain)
    estimate, error, before = (d**2 - r) / variance, 2 * (factor + r / variance) ** 2, 0.3 + 0.05**2
    assert found.value == pytest.approx(factor + before / (before + error) * (estimate - factor))
    assert found.variance == pytest.approx(1 / (1 / before + 1 / error))
