"""The power of a likelihood: what counts the same thing several times gets the power that counts it once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.tempering import Tempering, best_power, trajectories
from sdaxr.prior.held_out import HeldOut


def pairs(count: int, copies: int) -> torch.Tensor:
    """log p~(y_j | z_k) for y = x + noise, z = x + noise; ``copies`` times the exact one."""
    random = torch.Generator().manual_seed(1)
    x, first, second = torch.randn(3, count, generator=random, dtype=torch.float64)
    z, y = x + 0.5 * first, x + 0.3 * second
    expected, variance = z / 1.25, 0.25 / 1.25 + 0.09
    return -copies * (y[:, None] - expected).square() / (2 * variance)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_what_is_counted_several_times_gets_the_power_of_once(copies: int) -> None:
    found = best_power(pairs(2000, copies))
    assert found == pytest.approx(1 / copies, rel=0.15)


def white_noise(copies: int, error: float) -> tuple[GaussianObservation, HeldOut]:
    """The mean of white noise of one value at each of four times, seen ``copies`` times with an error."""
    random = torch.Generator().manual_seed(2)
    states = torch.randn(400, 4, 1, generator=random)
    levels = (0.01, 0.1, 1.0, 10.0)
    noise = torch.randn(states.shape, generator=random)
    denoised = torch.stack([(states + r * noise) / (1 + r**2) for r in levels])

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x.mean(1).expand(-1, copies)

    ones = torch.ones(copies)
    observed = GaussianObservation(mean, 0 * ones, error * ones, 0.5 * ones)
    observed = replace(observed, unresolved=lambda r: ones * r**2 / (1 + r**2) / 4)
    return observed, HeldOut(states, levels, denoised, noise)


def test_it_is_one_where_the_errors_dominate_and_less_where_values_repeat_each_other() -> None:
    power = {}
    for copies in (1, 8):
        observed, held_out = white_noise(copies, 0.3)
        power[copies] = Tempering.measure([observed], Measured(), held_out, 4)
    assert power[1](0.01) == pytest.approx(1, abs=0.01) and power[8](0.01) == pytest.approx(1, abs=0.01)
    # Of eight copies, which have errors of their own, each counts for less at large r.
    assert power[8](1.0) < 0.3 * power[1](1.0)
    middle = math.sqrt(power[8].powers[1] * power[8].powers[2])
    assert power[8](math.sqrt(0.1)) == pytest.approx(middle)
    assert power[8](1e3) == power[8].powers[-1] and power[8](1e-5) == power[8].powers[0]


def test_trajectories_are_cut_from_long_windows_and_repeat_short_ones() -> None:
    windows = torch.arange(20.0).reshape(2, 10, 1)
    cut = trajectories(windows, 4, 100)
    assert cut.shape == (8, 4, 1)
    assert cut[:, 0, 0].tolist() == [0, 10, 2, 12, 4, 14, 6, 16]
    assert trajectories(windows, 4, 3).shape == (3, 4, 1)
    assert trajectories(windows, 25, 100)[1, :, 0].tolist() == [10 + i % 10 for i in range(25)]
