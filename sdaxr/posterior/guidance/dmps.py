r"""Diffusion model based posterior sampling (Meng & Kabashima 2022, arXiv:2211.12343), for linear H.

.. math:: p(y | z) \approx N(y | H z, R + r^2 H H^T)

as if nothing were known of x except z, so that nothing goes back through the network. It is exact where the prior is
uninformative. Otherwise the prior counts twice as much as it should where r is large: for one number of prior variance
c, an observation of variance R, and the deterministic sampler from level T, the variance of the samples is
:math:`T^2 c R / ((c + T^2)(R + T^2))` and not :math:`c R / (c + R)`. Langevin corrections repair that, as the score at
r = 0 is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.linear import Likelihood, residual, solve
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class DMPS(ScoreMethod):
    r"""Diffusion model based posterior sampling (Meng & Kabashima 2022, arXiv:2211.12343).

    .. math:: p(y | z) \approx N(y | H z, R + r^2 H H^T)

    For linear operators. Errors that are not Gaussian are taken for Gaussian errors of the same standard deviation.
    """

    name: ClassVar[str] = "dmps"
    remedy: ClassVar[str] = (
        "the prior and the observations pull apart; give sampler more steps or corrections, or take method='sda'"
    )

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear."""
        if not all(likelihood.linear(like)):
            raise OptionError(
                "method='dmps' is for linear operators, found one that is not: H(a + b) - H(a) - H(b) + H(0) is not 0; "
                "take method='sda' or 'mmps'"
            )

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        posterior.check(z)
        with torch.no_grad():
            xhat = posterior.denoiser(z, r)
        around = residual(posterior.likelihood.networks, z)
        weights = solve(around, lambda u: r**2 * u, posterior.likelihood.matrix(z))
        return xhat + r**2 * around.adjoint(weights)
