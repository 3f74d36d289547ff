r"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687), the baseline of Rozet & Louppe (2023).

.. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

The step is normalised by the norm of the residual of each member; the observations' errors do not enter it. The
residual is measured in the natural scale s of what is observed, so that networks with different units can be added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.linear import Likelihood


@dataclass(frozen=True)
class DPS(ScoreMethod):
    r"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687).

    .. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

    The observations' errors do not enter it.

    Parameters
    ----------
    zeta
        Length of the steps, without unit.
    """

    zeta: float = 1.0

    name: ClassVar[str] = "dps"
    remedy: ClassVar[str] = "the steps are too long; take a smaller zeta, DPS(zeta=...), or give sampler more steps"

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = posterior.denoiser(z, r)
            residual = torch.cat([o.innovation(xhat) / o.scale for o in posterior.likelihood.networks], dim=1)
            square = residual.square().sum(dim=1)
        (slope,) = torch.autograd.grad(square.sum(), z)
        norm = square.detach().sqrt().clamp_min(1e-12).reshape(-1, *[1] * (z.ndim - 1))
        return xhat.detach() - r**2 * self.zeta * slope / norm

    def misfit(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        """Zeros: its samples are as far from the observations as the length of the step says."""
        del likelihood
        return torch.zeros(len(x), device=x.device)
