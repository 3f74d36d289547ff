"""What is unknown of the observed quantities given z, by name."""

from __future__ import annotations

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.states.registry import Registry

UNCERTAINTIES: Registry[Uncertainty] = Registry(
    "variance",
    Uncertainty,  # type: ignore[type-abstract]
    {
        "measured": "sdaxr.posterior.covariance.variance:Measured",
        "scalar": "sdaxr.posterior.covariance.variance:Scalar",
        "bounded": "sdaxr.posterior.covariance.variance:Bounded",
        "matrix": "sdaxr.posterior.covariance.variance:Matrix",
        "covariance": "sdaxr.posterior.covariance.trajectory:Covariance",
        "independent": "sdaxr.posterior.covariance.base:Independent",
    },
)
