"""The exact prior of the Gaussian chain, one of its trajectories, and observations of it."""

from __future__ import annotations

import pytest
import xarray as xr
from assimilated import chain_observations, chain_prior, chain_truth

from sdaxr.prior.files import Prior


@pytest.fixture(scope="module")
def prior() -> Prior:
    return chain_prior()


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return chain_truth()


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    return chain_observations()
