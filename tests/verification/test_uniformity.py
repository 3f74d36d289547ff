"""Ranks, bands and tests of uniformity, against exact probabilities and simulations with other random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from sdaxr.verification.uniformity import (
    Uniformity,
    bias_and_dispersion,
    holm,
    inside,
    normal_scores,
    rank_frequencies,
    ranks_among,
)

ALPHA = 0.05


def uniform_ranks(truths: int, members: int, sets: int, seed: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, members + 1, (truths, sets))


def beyond(count: int, probability: float, sigmas: float = 4.0) -> float:
    """What a frequency of independent events exceeds with a probability of 3e-5."""
    return probability + sigmas * np.sqrt(probability * (1 - probability) / count)


def test_ranks_count_the_members_below_and_ties_are_drawn() -> None:
    random = np.random.default_rng(0)
    members = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    assert ranks_among(np.array([4.0, 0.0]), members, random).tolist() == [2, 0]
    tied = np.stack([ranks_among(np.array([3.0, 2.0]), members, random) for _ in range(4000)])
    frequencies = [np.bincount(column, minlength=4) / 4000 for column in tied.T]
    np.testing.assert_allclose(frequencies, [[0, 0.5, 0.5, 0], [0.25] * 4], atol=0.03)


def test_ranks_of_exchangeable_truths_are_uniform() -> None:
    random = np.random.default_rng(1)
    drawn = random.gamma(2.0, size=(10, 200_000))
    frequencies = np.bincount(ranks_among(drawn[0], drawn[1:], random), minlength=10) / 200_000
    np.testing.assert_allclose(frequencies, 0.1, atol=4 * np.sqrt(0.09 / 200_000))


@pytest.mark.parametrize("members", [2, 7, 19, 100])
def test_intervals_have_their_level_for_uniform_ranks_of_any_number(members: int) -> None:
    levels = [0.05, 0.5, 0.9, 0.987]
    np.testing.assert_allclose(inside(np.arange(members + 1), members, levels).mean(0), levels, rtol=1e-12)


def test_the_interval_between_two_members_is_that_between_two_members() -> None:
    assert inside(np.arange(20), 19, [0.9])[:, 0] == pytest.approx([0] + [1] * 18 + [0])


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.5])
def test_rank_frequencies_give_the_coverage_of_a_wrong_spread(ratio: float) -> None:
    # Of very many members, the central interval of the level p is +- ratio z_p.
    members, levels = 2000, [0.5, 0.9]
    found = rank_frequencies(members, ratio) @ inside(np.arange(members + 1), members, levels)
    expected = 2 * norm.cdf(ratio * norm.ppf(0.5 + np.array(levels) / 2)) - 1
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(rank_frequencies(9, 1.0), 0.1, atol=1e-3)


@pytest.mark.parametrize(("truths", "members"), [(20, 9), (64, 19), (200, 99)])
def test_bands_and_tests_have_their_level(truths: int, members: int) -> None:
    sets, test = 4000, Uniformity(truths, members)
    ranks = uniform_ranks(truths, members, sets)
    rejected = test.p_values(ranks) <= ALPHA
    assert 0.5 * ALPHA < rejected.mean() < beyond(sets, ALPHA)
    ecdf = np.stack([(ranks <= j).mean(0) for j in range(members)])
    low, high = test.ecdf_band(ALPHA)[:, :, None]
    outside = ((ecdf < low - 1e-12) | (ecdf > high + 1e-12)).any(0)
    # The band and the test are one and the same.
    assert (outside == rejected).mean() > 0.995 and outside.mean() < beyond(sets, ALPHA)


@pytest.mark.parametrize(("truths", "members"), [(20, 9), (64, 19), (200, 98)])
def test_the_band_of_the_coverage_holds_at_all_levels_together(truths: int, members: int) -> None:
    sets, levels = 4000, [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]
    found = inside(uniform_ranks(truths, members, sets), members, levels).mean(0)
    low, high = Uniformity(truths, members).coverage_band(levels, ALPHA)
    missed = ((found < low - 1e-12) | (found > high + 1e-12)).any(1)
    # The band is simulated; its own level has an error of its 9999 simulations, too.
    assert 0.3 * ALPHA < missed.mean() < beyond(sets, ALPHA) + 0.01
    assert (low < levels).all() and (high > levels).all()


def test_narrow_members_are_found_as_often_as_the_power_says() -> None:
    test, ratio = Uniformity(64, 19), 0.6
    random = np.random.default_rng(3)
    truth, drawn = random.standard_normal((64, 1000)), ratio * random.standard_normal((19, 64, 1000))
    rejected = (test.p_values(ranks_among(truth, drawn, random)) <= ALPHA).mean()
    assert rejected == pytest.approx(test.power(ratio, ALPHA), abs=0.06) and 0.5 < rejected < 1
    assert test.power(1.0, ALPHA) < 0.08


@pytest.mark.parametrize("members", [1, 2, 9, 50])
def test_scores_are_standardised_and_rise_with_the_rank(members: int) -> None:
    scores = normal_scores(np.arange(members + 1), members)
    np.testing.assert_allclose([scores.mean(), scores.var()], [0, 1], atol=1e-12)
    assert (np.diff(scores) > 0).all()


def test_bias_and_dispersion_are_standard_normal_for_uniform_ranks() -> None:
    found = np.stack(bias_and_dispersion(uniform_ranks(100, 19, 4000), 19))
    np.testing.assert_allclose(found.mean(1), 0, atol=0.1)
    np.testing.assert_allclose(found.std(1), 1, atol=0.1)


@pytest.mark.parametrize(("ratio", "shift", "signs"), [(0.5, 0, (0, 1)), (2.0, 0, (0, -1)), (1.0, 1.0, (1, 0))])
def test_a_bias_is_no_dispersion_and_the_reverse(ratio: float, shift: float, signs: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    truth, drawn = shift + random.standard_normal((500, 1)), ratio * random.standard_normal((99, 500, 1))
    bias, dispersion = bias_and_dispersion(ranks_among(truth, drawn, random), 99)
    for found, sign in zip((bias[0], dispersion[0]), signs, strict=True):
        assert found * sign > 8 if sign else abs(found) < 4


def test_holm_adjusts_as_in_the_textbook() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])
