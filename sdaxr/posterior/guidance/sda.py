r"""Score-based data assimilation (Rozet & Louppe 2023, section 3.2).

.. math:: p(y | z) \approx N(y | H(\hat x), R + r^2 \Gamma), \qquad \hat x = E[x | z]

with :math:`r = \sigma / \mu`. :math:`r^2 \Gamma` stands for the covariance of H(x) given z. It is

- measured (see `sdaxr.posterior.unresolved`), our default;
- or :math:`\gamma r^2` in units of the natural scale of each observed quantity, with a scalar as in the paper;
- or :math:`\gamma r^2` with a matrix (appendix B), with which a Gaussian prior is treated exactly.

The gradient goes through the network, :math:`1 / \mu` included: in units of :math:`z = x_t / \mu` it cannot be
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation, gradient
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class SDA:
    """Denoiser of the posterior.

    Attributes
    ----------
    denoiser
        Prior: (z, r) to E[x | z].
    observations
        One or several networks of instruments; their log-likelihoods add up.
    gamma
        None for the measured variance, a scalar, or a function of r that returns a matrix (n, n) over all observations.
    """

    denoiser: Callable[[Tensor, float], Tensor]
    observations: Sequence[GaussianObservation]
    gamma: float | Callable[[float], Tensor] | None = None

    def of(self, members: Tensor) -> SDA:
        """The same for some members."""
        return replace(self, observations=[o.of(members) for o in self.observations])

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = self.denoiser(z, r)
            score = gradient(self._log_likelihood(xhat, r), z)
        return xhat.detach() + r**2 * score

    def _log_likelihood(self, xhat: Tensor, r: float) -> Tensor:
        innovation = torch.cat([o.innovation(xhat) for o in self.observations], dim=1)
        if callable(self.gamma):
            errors = torch.cat([o.errors for o in self.observations])
            scale = torch.cat([o.scale for o in self.observations])
            covariance = torch.diag(errors.square()) + r**2 * scale[:, None] * self.gamma(r) * scale
            return -(innovation * torch.linalg.solve(covariance, innovation.T).T).sum(dim=1) / 2
        variance = torch.cat([o.errors.square() + self._unresolved(o, r) for o in self.observations])
        return -(innovation.square() / variance).sum(dim=1) / 2

    def _unresolved(self, network: GaussianObservation, r: float) -> Tensor:
        if isinstance(self.gamma, float | int):
            return self.gamma * (r * network.scale).square()
        if network.unresolved is None:
            raise OptionError("gamma is not given and the variance has not been measured; pass gamma=")
        return network.unresolved(r)
