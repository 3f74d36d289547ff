"""Relaxation and inflation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from filtered import model_of
from linear_ensembles import Turning, linear_case, with_first
from scipy.optimize import minimize_scalar

from sdaxr import operators as op
from sdaxr.filters.enkf import EnKF
from sdaxr.filters.enks import EnKS
from sdaxr.filters.ensemble import EnsembleFilter, Forecast
from sdaxr.filters.ensrf import EnSRF
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.inflation import (
    adapted_factor,
    finite_size_precision,
    precision_at,
    relaxed_to_perturbations,
    relaxed_to_spread,
)
from sdaxr.filters.latent import Latent
from sdaxr.filters.letkf import LETKF
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.layout import system_layout

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


def test_the_adapted_factor_is_a_mean_of_two_estimates() -> None:
    """Written out observation by observation; far from all of them the factor stays what it is."""
    random = np.random.default_rng(4)
    squares, variances, tapers = random.chisquare(1, 6), random.uniform(0.5, 2, 6), random.uniform(0.1, 1, (3, 6))
    tapers[1] = 0
    prior, deviation = np.array([1.0, 1.3, 0.9]), 0.2
    found = adapted_factor(prior, deviation, squares, variances, tapers)
    for point, weights in enumerate(tapers):
        if point == 1:
            assert found[1] == prior[1]
            continue
        estimate = sum(w * (d - 1) for w, d in zip(weights, squares, strict=True)) / (weights @ variances)
        # Each square is (factor * variance + 1) times a chi-squared number, whose variance is 2.
        mean = prior[point] * (weights @ variances) / weights.sum() + 1
        error = 2 * (weights**2).sum() * mean**2 / (weights @ variances) ** 2
        precisions = 1 / deviation**2, 1 / error
        expected = (prior[point] * precisions[0] + estimate * precisions[1]) / sum(precisions)
        assert found[point] == pytest.approx(max(expected, 0.9))


@dataclass(frozen=True)
class Unforced(Turning):
    """Without a forcing, by which the mean would grow for ever."""

    def transition_mean(self, x):
        return x @ self.matrix.T


@pytest.mark.parametrize("method", [ETKF, EnSRF, EnKF, LETKF], ids=lambda m: m.name)
def test_adaptive_inflation_finds_the_factor_of_a_known_model_error(method: type[EnsembleFilter]) -> None:
    """The truth has a model error of covariance (F - 1) A P A^T, with which F is the optimal factor on A P A^T."""
    factor, system, length, members = 1.6, Unforced(sites=16), 500, 40
    random, n, matrix = np.random.default_rng(0), system.size, system.matrix
    mean, covariance = system.initial_moments()
    # Not by a singular value decomposition, whose vectors are other ones on another machine.
    observed, states = np.eye(n)[::2], [random.multivariate_normal(mean, covariance, method="cholesky")]
    for _ in range(length - 1):
        gain = covariance @ observed.T @ np.linalg.inv(observed @ covariance @ observed.T + 0.7**2 * np.eye(n // 2))
        forecast = matrix @ (covariance - gain @ observed @ covariance) @ matrix.T
        error = random.multivariate_normal(np.zeros(n), (factor - 1) * forecast, method="cholesky")
        states.append(system.transition_mean(states[-1]) + error)
        covariance = factor * forecast
    axis = system_layout(system).times(0.0, length)
    truth, fields = system_layout(system).template(axis), system.from_vectors(np.array(states))
    truth = truth.assign({name: (v.dims, fields[str(name)], v.attrs) for name, v in truth.data_vars.items()})
    seen = {"seen": observe(truth, op.subsample(2), error=0.7, seed=4)}
    model = with_first(model_of(system, seen, length, first=system.initial(members, 5)), members)
    near = {"localisation": 1e7} if method is LETKF else {}
    plain = method(**near).draw(model, members, 0)
    assert plain.about["first_guess_consistency"] > 1.3
    for first in (1.0, 3.0):
        found = method(adaptive=0.2, adaptive_first=first, **near).draw(model, members, 0)
        assert found.about["adaptive_inflation"] == pytest.approx(factor, abs=0.25)
        assert found.about["first_guess_consistency"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("outer", [EnKS, Latent], ids=lambda m: m.name)
def test_methods_with_a_filter_in_them_go_on_with_its_inflation(outer: type) -> None:
    model, _ = linear_case(op.identity(), error=0.5)
    method = outer(filter=ETKF(adaptive=0.3))
    about = method.draw(model, 20, seed=1).about
    assert about["adaptive_inflation"] == pytest.approx(
        ETKF(adaptive=0.3).draw(model, 20, 1).about["adaptive_inflation"]
    )
    assert method.continued(about).filter.adaptive_first == about["adaptive_inflation"]
    assert outer(filter=ETKF()).continued({}) == outer(filter=ETKF())


def test_each_point_has_a_factor_of_its_own_with_localisation() -> None:
    model, _ = linear_case(op.subsample(2), error=0.4)
    first = next(o for o in model.observations if o is not None)
    method = EnSRF(localisation=0.9, adaptive=0.5)
    forecast = Forecast(model.first, first, method.points(model), np.random.default_rng(0))
    same, later = method.adapted(forecast, np.ones(8))
    np.testing.assert_allclose(same.states, model.first)
    assert len(set(later.round(6))) == 8  # every point is near some observation
    wide, _ = method.adapted(forecast, later)
    np.testing.assert_allclose(wide.states.var(0), later * model.first.var(0))
    np.testing.assert_allclose(wide.states.mean(0), model.first.mean(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": 0}, "adaptive=0 for ETKF, expected a number above 0"),
        ({"adaptive_first": -1}, "adaptive_first=-1 for ETKF, expected a number above 0"),
        ({"inflation": 0}, "inflation=0 for ETKF, expected a number above 0"),
        ({"rtps": 2}, "rtps=2 .*of at least 0 and of at most 1"),
    ],
)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ETKF(**options)
