r"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687), the baseline of Rozet & Louppe (2023).

.. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

The step of each member is normalised by the norm of its residual e. The observation errors R are not used. The residual
is in units of the natural scale s of each observed quantity, so that networks with different units can be joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.krylov import check_finite
from sdaxr.posterior.linear import Likelihood
from sdaxr.states.validation import NotNegative


@dataclass(frozen=True)
class DPS(ScoreMethod):
    r"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687).

    .. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

    with the natural scale s of the observed quantities. The observation errors are not used.

    Parameters
    ----------
    zeta
        Length of the steps, without unit; with 0 the observations do not act.
    """

    zeta: NotNegative = 1.0

    name: ClassVar[str] = "dps"
    remedy: ClassVar[str] = "the steps are too long; take a smaller zeta, DPS(zeta=...), or give sampler more steps"

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = posterior.denoiser(z, r)
            residual = torch.cat([o.innovation(xhat) / o.scale for o in posterior.likelihood.networks], dim=1)
            square = residual.square().sum(dim=1)
        check_finite(square.detach(), "the square of the residual")
        (slope,) = torch.autograd.grad(square.sum(), z)
        norm = square.detach().sqrt().clamp_min(1e-12).reshape(-1, *[1] * (z.ndim - 1))
        return xhat.detach() - r**2 * self.zeta * slope / norm

    def misfit(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        """Zeros: the step length, not the observation errors, sets the distance of samples from the observations."""
        del likelihood
        return torch.zeros(len(x), device=x.device)
