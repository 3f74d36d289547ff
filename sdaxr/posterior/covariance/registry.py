"""The uncertainty of the observed quantities given z, by name."""

from __future__ import annotations

from typing import Any

from sdaxr.states.registry import Options, Registry

# All objects are of the class `sdaxr.posterior.covariance.base.Uncertainty`. The class needs torch, which is slow to
# import, so that it is not named here.
UNCERTAINTIES: Registry[Any] = Registry(
    "variance",
    Options,
    {
        "measured": "sdaxr.posterior.covariance.variance:Measured",
        "scalar": "sdaxr.posterior.covariance.variance:Scalar",
        "bounded": "sdaxr.posterior.covariance.variance:Bounded",
        "covariance": "sdaxr.posterior.covariance.trajectory:Covariance",
        "independent": "sdaxr.posterior.covariance.base:Independent",
        "matrix": "sdaxr.posterior.covariance.variance:Matrix",
    },
)
