"""Relaxation and inflation."""

from __future__ import annotations

import numpy as np
import pytest
from linear_ensembles import linear_case
from scipy.optimize import minimize_scalar

from sdaxr import operators as op
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.inflation import (
    finite_size_precision,
    precision_at,
    relaxed_to_perturbations,
    relaxed_to_spread,
)
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


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_finite_size_filter_minimises_its_dual_cost(scale: float) -> None:
    """For a few ensembles at once, against a scalar minimiser and the cost written with singular vectors."""
    random, members, certainty = np.random.default_rng(3), 6, 1.5
    deviations = random.normal(size=(4, members, 3))
    deviations -= deviations.mean(1, keepdims=True)
    innovation = scale * random.normal(size=(4, 3))
    values, vectors = np.linalg.eigh(deviations @ deviations.swapaxes(1, 2))
    values = values.clip(min=0)
    projected = np.einsum("bij,bi->bj", vectors, (deviations @ innovation[..., None])[..., 0])
    found = finite_size_precision(values, projected, certainty)
    for number in range(4):
        u, s, _ = np.linalg.svd(deviations[number].T, full_matrices=True)
        d = (u.T @ innovation[number]) ** 2
        # Weight of the prior: the mean of (N - 1) / (N - 1 + s^2) over all N directions of the members.
        weight = np.mean((members - 1) / (members - 1 + np.pad(s**2, (0, members - 3))))
        epsilon, c = (members + 1) / members, members / (members - 1)
        correction = (epsilon / c) ** (weight / 2)

        def cost(logarithm: float, s=s, d=d, eps=epsilon / correction, c=c * correction) -> float:
            t = np.exp(2 * logarithm)
            return float((d / (members - 1 + t * s**2)).sum() + certainty * (eps / t + c * np.log(t)))

        best = minimize_scalar(cost, bounds=(-1.3, 4.5), method="bounded", options={"xatol": 1e-10})
        assert found[number] == pytest.approx((members - 1) / np.exp(2 * best.x), rel=1e-4)


def test_the_finite_size_filter_inflates_where_innovations_are_large() -> None:
    values, projected = np.full(5, 2.0), np.full(5, 0.1)
    small, large = (finite_size_precision(values, factor * projected, 1.0) for factor in (1, 100))
    assert large < small / 4
    # Without information the mode of the inflation is 1.
    assert finite_size_precision(np.full(5, 1e-9), np.zeros(5), 1.0) == pytest.approx(4.0, rel=1e-3)
    # Sure hyperpriors inflate less; at the minimum of the primal cost the precision is the same.
    assert finite_size_precision(values, 100 * projected, 10.0) > large
    precision = float(large)
    weights = 100 * projected / (values + precision)
    assert precision_at(weights, values, 1.0) == pytest.approx(precision, rel=1e-6)


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
