"""Verdicts on ranks whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from sdaxr.verification.uniformity import inside, rank_frequencies
from sdaxr.verification.verdict import ALPHA, describe, evaluated

MEMBERS, LEVELS = 19, [0.5, 0.9]


def trials(ranks: np.ndarray, members: int = MEMBERS, diverged: int = 0) -> xr.Dataset:
    """Trials of one state variable, all of whose values have the ranks (truth, quantity)."""
    count, quantities = ranks.shape
    covered = inside(ranks, members, LEVELS).mean(1, keepdims=True)
    names = np.array([f"x[{i}]" for i in range(quantities)], object)
    lost = (np.arange(count) < diverged).astype(np.int8)
    return xr.Dataset(
        {
            "rank": (("truth", "quantity"), ranks),
            "covered": (("truth", "variable", "level"), covered),
            "squared_error": (("truth", "variable"), np.full((count, 1), 2.0)),
            "squared_spread": (("truth", "variable"), np.full((count, 1), 0.5)),
            "diverged": ("truth", lost),
        },
        {"quantity": names, "level": LEVELS, "variable": np.array(["x"], object)},
        {"title": "Calibration"},
    )


def verdict(ranks: np.ndarray, **options: int) -> str:
    return str(evaluated(trials(ranks, **options), MEMBERS).attrs["verdict"])


def ranks_with(ratio: float, truths: int, quantities: int = 5, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Ranks of truths N(shift, 1) among members N(0, ratio^2)."""
    random = np.random.default_rng(seed)
    truth = shift + random.standard_normal((truths, quantities))
    return (ratio * random.standard_normal((MEMBERS, truths, quantities)) < truth).sum(0)


@pytest.mark.parametrize(
    ("ratio", "shift", "truths", "expected"),
    [
        (1.0, 0.0, 200, "calibrated"),
        (0.5, 0.0, 200, "too narrow (coverage of all values, 5 of 5 quantities)"),
        (2.0, 0.0, 200, "too wide (coverage of all values, 5 of 5 quantities)"),
        (1.0, 0.7, 200, "biased (coverage of all values, 5 of 5 quantities)"),
        (1.0, 0.0, 12, "too few truths to say"),
    ],
)
def test_the_fault_is_named(ratio: float, shift: float, truths: int, expected: str) -> None:
    found = verdict(ranks_with(ratio, truths, shift=shift))
    assert found == expected


def test_a_small_fault_of_all_values_is_found_where_no_single_quantity_shows_it() -> None:
    """The tests of forty independent quantities are adjusted for forty, that of the coverage is not."""
    result = evaluated(trials(ranks_with(0.85, 80, 40)), MEMBERS)
    assert result.attrs["verdict"] == "too narrow (coverage of all values)"
    assert set(result["verdict"].values) == {"calibrated"}


def test_a_bias_has_the_sign_of_the_ensemble() -> None:
    result = evaluated(trials(ranks_with(1.0, 200, shift=0.7)), MEMBERS)
    assert set(result["verdict"].values) == {"biased low"} and (result["bias"] > 2).all()


@pytest.mark.parametrize("copies", [1, 40])
def test_a_right_ensemble_is_rejected_as_often_as_stated_however_many_values_depend_on_each_other(copies: int) -> None:
    """Forty quantities that are one and the same quantity are one quantity: only truths are counted."""
    repeats = 150
    found = [verdict(np.repeat(ranks_with(1.0, 64, 1, seed=100 + n), copies, axis=1)) for n in range(repeats)]
    rejected = np.mean([each not in ("calibrated", "too few truths to say") for each in found])
    assert rejected <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / repeats)


def test_independent_quantities_together_keep_the_level() -> None:
    repeats = 150
    found = [verdict(ranks_with(1.0, 64, 12, seed=700 + n)) for n in range(repeats)]
    rejected = np.mean([each not in ("calibrated", "too few truths to say") for each in found])
    assert rejected <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / repeats)


@pytest.mark.parametrize("ratio", [0.6, 1.0])
def test_coverage_is_that_of_theory_and_its_interval_holds_it(ratio: float) -> None:
    expected = rank_frequencies(MEMBERS, ratio) @ inside(np.arange(MEMBERS + 1), MEMBERS, LEVELS)
    # Of very many members; of few, the interval is wider on average.
    assert expected[1] == pytest.approx(2 * norm.cdf(ratio * norm.ppf(0.95)) - 1, abs=0.04)
    repeats = 100
    missed = 0
    for n in range(repeats):
        result = evaluated(trials(ranks_with(ratio, 100, 4, seed=n)), MEMBERS)
        low, high = result["state_coverage_interval"].sel(variable="x", level=0.9).values
        missed += not low <= expected[1] <= high
    assert missed / repeats <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / repeats)
    np.testing.assert_allclose(result["coverage"].mean("quantity"), expected, atol=0.08)


def test_spread_over_error_counts_the_finite_ensemble() -> None:
    result = evaluated(trials(ranks_with(1.0, 20)), MEMBERS)
    assert float(result["spread_error"].sel(variable="x")) == pytest.approx(np.sqrt(20 / 19 * 0.5 / 2.0))


def test_posteriors_that_diverged_are_counted_and_no_rank_of_them_is() -> None:
    ranks = ranks_with(1.0, 103)
    result = evaluated(trials(ranks, diverged=3), MEMBERS)
    assert result.attrs["verdict"] == "diverged for 3 of 103 truths; calibrated" and result.attrs["diverged"] == 3
    expected = evaluated(trials(ranks[3:]), MEMBERS)
    xr.testing.assert_identical(result["p_value"], expected["p_value"])
    all_lost = evaluated(trials(ranks, diverged=103), MEMBERS)
    assert all_lost.attrs["verdict"] == "diverged for 103 of 103 truths" and "p_value" not in all_lost
    assert describe(all_lost).splitlines()[1] == "verdict: diverged for 103 of 103 truths"


def test_the_text_fits_a_screen() -> None:
    result = evaluated(trials(ranks_with(0.5, 100, 30)), MEMBERS)
    lines = describe(result).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 120
    assert lines[1] == "verdict: too narrow (coverage of all values, 30 of 30 quantities)"
    assert lines[-1].startswith("and 18 quantities")
    assert any(line.startswith("x ") and "90%" in line for line in lines)
