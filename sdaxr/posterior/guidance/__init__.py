"""Guidance: a denoiser of the prior and observations make a denoiser of the posterior, one method a file.

A guided denoiser returns :math:`E[x | z, y] = \\hat x + r^2 \\nabla_z \\log p(y | z)`, so that every sampler takes it
like any other denoiser.

=================  ==============================================  ==================================================
method             variance of H(x) given z                        exact for Gaussian priors
=================  ==============================================  ==================================================
``sda``            measured, a scalar, or from the covariance       with the prior's covariance
``bounded``        a scalar, bounded by the prior's variance        for white noise
``mmps``           the network's Jacobian, a few Krylov steps       with enough steps
``jacobian_free``  the prior's covariance, or independent           with the prior's covariance
``dmps``           r^2 H H^T around z itself (linear H)             for an uninformative prior
``soad``           measured or bounded; what is seen is a state    measured: with the prior's covariance
``dps``            none: steps of a given length                    no
=================  ==============================================  ==================================================
"""

from __future__ import annotations

from sdaxr.posterior.guidance.base import Guidance
from sdaxr.posterior.guidance.bounded import Bounded
from sdaxr.posterior.guidance.dmps import DMPS
from sdaxr.posterior.guidance.dps import DPS
from sdaxr.posterior.guidance.jacobian_free import JacobianFree
from sdaxr.posterior.guidance.mmps import MMPS
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.guidance.soad import SOAD

METHODS: dict[str, type[Guidance]] = {cls.method: cls for cls in (SDA, Bounded, MMPS, JacobianFree, DMPS, SOAD, DPS)}

__all__ = ["DMPS", "DPS", "METHODS", "MMPS", "SDA", "SOAD", "Bounded", "Guidance", "JacobianFree"]
