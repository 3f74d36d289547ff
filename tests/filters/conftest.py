"""What several filters are tried on."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, condition, truth_of, whole_operator, whole_prior
from filtered import CASES, CORRELATION, LENGTH, LORENZ, model_of

from sdaxr import operators as op
from sdaxr.observations.observe import observe


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest):
    """System, observations, state-space model, and the closed form: mean (L, n), covariance (L, n, L, n), evidence."""
    system, operator, how = CASES[request.param]
    truth = truth_of(system, LENGTH, 3)
    observations = observe(truth, operator, seed=4, **how)
    aligned = observations.reindex(time=truth.time, method="nearest", tolerance=1e-6)
    names = [n for n in observations.data_vars if not n.endswith("_error")]
    y, error = (
        np.concatenate([aligned[n + end].broadcast_like(aligned[n]).values.ravel() for n in names])
        for end in ("", "_error")
    )
    matrix, offset = whole_operator(operator, truth, system)
    correlation = CORRELATION if "correlation" in how else None
    mean, covariance, evidence = condition(whole_prior(system, LENGTH), matrix, offset, y, error, correlation)
    shape = (LENGTH, system.size)
    exact = mean.reshape(shape), covariance.reshape(*shape, *shape), evidence
    return system, observations, model_of(system, {"observations": observations}), exact


@pytest.fixture(scope="module")
def lorenz_observations() -> xr.Dataset:
    return observe(truth_of(LORENZ, 33, 1), op.select("c"), every=4, error=0.8, seed=1)


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    return observe(truth_of(TRIPLE, LENGTH, 1), op.select("x2"), every=2, error=0.5, seed=2)
