"""Forward filtering, backward simulation against the Kalman smoother, and where the expectation is known."""

from __future__ import annotations

import numpy as np
import pytest
from chains import truth_of
from filtered import LENGTH, LORENZ, QUIET, assert_same_gaussian

from sdaxr import operators as op
from sdaxr.filters import bpf, ffbs
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.verification.densities import log_likelihood, log_prior


def test_particle_filter_and_backward_simulation_are_the_kalman_smoother(case) -> None:
    system, _, model, exact = case
    filtered = bpf.particle_filter(model, 2**15, seed=2)
    # An estimate from n draws of a weight of relative variance v is off by sqrt(v / n), and n / v are effective.
    assert filtered.log_evidence == pytest.approx(exact[2], abs=4 * np.sqrt(LENGTH / filtered.effective))
    assert 1000 < filtered.effective < 2**15
    # The filter's own error, of its least effective step, comes on top of that of the draws.
    effective = int(min(filtered.effective, 4000) / 2)
    assert_same_gaussian(ffbs.backward_simulation(system, filtered, 4000, seed=3), exact, effective)
    assert_same_gaussian(bpf.genealogies(filtered, 4000, seed=3), exact, effective // 2)


@pytest.mark.parametrize("trials", [0, 2**14], ids=["weights of all", "rejection"])
def test_particles_are_chosen_by_the_transition_density(monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    monkeypatch.setattr(ffbs, "_TRIALS", trials)
    random = np.random.default_rng(0)
    predicted = random.normal(size=(40, 2))
    later = np.array([[0.5, -0.2], [5.0, 4.0]])
    draws = 5000
    chosen = ffbs.choose(np.repeat(later, draws, axis=0), predicted, random).reshape(2, draws)
    weights = np.exp(-((predicted - later[:, None]) ** 2).sum(-1) / 2)
    weights /= weights.sum(1, keepdims=True)
    found = np.stack([np.bincount(c, minlength=40) for c in chosen]) / draws
    assert np.abs(found - weights).max() < 5 * np.sqrt(0.25 / draws)


SETTINGS = {"low": ({"every": 8, "error": 0.05 * 8}, 14.2), "high": ({"every": 1, "error": 0.25 * 8}, -2.1)}


@pytest.mark.parametrize("setting", SETTINGS)
def test_backward_simulation_has_the_analytic_densities_on_lorenz63(setting: str) -> None:
    how, expected = SETTINGS[setting]
    prior, likelihood = [], []
    truths = 6
    for seed in range(truths):
        truth = truth_of(LORENZ, 65, seed)
        observations = observe(truth, op.select("a"), seed=seed, **how)
        posterior = smooth(
            observations, LORENZ, method={"name": "ffbs", "particles": 4096}, members=32, seed=1, **QUIET
        )
        prior.append(float(log_prior(posterior, LORENZ).mean()))
        # Counted for y / 8, as the paper does.
        values = int(observations.a.notnull().sum())
        likelihood.append(float(log_likelihood(posterior, observations).mean()) + values * np.log(8))
    # Standard deviations: 9.8 / sqrt(members) and about 2 between truths; sqrt(count / 2) for the likelihood.
    assert np.mean(prior) == pytest.approx(81.7, abs=4 * np.hypot(9.8 / np.sqrt(truths * 32), 2 / np.sqrt(truths)))
    assert np.mean(likelihood) == pytest.approx(expected, abs=4 * np.sqrt(values / 2 / truths))
