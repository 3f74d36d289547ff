"""The iterative ensemble Kalman smoother: exact where all is linear, better than a filter where the model is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chains import Ring, truth_of
from filtered import QUIET, model_of
from linear_ensembles import LENGTH, exact_ensemble, in_background, linear_case, moments
from scipy.optimize import minimize

from sdaxr import operators as op
from sdaxr.filters.ienks import IEnKS, minimise
from sdaxr.filters.kalman import kalman_filter, rts_smoother
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.lorenz63 import Lorenz63

CALM = Lorenz63(noise=0.0, spin_up=500)
HOW = {"error": 0.5, "missing": 0.3}


@pytest.mark.parametrize("form", ["transform", "bundle"])
@pytest.mark.parametrize("lag", [0, 2, LENGTH])
def test_a_linear_model_needs_one_step_and_gives_filter_and_smoother(lag: int, form: str) -> None:
    model, filtered = linear_case(op.coarsen(2), **HOW)
    options = {"lag": lag, "form": form, "rotation": True}
    drawn = IEnKS(members_of="filtering", **options).draw(model, 20, 1)
    found = moments(drawn.paths)
    # The narrow ensemble of a bundle has three digits less.
    error = 5e-5 if form == "transform" else 5e-3
    np.testing.assert_allclose(found[0], filtered.means, atol=error)
    np.testing.assert_allclose(found[1], filtered.covariances, atol=error)
    smoothed = moments(IEnKS(**options).draw(model, 20, 1).paths)
    means, covariances = rts_smoother(filtered)
    if lag == LENGTH:
        np.testing.assert_allclose(smoothed[0], means, atol=error)
        np.testing.assert_allclose(smoothed[1], covariances, atol=error)
    # The second step finds that the first was enough.
    assert drawn.about["mean_iterations"] <= 2 if form == "transform" else drawn.about["mean_iterations"] < 4


def test_with_a_lag_states_know_that_many_steps_of_later_observations() -> None:
    model, _ = linear_case(op.coarsen(2), error=0.5)
    found = IEnKS(lag=2).draw(model, 20, 1).paths
    for time in range(LENGTH - 2):
        seen = replace(model, observations=model.observations[: time + 3], times=model.times[: time + 3])
        means, _ = rts_smoother(kalman_filter(seen))
        np.testing.assert_allclose(found[:, time].mean(0), means[time], atol=5e-5)


@pytest.mark.parametrize("form", ["transform", "bundle"])
def test_the_minimum_is_that_of_a_general_optimiser(form: str) -> None:
    truth = truth_of(CALM, 11, 1)
    seen = observe(truth, op.select("a", "c"), error=1.0, every=10, start=10, seed=1)
    first = exact_ensemble(np.array([truth[n].values[0] for n in "abc"]) + 0.3, 1.5 * np.eye(3), 6, seed=2)
    model = model_of(CALM, {"seen": seen}, 11, first=first)
    observation, mean = model.observations[10], first.mean(0)

    def cost(w: np.ndarray) -> float:
        end = CALM.advance_ensemble((mean + w @ (first - mean))[None], 10, np.random.default_rng(0))[-1]
        departure = observation.values - observation.predict(end)[0]
        return float((departure**2).sum() / 2 + 5 * w @ w / 2)

    exact = minimize(cost, np.zeros(6), tol=1e-12)
    method = IEnKS(lag=10, form=form, iterations=50, tolerance=1e-6)
    found = minimise(model, method, first, (0, 10), np.random.default_rng(0))
    best = mean + exact.x @ (first - mean)
    # The regression of a transform is about an ensemble of the width of the analysis, not about the minimum itself.
    spread = first.std(0)
    assert (np.abs(found.start.mean(0) - best) / spread).max() < (0.02 if form == "bundle" else 0.2)
    assert found.steps > 2 and np.abs(best - mean).max() > 0.5 * spread.max()


def test_iterations_help_where_the_model_is_nonlinear() -> None:
    truth = truth_of(CALM, 12 * 150 + 1, 2)
    seen = observe(truth, op.identity(), error=2.0, every=12, start=12, seed=1)
    first = np.array([truth[n].values[0] for n in "abc"]) + np.random.default_rng(0).normal(size=(10, 3))
    away = {}
    for name, method in {
        "one step": IEnKS(lag=12, iterations=1, inflation=1.04, rotation=True, members_of="filtering"),
        "iterations": IEnKS(lag=12, inflation=1.04, rotation=True, members_of="filtering"),
        "smoother": IEnKS(lag=12, inflation=1.04, rotation=True),
    }.items():
        found = smooth(seen, CALM, method=method, members=10, times=truth.time.values, seed=1,
                       background=in_background(first, CALM), **QUIET)  # fmt: skip
        errors = [(found[n].mean("member") - truth[n]).isel(time=slice(120, None, 12)) for n in "abc"]
        away[name] = float(np.sqrt(np.mean([np.square(e).mean() for e in errors])))
        assert found.attrs["members_distribution"] == method.members_of
    assert away["smoother"] < away["iterations"] < away["one step"]


def test_the_finite_size_prior_widens_an_ensemble_that_is_too_narrow() -> None:
    model, _ = linear_case(op.identity(), error=0.1)
    narrow = replace(model, first=model.first.mean(0) + 0.1 * (model.first - model.first.mean(0)))
    plain, wide = (IEnKS(lag=0, finite_size=f).draw(narrow, 20, 1).paths[:, 0] for f in (None, 1.0))
    assert wide.std(0).mean() > 1.3 * plain.std(0).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lag": -1}, "lag=-1 for IEnKS, expected a whole number of at least 0"),
        ({"form": "trans"}, "form='trans' for IEnKS, expected one of transform, bundle"),
        ({"iterations": 0}, "iterations=0 for IEnKS, expected a whole number of at least 1"),
        ({"members_of": "both"}, "members_of='both' for IEnKS, expected one of smoothing, filtering"),
        ({"finite_size": -1}, "finite_size=-1 for IEnKS, expected a number above 0"),
        ({"inflation": 0}, "inflation=0 for IEnKS, expected a number above 0"),
        ({"tolerance": -1}, "tolerance=-1 for IEnKS, expected a number of at least 0"),
    ],
)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        IEnKS(**options)


def test_noisy_systems_are_refused() -> None:
    model, _ = linear_case(op.identity(), system=Ring(), error=0.5)
    with pytest.raises(OptionError, match="is for deterministic systems, found ring with noise; open it without noise"):
        IEnKS().check(model, 4)
