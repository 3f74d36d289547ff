"""The case of the tests of assimilation: a Gaussian chain of nine states, with options that take seconds."""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr
from gaussian import GaussianChain

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.prior.files import Prior

CHAIN = GaussianChain(9)
WARM = op.function(lambda fields: {name: torch.tanh((x - 280) / 4) for name, x in fields.items()})
QUICK: dict[str, Any] = {"sampler": {"steps": 12, "corrections": 0}, "progress": False}


def chain_prior() -> Prior:
    """The exact prior of the chain."""
    return CHAIN.prior(samples=200)


def chain_truth() -> xr.Dataset:
    """One of its trajectories."""
    return CHAIN.truth(1)


def chain_observations() -> xr.Dataset:
    """Observations of the trajectory."""
    return observe(chain_truth(), op.identity(), every=2, error=0.4, seed=3)
