r"""Diffusion posterior sampling (Chung et al. 2023), the baseline of Rozet & Louppe (2023).

.. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

The step is normalised by the norm of the residual of each member; the observations' errors do not enter it. The
residual is measured in the natural scale s of what is observed, so that networks with different units can be added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import Guidance


@dataclass(frozen=True)
class DPS(Guidance):
    """Denoiser of the posterior.

    Attributes
    ----------
    zeta
        Length of the step.
    """

    zeta: float = 1.0

    method = "dps"
    remedy = "the steps are too long: pass a smaller zeta=, or more steps="

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = self.denoiser(z, r)
            residual = torch.cat([o.innovation(xhat) / o.scale for o in self.observations], dim=1)
            square = residual.square().sum(dim=1)
        (slope,) = torch.autograd.grad(square.sum(), z)
        norm = square.detach().sqrt().clamp_min(1e-12).reshape(-1, *[1] * (z.ndim - 1))
        return xhat.detach() - r**2 * self.zeta * slope / norm

    def misfit(self, x: Tensor) -> Tensor:
        """Zeros: its samples are as far from the observations as the length of the step says."""
        return torch.zeros(len(x), device=x.device)
