"""The stochastic ensemble Kalman filter against the Kalman filter, and its localisation against a dense computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from chains import Ring
from linear_ensembles import assert_near_the_kalman_filter, dense_taper, linear_case

from sdaxr import operators as op
from sdaxr.filters.enkf import EnKF, _gain_update, _weights
from sdaxr.filters.ensemble import Forecast
from sdaxr.filters.state_space import ObservationErrors, StateObservation, StateSpaceModel

MANY = 10_000
CASES = {
    "all": (op.identity(), {"error": 0.5}),
    "means with gaps": (op.coarsen(2), {"error": 0.4, "missing": 0.4}),
    "correlated": (op.coarsen(2), {"error": 0.4, "every": 2, "correlation": {"site": 3.0}}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_kalman_filter_of_a_large_ensemble(name: str) -> None:
    operator, how = CASES[name]
    model, exact = linear_case(operator, members=MANY, system=Ring(), **how)
    assert_near_the_kalman_filter(EnKF().draw(model, MANY, seed=1).paths, exact)


def test_the_mean_is_exact_and_so_is_the_gain() -> None:
    model, exact = linear_case(op.coarsen(2), error=0.4, correlation={"site": 3.0})
    found = EnKF().draw(model, 20, seed=1).paths[:, 0]
    # The draws of the errors have the mean zero, so that the mean of the first analysis is that of the Kalman filter.
    np.testing.assert_allclose(found.mean(0), exact.means[0], atol=2e-5)


def test_localisation_is_a_product_of_covariances_and_tapers() -> None:
    model, _ = linear_case(op.coarsen(2), members=5, exact=False, error=0.4, correlation={"site": 3.0})
    observation, first = model.observations[0], model.first
    method = EnKF(localisation=1.5)
    forecast = Forecast(first, observation, method.points(model), np.random.default_rng(7))
    earlier = np.random.default_rng(8).normal(size=first.shape)
    found = method.analyse(forecast)(np.stack([first, earlier]))

    sites, places = np.arange(8.0), np.arange(0.5, 8, 2)
    noise = np.random.default_rng(7).normal(size=(5, 4))
    errors = observation.errors.covariance
    drawn = (noise - noise.mean(0)) @ np.linalg.cholesky(errors).T
    seen = observation.predict(first)
    spread = dense_taper(places, places, 1.5, 8) * np.cov(seen.T)
    departures = observation.values + drawn - seen
    for states, result in zip((first, earlier), found, strict=True):
        away = states - states.mean(0)
        cross = dense_taper(sites, places, 1.5, 8) * (away.T @ (seen - seen.mean(0)) / 4)
        gain = cross @ np.linalg.inv(spread + errors)
        np.testing.assert_allclose(result, states + departures @ gain.T, atol=1e-6)


def test_a_wide_taper_is_none() -> None:
    model, _ = linear_case(op.coarsen(2), error=0.4)
    np.testing.assert_allclose(draw(EnKF(localisation=1e7), model), draw(EnKF(), model), atol=1e-5)


def test_many_observations_and_many_members_give_the_same() -> None:
    """With more observations than members, the equations are those of the members."""
    model, _ = linear_case(op.coarsen(2), members=5, exact=False, error=0.4, correlation={"site": 3.0})
    twice = replace(model, observations=tuple(_doubled(o) for o in model.observations))
    forecast = [Forecast(m.first, m.observations[0], None, np.random.default_rng(1)) for m in (model, twice)]
    noise = np.random.default_rng(2).normal(size=(5, 8))
    noise -= noise.mean(0)
    members = _weights(*forecast[1].whitened, noise) @ model.first
    # The whitened draws of the errors are those of the gain, from the same Cholesky factor.
    observations = _gain_update(forecast[1], noise, np.ones(()), np.ones(()))(model.first)
    np.testing.assert_allclose(members, observations, atol=1e-6)


def _doubled(observation: StateObservation) -> StateObservation:
    return StateObservation(
        lambda x: torch.cat([observation.operator(x)] * 2, dim=1),
        np.concatenate([observation.values, observation.values + 0.1]),
        ObservationErrors.joined([observation.errors] * 2),
    )


def draw(method: EnKF, model: StateSpaceModel) -> np.ndarray:
    return method.draw(model, 20, seed=3).paths
