r"""Uncertainty of the observed quantities given z, by observation: a variance of each, or a matrix over all.

.. math:: p(y | z) \approx N(y | H(\hat x), R + U)

A diagonal U (`Variance`) treats the observed quantities as independent of each other given z.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.eofs import EofCovariance
from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.covariance.tiled import TiledCovariance
from sdaxr.posterior.likelihood import GaussianObservation, joint_covariance, solve_positive
from sdaxr.posterior.linear import Likelihood, weighted_slope
from sdaxr.prior.eofs import Eofs
from sdaxr.schema import OptionError
from sdaxr.states.validation import NotNegative, Positive

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class Variance(Uncertainty):
    """A diagonal U."""

    @abstractmethod
    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """Variance of each observed quantity of a network at the noise level r, shape (n,)."""

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + U)^-1 (y - H(xhat)), of the shape of xhat (batch, time, channel, *space).

        Where errors are not Gaussian, the derivative of the log-density of the errors, convolved with N(0, U), replaces
        (R + U)^-1 (y - H(xhat)).
        """

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            pairs = zip(likelihood.networks, innovations, strict=True)
            return [network.weigh(innovation, self.at(network, r)) for network, innovation in pairs]

        return weighted_slope(likelihood.networks, xhat, weigh)

    def log_likelihood(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """log p(y | z) up to a constant, (batch,), see `GaussianObservation.log_likelihood`."""
        with torch.no_grad():
            logs = [o.log_likelihood(o.innovation(xhat), self.at(o, r)) for o in likelihood.networks]
        return torch.stack(logs).sum(0)


@dataclass(frozen=True)
class Scalar(Variance):
    r"""The variance of Rozet & Louppe (2023, section 3.2, arXiv:2306.10574).

    .. math:: U = \gamma r^2 s^2

    with the natural scale s of each observed quantity, its standard deviation under the prior.

    Parameters
    ----------
    gamma
        At least 0, without unit. The paper has 1e-2, and 3e-2 for Lorenz 63.
    """

    gamma: NotNegative = 1e-2

    name: ClassVar[str] = "scalar"

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """gamma r^2 s^2, shape (n,)."""
        return self.gamma * (r * network.scale).square()


@dataclass(frozen=True)
class Bounded(Variance):
    r"""A variance that does not exceed the variance of the prior (Li, Dong & Zhang 2024, arXiv:2407.21314).

    .. math:: U = \frac{s^2 \gamma r^2}{1 + \gamma r^2}

    with the natural scale s of each observed quantity, its standard deviation under the prior. At small r,
    :math:`U = \gamma r^2 s^2` as in `Scalar`; at large r, U is the variance :math:`s^2` of the prior. The paper has
    :math:`\gamma = 1`, which is exact where the prior is white noise. Other priors know more: in a chaotic chain, the
    states before and after determine a state well. Such a prior needs a much smaller :math:`\gamma`; otherwise the
    likelihood is too wide.

    Parameters
    ----------
    gamma
        Above 0, without unit: U over :math:`r^2 s^2` at small noise levels. `SOAD` needs 1.
    """

    gamma: Positive = 1.0

    name: ClassVar[str] = "bounded"

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """s^2 gamma r^2 / (1 + gamma r^2), shape (n,)."""
        free = self.gamma * r**2
        return network.scale.square() * free / (1 + free)


@dataclass(frozen=True)
class Measured(Variance):
    r"""The uncertainty of the prior, measured on held-out states for the operator of the observations.

    .. math:: U \approx E\,[(H(x) - H(\hat x))^2], \qquad \hat x = E[x | z]

    For a prior of fields that knows their modes, U is the covariance of all observed quantities
    (`sdaxr.posterior.covariance.modal`). For another prior, U is the variance of each observed quantity
    (`sdaxr.posterior.covariance.unresolved`). There is no option to tune.
    """

    name: ClassVar[str] = "measured"
    measured: ClassVar[bool] = True

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> Uncertainty:
        """The modal covariance where the prior knows the modes of its fields; else this object."""
        del times
        if prior.patches is not None:
            return TiledCovariance.of_prior(prior, device) or self
        modes = prior.modes(device)
        return EofCovariance(modes) if isinstance(modes, Eofs) else ModalCovariance.of_prior(prior, device) or self

    def at(self, network: GaussianObservation, r: float) -> Tensor:
        """The measured variance of each observed quantity, shape (n,).

        Raises
        ------
        OptionError
            If the variance has not been measured.
        """
        if network.unresolved is None:
            raise OptionError("the variance of the observed quantities has not been measured; choose Scalar or Bounded")
        return network.unresolved(r)


@dataclass(frozen=True)
class Matrix(Uncertainty):
    r"""A matrix over all observations, :math:`U = r^2\, \mathrm{diag}(s)\, \Gamma(r)\, \mathrm{diag}(s)`.

    s are the natural scales of the observed quantities, their standard deviations under the prior. All errors are
    treated as Gaussian. For a Gaussian prior, :math:`\Gamma` follows from its covariance (Rozet & Louppe 2023, appendix
    B, arXiv:2306.10574).

    Parameters
    ----------
    gamma
        Function of the noise level r: :math:`\Gamma`, a matrix (n, n) without unit, in the order of the networks.
    """

    gamma: Callable[[float], Tensor]

    name: ClassVar[str] = "matrix"

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + U)^-1 (y - H(xhat)), of the shape of xhat (batch, time, channel, *space)."""
        networks, covariance = likelihood.networks, self._covariance(likelihood, r)

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            weights = solve_positive(covariance, torch.cat(innovations, dim=1))
            return list(weights.split([len(o.errors) for o in networks], dim=1))

        return weighted_slope(networks, xhat, weigh)

    def log_likelihood(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """-(y - H(xhat))^T (R + U)^-1 (y - H(xhat)) / 2, (batch,)."""
        with torch.no_grad():
            innovation = torch.cat([o.innovation(xhat) for o in likelihood.networks], dim=1)
        return -(innovation * solve_positive(self._covariance(likelihood, r), innovation)).sum(1) / 2

    def _covariance(self, likelihood: Likelihood, r: float) -> Tensor:
        """R + U of all networks, shape (n, n), in double precision."""
        scale = torch.cat([o.scale for o in likelihood.networks]).double()
        return joint_covariance(likelihood.networks) + r**2 * scale[:, None] * self.gamma(r) * scale
