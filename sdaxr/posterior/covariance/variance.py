r"""A variance of each observed quantity given z: the observations are taken for independent of each other given z."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.likelihood import GaussianObservation, joint_covariance, solve_positive
from sdaxr.posterior.linear import Likelihood, weighted_slope
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class Variance(Uncertainty):
    """U, diagonal."""

    @abstractmethod
    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """Variance of each observed quantity of a network at the noise level r, shape (n,)."""

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + U)^-1 (y - H(xhat)); where errors are not Gaussian, their density is convolved with N(0, U)."""

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            pairs = zip(likelihood.networks, innovations, strict=True)
            return [network.weigh(innovation, self.at(network, r)) for network, innovation in pairs]

        return weighted_slope(likelihood.networks, xhat, weigh)


@dataclass(frozen=True)
class Scalar(Variance):
    r"""The paper's variance, :math:`\gamma r^2` (Rozet & Louppe 2023, section 3.2, arXiv:2306.10574).

    Parameters
    ----------
    gamma
        From 0 on, in units of the variance of what is observed under the prior. The paper has 1e-2, and 3e-2 for
        Lorenz 63.
    """

    gamma: float = 1e-2

    name: ClassVar[str] = "scalar"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma < math.inf:
            raise OptionError(f"gamma={self.gamma!r}, expected a number from 0 on")

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """gamma r^2 in units of the natural scale, shape (n,)."""
        return self.gamma * (r * network.scale).square()


@dataclass(frozen=True)
class Bounded(Variance):
    r"""A variance that does not exceed that of the prior.

    .. math:: U = \frac{s^2 \gamma r^2}{1 + \gamma r^2}

    with the natural scale s of each observed quantity. At small r this is :math:`\gamma r^2` in its units; at large r
    it is the variance :math:`s^2` of the prior. With :math:`\gamma = 1` it is exact where the prior is white noise, and
    what Li, Dong & Zhang (2024, arXiv:2407.21314) use. A prior that knows more than that (a chaotic chain, whose
    neighbours in time tell where a state is) needs a much smaller :math:`\gamma`, or the likelihood is too wide.

    Parameters
    ----------
    gamma
        Above 0; the variance at small noise levels over r^2, in units of the natural scale. `SOAD` takes 1.
    """

    gamma: float = 1.0

    name: ClassVar[str] = "bounded"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma < math.inf:
            raise OptionError(f"gamma={self.gamma!r}, expected a number above 0")

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """The bounded variance, shape (n,)."""
        free = self.gamma * r**2
        return network.scale.square() * free / (1 + free)


@dataclass(frozen=True)
class Measured(Variance):
    """What the prior does not know of held-out states, measured for the operator of the observations.

    For a prior of fields that knows their modes, the covariance of all observed quantities
    (`sdaxr.posterior.covariance.modal`); for another prior, the variance of each
    (`sdaxr.posterior.covariance.unresolved`). Nothing has to be chosen.
    """

    name: ClassVar[str] = "measured"
    measured: ClassVar[bool] = True

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> Uncertainty:
        """The covariance of fields, where the prior knows their modes."""
        del times
        return ModalCovariance.of_prior(prior, device) or self

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """The measured variance, shape (n,)."""
        if network.unresolved is None:
            raise OptionError("the variance of the observed quantities has not been measured; choose Scalar or Bounded")
        return network.unresolved(r)


@dataclass(frozen=True)
class Matrix(Uncertainty):
    r"""A matrix over all observations, :math:`r^2 \Gamma(r)`; all errors are taken for Gaussian.

    Parameters
    ----------
    gamma
        r to a matrix (n, n) in units of the natural scales of the observations, in the order of the networks.
    """

    gamma: Callable[[float], Tensor]

    name: ClassVar[str] = "matrix"

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + r^2 Gamma)^-1 (y - H(xhat))."""
        networks = likelihood.networks
        scale = torch.cat([o.scale for o in networks]).double()
        covariance = joint_covariance(networks) + r**2 * scale[:, None] * self.gamma(r) * scale

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            weights = solve_positive(covariance, torch.cat(innovations, dim=1))
            return list(weights.split([len(o.errors) for o in networks], dim=1))

        return weighted_slope(networks, xhat, weigh)
