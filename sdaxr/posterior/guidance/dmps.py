r"""Diffusion model based posterior sampling (Meng & Kabashima 2022, arXiv:2211.12343), for linear H.

.. math:: p(y | z) \approx N(y | H z, R + r^2 H H^T)

This is :math:`p(y | z)` if nothing is known of x except z. No gradient goes through the network. The method is exact
where the prior is uninformative. Otherwise the samples have the wrong variance: for a scalar state of prior variance c,
H = 1, an observation of error variance R, and the deterministic sampler from the noise level T, the variance of the
samples is :math:`T^2 c R / ((c + T^2)(R + T^2))`, which tends to :math:`c R / T^2` at large T; the posterior has
:math:`c R / (c + R)`. Langevin corrections repair the variance, because the score is exact in the limit r = 0.
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

    The method is for linear operators, has no options, and is exact only where the prior is uninformative. Errors that
    are not Gaussian are treated as Gaussian errors of the same standard deviation.
    """

    name: ClassVar[str] = "dmps"
    remedy: ClassVar[str] = (
        "the prior and the observations disagree; give sampler more steps or corrections, or take method='sda'"
    )

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear."""
        if not all(likelihood.linear(like)):
            raise OptionError(
                "method='dmps' is for linear operators, found a nonlinear operator: H(a + b) - H(a) - H(b) + H(0) is "
                "not 0; take method='sda' or 'mmps'"
            )

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        posterior.check(z)
        with torch.no_grad():
            xhat = posterior.denoiser(z, r)
        around = residual(posterior.likelihood.networks, z)
        weights = solve(around, lambda u: r**2 * u, posterior.likelihood.matrix(z))
        return xhat + r**2 * around.adjoint(weights)
