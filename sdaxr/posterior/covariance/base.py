r"""The uncertainty of the observed quantities given z: base classes.

.. math:: p(y | z) \approx N(y | H(\hat x), R + U), \qquad \hat x = E[x | z], \qquad z = x + r \epsilon

is the approximation of most methods. U is the covariance of H(x) given z. U is described by a variance of each
observation or by a matrix (`sdaxr.posterior.covariance.variance`), or by a covariance V of the states given z: then
:math:`U = H V H^T`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.linear import Likelihood, Linearised, residual, solve
from sdaxr.states.registry import Options

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class Uncertainty(Options, ABC):
    """U, the covariance of the observed quantities given z."""

    name: ClassVar[str] = ""
    # Whether the variance of each observed quantity has to be measured on the held-out states of the prior.
    measured: ClassVar[bool] = False

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> Uncertainty:
        """U for trajectories of a prior on ``times``: the parts that depend on the prior are looked up or estimated."""
        del prior, times, device
        return self

    @abstractmethod
    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'(xhat)^T (R + U)^-1 (y - H(xhat)), of the shape of xhat (batch, time, channel, *space).

        This is the derivative of log p(y | z) in xhat, with U held fixed.
        """

    @abstractmethod
    def log_likelihood(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """log N(y | H(xhat), R + U), (batch,), up to a constant that depends on r only where U does."""


@dataclass(frozen=True)
class StateCovariance(Uncertainty):
    """A covariance V of the states given z: U = H V H^T, with H linearised around xhat."""

    @abstractmethod
    def product(self, u: Tensor, r: float) -> Tensor:
        """V times u (batch, time, channel, *space); only times and channels where u is not zero have to be computed."""

    def product_everywhere(self, u: Tensor, r: float) -> Tensor:
        """V times u, at all times and channels."""
        return self.product(u, r)

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + H V H^T)^-1 (y - H(xhat)), of the shape of xhat (batch, time, channel, *space)."""
        around, weights = self.weights(likelihood, xhat, r)
        return around.adjoint(weights)

    def weights(self, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
        """The residual -e, and w = (I + G V G^T)^-1 e, (batch, n), see `sdaxr.posterior.linear`."""
        around = residual(likelihood.matched(xhat, r), xhat)
        return around, self.solve(likelihood, around, -around.value, r)

    def log_likelihood(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """-e^T (I + G V G^T)^-1 e / 2, (batch,), with the whitened innovation e and the whitened tangent G."""
        around = residual(likelihood.matched(xhat, r), xhat)
        return (around.value * self.solve(likelihood, around, -around.value, r)).sum(1) / 2

    def solve(self, likelihood: Likelihood, around: Linearised, e: Tensor, r: float) -> Tensor:
        """(I + G V G^T)^-1 e, (batch, n), with the residual -e linearised around x, see `sdaxr.posterior.linear`."""
        like = torch.zeros(1, *around.shape).to(e)
        return solve(around, lambda u: self.product(u, r), likelihood.matrix(like), e=e)


class GaussianPrior(Protocol):
    """V of a Gaussian prior; where r is infinite, the covariance of the prior."""

    def product(self, u: Tensor, r: float) -> Tensor:
        """V times u (batch, time, channel, *space)."""
        ...

    def spread(self, noise: Tensor, r: float) -> Tensor:
        """Draws with the covariance V from standard normal noise (batch, time, channel, *space)."""
        ...

    def solve(self, likelihood: Likelihood, around: Linearised, e: Tensor, r: float) -> Tensor:
        """(I + G V G^T)^-1 e, (batch, n)."""
        ...


def given_noise(variances: Tensor, r: float) -> Tensor:
    """Variances given z, :math:`S r^2 / (S + r^2)`; S where r is infinite."""
    return variances if math.isinf(r) else variances * r**2 / (variances + r**2)


@dataclass(frozen=True)
class Independent(StateCovariance):
    r"""V of a prior that is white noise of unit variance: :math:`V = r^2 / (1 + r^2)\, I`."""

    name: ClassVar[str] = "independent"

    def product(self, u: Tensor, r: float) -> Tensor:
        """V times u (batch, time, channel, *space)."""
        return r**2 / (1 + r**2) * u
