"""Samples of a prior without observations, against the distribution that the prior has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from gaussian import GaussianChain

from sdaxr.inference.unconditional import draw_prior
from sdaxr.posterior.samplers.dpm import SDEDPMSolver
from sdaxr.prior.files import Prior
from sdaxr.states.time import TimeAxis

CHAIN = GaussianChain(6)
SAMPLER = SDEDPMSolver(steps=48, corrections=3, smallest=0.01)


def test_samples_have_the_moments_of_the_prior() -> None:
    prior = CHAIN.prior()
    drawn = xr.concat([draw_prior(prior, 6, sampler=SAMPLER, seed=n) for n in range(400)], "sample")
    states = (drawn.to_dataarray().transpose("sample", "time", "variable").values.reshape(400, -1) - 280) / 2
    np.testing.assert_allclose(states.mean(0), 0, atol=4 / 20)
    np.testing.assert_allclose(np.cov(states.T), CHAIN.covariance, atol=4 * np.sqrt(2 / 400))
    assert np.trace(np.cov(states.T)) / 12 == pytest.approx(1, abs=0.08)


def test_a_sample_has_the_labels_of_the_prior_and_follows_from_the_seed() -> None:
    first, again, other = (draw_prior(CHAIN.prior(), 4, sampler=SAMPLER, seed=n) for n in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert not first.equals(other) and first.a.attrs["units"] == "K"
    np.testing.assert_allclose(first.time, [0, 0.5, 1.0, 1.5])


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (TimeAxis("datetime", 86400.0, "s", "proleptic_gregorian", 43200.0), "1999-12-31T12:00:00"),
        (TimeAxis("cftime", 86400.0, "s", "noleap"), "2000-01-01 00:00:00"),
        (TimeAxis("timedelta", 3600.0, "s"), "0 nanoseconds"),
    ],
)
def test_the_first_state_is_at_a_step_of_the_calendar(axis: TimeAxis, expected: str) -> None:
    chain = CHAIN.prior()
    prior = Prior(replace(chain.layout, time=axis), chain.network, chain.reference, chain.metadata)
    times = draw_prior(prior, 3, sampler=replace(SAMPLER, steps=4), seed=0).time.values
    assert str(times[0]).startswith(expected) and axis.steps(times[0], times[2]) == pytest.approx(2)
