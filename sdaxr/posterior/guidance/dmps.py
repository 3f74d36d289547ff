r"""Diffusion model based posterior sampling (Meng & Kabashima 2022), for linear H.

.. math:: p(y | z) \approx N(y | H z, R + r^2 H H^T)

as if nothing were known of x but z, so that nothing goes back through the network. It is exact where the prior is
uninformative; otherwise the prior counts twice as much as it should where r is large: for one number of prior variance
c, an observation of variance R, and the deterministic sampler from level T, the variance of the samples is
:math:`T^2 c R / ((c + T^2)(R + T^2))` and not :math:`c R / (c + R)`. Langevin corrections repair that, as the score at
r = 0 is right. Errors that are not Gaussian are taken for Gaussian ones of the same standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import Guidance
from sdaxr.posterior.linear import misfit, solve
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class DMPS(Guidance):
    """Denoiser of the posterior."""

    method = "dmps"
    remedy = "the prior and the observations pull apart: pass more steps= or corrections=, or take method='sda'"

    def check(self, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear."""
        if not self.operators(like).linear:
            raise OptionError(
                "method='dmps' is for linear operators, found one that is not: H(a + b) - H(a) - H(b) + H(0) is not 0; "
                "take method='sda' or 'mmps'"
            )

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        self.check(z)
        with torch.no_grad():
            xhat = self.denoiser(z, r)
        around = misfit(self.observations, z)
        weights = solve(around, lambda u: r**2 * u, self.operators(z).matrix)
        return xhat + r**2 * around.adjoint(weights)
