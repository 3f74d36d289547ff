"""Relaxation and inflation."""

from __future__ import annotations

import numpy as np
import pytest
from linear_ensembles import linear_case

from sdaxr import operators as op
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.inflation import relaxed_to_perturbations, relaxed_to_spread
from sdaxr.schema import OptionError

RANDOM = np.random.default_rng(0)
BEFORE, AFTER = RANDOM.normal(size=(9, 4)), 3 + 0.2 * RANDOM.normal(size=(9, 4))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_relaxation_is_between_analysis_and_first_guess(alpha: float) -> None:
    spread = relaxed_to_spread(BEFORE, AFTER, alpha)
    np.testing.assert_allclose(spread.std(0), (1 - alpha) * AFTER.std(0) + alpha * BEFORE.std(0))
    np.testing.assert_allclose(np.corrcoef(spread.T), np.corrcoef(AFTER.T))
    deviations = relaxed_to_perturbations(BEFORE, AFTER, alpha)
    expected = (1 - alpha) * (AFTER - AFTER.mean(0)) + alpha * (BEFORE - BEFORE.mean(0))
    np.testing.assert_allclose(deviations - deviations.mean(0), expected)
    for found in (spread, deviations):
        np.testing.assert_allclose(found.mean(0), AFTER.mean(0))


def test_where_no_member_differs_there_is_no_spread_to_relax() -> None:
    same = np.ones((9, 4))
    np.testing.assert_array_equal(relaxed_to_spread(BEFORE, same, 0.5), same)


def test_inflation_comes_after_each_analysis_and_leaves_the_mean() -> None:
    model, _ = linear_case(op.identity(), error=0.5)
    plain, wide = (ETKF(inflation=factor).draw(model, 20, seed=1).paths[:, 0] for factor in (1.0, 1.5))
    np.testing.assert_allclose(wide.mean(0), plain.mean(0))
    np.testing.assert_allclose(wide.std(0), 1.5 * plain.std(0))
    relaxed = ETKF(rtps=1.0).draw(model, 20, seed=1).paths[:, 0]
    np.testing.assert_allclose(relaxed.std(0), model.first.std(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"inflation": 0}, "inflation=0.0 for ETKF, expected a factor above 0"), ({"rtps": 2}, "rtps=2.0 .* from 0 to 1")],
)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ETKF(**options)
