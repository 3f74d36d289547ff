r"""Score-based data assimilation (Rozet & Louppe 2023, section 3.2).

.. math:: p(y | z) \approx N(y | H(\hat x), R + r^2 \Gamma), \qquad \hat x = E[x | z]

with :math:`r = \sigma / \mu`. :math:`r^2 \Gamma` stands for the covariance of H(x) given z. It is

- measured, our default: for priors of fields that know their modes the covariance of all observations
  (`sdaxr.posterior.covariance.modal`), nonlinear H being linearised statistically
  (`sdaxr.posterior.covariance.statistical`); for others the variance of each (`sdaxr.posterior.covariance.unresolved`);
- or :math:`\gamma r^2` in units of the natural scale of each observed quantity, with a scalar as in the paper;
- or :math:`\gamma r^2` with a matrix, where all errors are taken for Gaussian;
- or :math:`H V H^T` with V from the prior's covariance in time (appendix B, see
  `sdaxr.posterior.covariance.trajectory`), H being
  linearised around :math:`\hat x`. With it, or its matrix, a Gaussian prior is treated exactly.

The gradient goes through the network, :math:`1 / \mu` included: in units of :math:`z = x_t / \mu` it cannot be
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.modal import ModalCovariance, weigh
from sdaxr.posterior.covariance.trajectory import PriorCovariance
from sdaxr.posterior.guidance.base import Guidance, through_network, weighted_slope
from sdaxr.posterior.likelihood import GaussianObservation, joint_covariance, solve_positive
from sdaxr.posterior.linear import misfit, solve
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class SDA(Guidance):
    """Denoiser of the posterior.

    Attributes
    ----------
    gamma
        None for the measured variance, a scalar, a function of r that returns a matrix (n, n) over all observations in
        units of their natural scales, or the covariance of the prior, or of its fields.
    """

    gamma: float | Callable[[float], Tensor] | PriorCovariance | ModalCovariance | None = None

    method = "sda"

    def __post_init__(self) -> None:
        if isinstance(self.gamma, str) or (isinstance(self.gamma, float | int) and self.gamma < 0):
            raise OptionError(
                f"gamma={self.gamma!r}, expected a number from 0 on, nothing for the measured variance, or (in "
                "assimilate) 'covariance'"
            )

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        return through_network(self.denoiser, z, r, lambda xhat: self._slope(xhat, r))

    def _slope(self, xhat: Tensor, r: float) -> Tensor:
        gamma = self.gamma
        if isinstance(gamma, ModalCovariance):
            around, weights = weigh(self.observations, self.linear(xhat), xhat, gamma, r)
            return around.adjoint(weights)
        if isinstance(gamma, PriorCovariance):
            around = misfit([o.matched(xhat, r) for o in self.observations], xhat)
            return around.adjoint(solve(around, lambda u: gamma.given(u, r), self.operators(xhat).matrix))
        return weighted_slope(self.observations, xhat, lambda innovations: self._weigh(innovations, r))

    def _weigh(self, innovations: list[Tensor], r: float) -> Sequence[Tensor]:
        if callable(self.gamma):
            scale = torch.cat([o.scale for o in self.observations]).double()
            covariance = joint_covariance(self.observations) + r**2 * scale[:, None] * self.gamma(r) * scale
            weights = solve_positive(covariance, torch.cat(innovations, dim=1))
            return weights.split([len(o.errors) for o in self.observations], dim=1)
        pairs = zip(self.observations, innovations, strict=True)
        return [o.weigh(innovation, self._unresolved(o, r)) for o, innovation in pairs]

    def _unresolved(self, network: GaussianObservation, r: float) -> Tensor:
        if isinstance(self.gamma, float | int):
            return self.gamma * (r * network.scale).square()
        if network.unresolved is None:
            raise OptionError("gamma is not given and the variance has not been measured; pass gamma=")
        return network.unresolved(r)
