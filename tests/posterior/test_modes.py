"""The test of modes: what draws of one mode look like, and what draws of several modes do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.modes import agreement, widest_gap
from sdaxr.posterior.orbits import Orbits
from sdaxr.prior.symmetries import Symmetry

COUNT = 20


def observed(error: float = 0.1) -> Likelihood:
    """Observations of zero of the first COUNT values."""
    ones = torch.ones(COUNT)
    return Likelihood([GaussianObservation(lambda x: x[:, :COUNT, 0], 0 * ones, error * ones, ones)])


def draws(members: int, seed: int, spread: float = 0.1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return spread * torch.randn(members, 2 * COUNT, 1, generator=random)


@pytest.mark.parametrize("members", [1, 5, 16, 64])
def test_draws_of_one_mode_agree(members: int) -> None:
    found = [agreement(observed(), draws(members, seed)) for seed in range(30)]
    assert sum(not each.holds for each in found) <= (1 if members == 16 else 0)
    assert all(each.weightless == 0 for each in found)
    assert str(found[0]).startswith(f"0 of {members} members without weight, gap of ")


def test_modes_that_are_images_of_each_other_count_as_one() -> None:
    """Draws near 1 and near -1 of what is not observed."""
    signs = np.array([-1.0], np.float32)
    orbits = Orbits([Symmetry((), {}, signs, 0 * signs, 2)])
    x = draws(64, 1)
    x[:, COUNT:] += torch.where(torch.arange(64) % 3 == 0, -1.0, 1.0)[:, None, None]
    assert not agreement(observed(), x).holds and agreement(observed(), x, orbits).holds
    x[:20, COUNT:] *= 3
    assert not agreement(observed(), x, orbits).holds


@pytest.mark.parametrize(("members", "many", "holds"), [(64, 20, False), (64, 8, True), (64, 9, False), (4, 2, False)])
def test_members_that_the_observations_exclude_disagree(members: int, many: int, holds: bool) -> None:
    x = draws(members, 1)
    x[:many, :COUNT] += 0.4
    found = agreement(observed(), x)
    assert found.weightless == many and found.holds == holds and found.agree_with_observations == holds


def test_what_the_errors_do_not_explain_has_no_weight_where_they_explain_another() -> None:
    x = draws(64, 1, spread=0.001)
    x[:, :COUNT] += 0.1
    x[:20, :COUNT] += 0.112
    deviance = observed().deviance(x)
    assert float(deviance.max() - deviance.min()) < 7 * (2 * COUNT + 4 * float(deviance.min())) ** 0.5
    assert agreement(observed(), x).weightless == 20


def test_errors_that_are_given_too_small_exclude_nobody() -> None:
    """All members are far from the observations in the same way."""
    x = draws(64, 1)
    x[:, :COUNT] += torch.linspace(-2, 2, COUNT)[:, None]
    found = agreement(observed(), x)
    assert float(observed().misfit(x).min()) > 1 and found.weightless == 0 and found.holds


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("members", [60, 64])
def test_two_modes_that_fit_equally_well_disagree(members: int, share: float) -> None:
    x = draws(members, 1)
    x[: int(share * members), COUNT:] += 1.0
    found = agreement(observed(), x)
    assert found.weightless == 0 and found.gap > 6 and not found.holds


def test_the_gap_is_that_of_known_scores() -> None:
    one = torch.linspace(-0.5, 0.5, 10, dtype=torch.float64)
    scores = torch.cat([one, one + 4.0])
    rows = scores[:, None] * torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    assert widest_gap(rows) == pytest.approx(3.0 / np.std(one.numpy()) * 10**0.5)
    assert widest_gap(rows[:15]) == 0.0  # Fewer members are no sample.


def test_long_tails_are_one_mode() -> None:
    random = np.random.default_rng(0)
    rows = random.exponential(size=(40, 64, 20)) / np.arange(1, 21)
    assert sum(widest_gap(torch.as_tensor(each)) > 6 for each in rows) <= 2
