"""Samples moved among their images under symmetries: shares that are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.mixture import Mixture, MixtureObservation
from sdaxr.posterior.orbits import Orbits
from sdaxr.prior.symmetries import Symmetry

SHAPE = (3, 2)  # times and channels
MEMBERS = range(1000)


def negation(*signs: float) -> Symmetry:
    channels = np.array(signs, np.float32)
    return Symmetry((), {}, channels, np.zeros_like(channels), 2)


BOTH, FIRST = negation(-1, -1), negation(-1, 1)


def observed(operator: Callable[[torch.Tensor], torch.Tensor], value: float, error: float) -> GaussianObservation:
    one = torch.ones(1)
    return GaussianObservation(operator, value * one, error * one, one)


def first(x: torch.Tensor) -> torch.Tensor:
    """The first channel at the first time."""
    return x[:, 0, 0, None]


SQUARE = observed(lambda x: first(x) ** 2, 1.0, 0.1)


def modes(share: float) -> torch.Tensor:
    """Samples near (1, 1), and a part ``share`` of them near (-1, -1)."""
    random = np.random.default_rng(0)
    signs = np.where(random.random(len(MEMBERS)) < share, -1.0, 1.0)
    return torch.as_tensor(signs[:, None, None] * (1 + 0.05 * random.normal(size=(len(MEMBERS), *SHAPE)))).float()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_modes_that_the_observations_cannot_tell_apart_have_one_half(share: float) -> None:
    x = modes(share)
    moved = Orbits([BOTH]).moved(Likelihood([SQUARE]), x, MEMBERS, 4)
    torch.testing.assert_close(moved.abs(), x.abs())
    # Independent choices would have a standard error of 0.016.
    assert float((first(moved) < 0).float().mean()) == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_observation_that_tells_the_modes_apart_gives_their_shares(share: float) -> None:
    """log p(y | x) - log p(y | -x) = 2 x y / e^2."""
    likelihood = Likelihood([SQUARE, observed(first, 0.3, 0.8)])
    x = modes(share)
    moved = Orbits([BOTH]).moved(likelihood, x, MEMBERS, 4)
    expected = torch.sigmoid(2 * x[:, 0, 0].abs() * 0.3 / 0.8**2).mean()
    assert float((first(moved) > 0).float().mean()) == pytest.approx(float(expected), abs=0.005)


def test_errors_of_other_families_count_with_their_density() -> None:
    """Laplace errors: log p(y | x) - log p(y | -x) = sqrt(2) (|y + x| - |y - x|) / e, for y and x above e."""
    names, one = np.array(["laplace"]), torch.ones(1)
    laplace = MixtureObservation(first, 0.4 * one, 2.0 * one, one, mixture=Mixture.of(names, one))
    x = torch.ones(len(MEMBERS), *SHAPE)
    moved = Orbits([BOTH]).moved(Likelihood([laplace]), x, MEMBERS, 4)
    expected = 1 / (1 + math.exp(-math.sqrt(2) * 0.8 / 2.0))
    # The mixture rounds the peak of the density.
    assert float((first(moved) > 0).float().mean()) == pytest.approx(expected, abs=0.03)


def test_a_member_depends_on_the_seed_and_its_number_only() -> None:
    orbits, likelihood, x = Orbits([BOTH, FIRST]), Likelihood([SQUARE]), modes(0.5)
    moved = orbits.moved(likelihood, x, MEMBERS, 4)
    torch.testing.assert_close(orbits.moved(likelihood, x[7:9], [7, 8], 4), moved[7:9])
    assert not torch.equal(orbits.moved(likelihood, x, MEMBERS, 5), moved)


def test_samples_of_all_members_are_ordered_along_the_first_one() -> None:
    """Modes that the fixed direction does not tell apart: their difference is at a right angle to it."""
    fixed = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(SHAPE)
    x[0, 0], x[1, 0] = 1.0, -fixed[0, 0] / fixed[1, 0]
    x = x * modes(0.3)[:, :1, :1].sign() + 0.05 * modes(0.0)
    moved = Orbits([BOTH]).moved(Likelihood([SQUARE]), x, MEMBERS, 4, together=True)
    assert float((first(moved) < 0).float().mean()) == pytest.approx(0.5, abs=0.003)


def test_two_symmetries_have_four_images() -> None:
    x = torch.ones(len(MEMBERS), *SHAPE)
    moved = Orbits([BOTH, FIRST]).moved(Likelihood([SQUARE]), x, MEMBERS, 0)
    signs = moved[:, 0].sign()
    number = (signs @ torch.tensor([1.0, 2.0]) + 3) / 2
    shares = torch.bincount(number.long(), minlength=4) / len(MEMBERS)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_shifts_are_chosen_by_what_was_seen() -> None:
    """A pulse on a ring of four points, of which one is seen: the pulse is there with the odds e^2 to 1, 1, 1."""
    turn = Symmetry((), {-1: 1}, np.ones(1, np.float32), np.zeros(1, np.float32), 4)
    likelihood = Likelihood([observed(lambda x: x[:, 0, 0, 2, None], 1.0, 0.5)])
    pulse = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(MEMBERS), 1, 1, 4)
    moved = Orbits([turn]).moved(likelihood, pulse, MEMBERS, 1)
    places = torch.bincount(moved.flatten(1).argmax(1), minlength=4) / len(MEMBERS)
    odds = torch.tensor([1.0, 1.0, math.exp(2), 1.0])
    torch.testing.assert_close(places, odds / odds.sum(), atol=0.005, rtol=0)


def test_without_symmetries_samples_stay() -> None:
    x = modes(0.5)
    assert Orbits().moved(Likelihood([SQUARE]), x, MEMBERS, 0) is x


def test_states_are_folded_onto_the_nearest_image() -> None:
    x = modes(0.5)
    torch.testing.assert_close(Orbits([BOTH]).folded(x, -torch.ones(SHAPE)), -x.abs())
    torch.testing.assert_close(Orbits([FIRST]).folded(x, -torch.ones(SHAPE))[..., 0], -x[..., 0].abs())
    torch.testing.assert_close(Orbits([FIRST]).folded(x, -torch.ones(SHAPE))[..., 1], x[..., 1])
