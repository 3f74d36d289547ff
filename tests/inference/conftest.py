"""The exact prior of the Gaussian chain, one of its trajectories, and observations of it."""

from __future__ import annotations

import pytest
import xarray as xr
from assimilated import CHAIN

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.prior.files import Prior


@pytest.fixture(scope="module")
def prior() -> Prior:
    return CHAIN.prior(samples=200)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return CHAIN.truth(1)


@pytest.fixture(scope="module")
def observations(truth: xr.Dataset) -> xr.Dataset:
    return observe(truth, op.identity(), every=2, error=0.4, seed=3)
