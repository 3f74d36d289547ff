"""The serial square root filter against the Kalman filter, and its localisation against a loop over elements."""

from __future__ import annotations

import numpy as np
import pytest
from linear_ensembles import dense_taper, linear_case, moments

from sdaxr import operators as op
from sdaxr.filters.ensemble import Forecast
from sdaxr.filters.ensrf import EnSRF
from sdaxr.schema import OptionError

CASES = {
    "all": (op.identity(), {"error": 0.5}),
    "means with gaps": (op.coarsen(2), {"error": 0.4, "missing": 0.4}),
    "every second": (op.scale(2.0, offset=1.0), {"error": 2.0, "every": 2, "start": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_kalman_filter_of_the_ensemble(name: str) -> None:
    operator, how = CASES[name]
    model, exact = linear_case(operator, **how)
    found = moments(EnSRF().draw(model, 20, seed=1).paths)
    np.testing.assert_allclose(found[0], exact.means, atol=2e-5)
    np.testing.assert_allclose(found[1], exact.covariances, atol=2e-5)


def test_localisation_tapers_each_regression() -> None:
    model, _ = linear_case(op.subsample(2), members=5, exact=False, error=0.4)
    observation, method = model.observations[0], EnSRF(localisation=1.7)
    forecast = Forecast(model.first, observation, method.points(model), np.random.default_rng(0))
    found = method.analyse(forecast)(model.first)
    # Observed are elements 0, 2, 4 and 6: the state holds all that is predicted.
    x, taper = model.first.copy(), dense_taper(np.arange(8.0), np.arange(8.0), 1.7, 8)
    for site, y in zip((0, 2, 4, 6), observation.values, strict=True):
        mean, away = x.mean(0), x - x.mean(0)
        h, variance = away[:, site].copy(), away[:, site].var(ddof=1)
        alpha = 1 / (1 + np.sqrt(0.16 / (variance + 0.16)))
        for i in range(8):
            gain = taper[i, site] * (away[:, i] @ h / 4) / (variance + 0.16)
            x[:, i] = mean[i] + gain * (y - mean[site]) + away[:, i] - alpha * gain * h
    np.testing.assert_allclose(found, x, atol=1e-5)


def test_correlated_errors_are_refused() -> None:
    model, _ = linear_case(op.coarsen(2), error=0.4, correlation={"site": 3.0})
    with pytest.raises(OptionError, match="method='ensrf' is for independent errors, .* use method='etkf' or 'enkf'"):
        EnSRF().check(model, 4)
