r"""What is unknown of the observed quantities given z, as guidance uses it.

Most methods approximate :math:`p(y | z)` by :math:`N(y | H(\hat x), R + U)` with :math:`\hat x = E[x | z]`. U is the
covariance of H(x) given z: given as a variance of each observation (`sdaxr.posterior.covariance.variance`), as a
covariance V of the states, so that :math:`U = H V H^T`, or as a matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.linear import Likelihood, residual, solve
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
        """The same for trajectories of a prior on ``times``: what the prior knows is looked up or estimated."""
        del prior, times, device
        return self

    @abstractmethod
    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'(xhat)^T (R + U)^-1 (y - H(xhat)), of the shape of xhat (batch, time, channel, *space)."""


@dataclass(frozen=True)
class StateCovariance(Uncertainty):
    """A covariance V of the states given z, so that U = H V H^T; H is linearised around xhat."""

    @abstractmethod
    def given(self, u: Tensor, r: float) -> Tensor:
        """V times u (batch, time, channel, *space), at least at the times and channels where u is not zero."""

    def spread(self, u: Tensor, r: float) -> Tensor:
        """V times u, at all times and channels."""
        return self.given(u, r)

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + H V H^T)^-1 (y - H(xhat))."""
        around = residual(likelihood.matched(xhat, r), xhat)
        return around.adjoint(solve(around, lambda u: self.given(u, r), likelihood.matrix(xhat)))


@dataclass(frozen=True)
class Independent(StateCovariance):
    r"""V of white noise of unit variance: :math:`r^2 / (1 + r^2)\, I`."""

    name: ClassVar[str] = "independent"

    def given(self, u: Tensor, r: float) -> Tensor:
        """V times u."""
        return r**2 / (1 + r**2) * u
