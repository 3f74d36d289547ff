r"""Diffusion posterior sampling (Chung et al. 2023), the baseline of Rozet & Louppe (2023).

.. math:: \nabla_z \log p(y | z) \approx -\zeta \frac{\nabla_z \|e\|^2}{\|e\|}, \qquad e = (y - H(\hat x)) / s

The step is normalised by the norm of the residual of each member; the observations' errors do not enter it. The
residual is measured in the natural scale s of what is observed, so that networks with different units can be added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation, gradient


@dataclass(frozen=True)
class DPS:
    """Denoiser of the posterior.

    Attributes
    ----------
    denoiser
        Prior: (z, r) to E[x | z].
    observations
        One or several networks of instruments.
    zeta
        Length of the step.
    """

    denoiser: Callable[[Tensor, float], Tensor]
    observations: Sequence[GaussianObservation]
    zeta: float = 1.0

    def of(self, members: Tensor) -> DPS:
        """The same for some members."""
        return replace(self, observations=[o.of(members) for o in self.observations])

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = self.denoiser(z, r)
            square = torch.zeros(len(z), dtype=z.dtype, device=z.device)
            for network in self.observations:
                square = square + (network.innovation(xhat) / network.scale).square().sum(dim=1)
            slope = gradient(square, z)
        norm = square.detach().sqrt().clamp_min(1e-12).reshape(-1, *[1] * (z.ndim - 1))
        return xhat.detach() - r**2 * self.zeta * slope / norm
