"""What is unknown of the observed quantities given z, by name."""

from __future__ import annotations

from typing import Any

from sdaxr.states.registry import Options, Registry

# Its objects are all `sdaxr.posterior.covariance.base.Uncertainty`, which is slow to import: it needs torch.
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
