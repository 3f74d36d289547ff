r"""Optimal interpolation with the Gaussian process of a prior, by conditional simulation.

A draw x of the process and a draw of the errors give observations :math:`H(x) + \epsilon`. What they miss of the true
ones, interpolated, makes of x a draw of the posterior (Matheron's rule; Chiles & Delfiner 2012, section 7.3,
doi:10.1002/9781118136188):

.. math:: x + B H^T (H B H^T + R)^{-1} (y - H(x) - \epsilon) .

The mean of the draws is the analysis of optimal interpolation (Gandin 1963; Lorenc 1986, doi:10.1002/qj.49711247414).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.eofs import EofCovariance
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.linear import Likelihood, residual
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.prior.eofs import Eofs
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class OI(ScoreMethod):
    """Optimal interpolation (Gandin 1963; Lorenc 1986, doi:10.1002/qj.49711247414): exact draws, without a network.

    The covariance is that of the Gaussian process of a prior with EOFs (`sdaxr.prior.eofs`); operators are linear, and
    errors Gaussian.

    Parameters
    ----------
    covariance
        That of the prior, which `resolve` fills in.
    """

    covariance: EofCovariance | None = None

    name: ClassVar[str] = "oi"

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> OI:
        """The method with the covariance of a prior.

        Raises
        ------
        OptionError
            If the prior has no EOFs.
        """
        del times
        modes = prior.network.to(device).modes
        if not isinstance(modes, Eofs):
            raise OptionError(
                f"method='oi' needs a prior with EOFs, found the prior {prior.name!r} with the parameterisation "
                f"{prior.metadata['parameterisation']!r}; train one with train(parameterisation='eof', steps=0)"
            )
        return replace(self, covariance=EofCovariance(modes))

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear, or errors are not Gaussian."""
        if not all(likelihood.linear(like)) or any(isinstance(o, MixtureObservation) for o in likelihood.networks):
            raise OptionError(
                "method='oi' is for linear operators and Gaussian errors, found others; take method='sda'"
            )

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y] for the Gaussian process, of the shape of z (batch, time, channel, *space)."""
        covariance = self._known()
        xhat = covariance.modes.filter(z, z.new_full((len(z),), r))
        return xhat + covariance.product(covariance.slope(posterior.likelihood, xhat, r), r)

    def simulate(self, posterior: GuidedDenoiser, noise: Callable[[], Tensor]) -> Tensor:
        """Draws of the posterior, of the shape of the noise (batch, time, channel, *space)."""
        covariance = self._known()
        x = covariance.spread(noise(), math.inf)
        around = residual(posterior.likelihood.networks, x)
        e = -around.value
        error = noise().flatten(1)
        while error.shape[1] < e.shape[1]:
            error = torch.cat([error, noise().flatten(1)], dim=1)
        weights = covariance.solve(posterior.likelihood, around, e - error[:, : e.shape[1]], math.inf)
        return x + covariance.product(around.adjoint(weights), math.inf)

    def algorithm(self, sampler: object, **levels: object) -> ConditionalSimulation:
        """The simulation, in the place of a sampler."""
        del sampler, levels
        return ConditionalSimulation()

    def _known(self) -> EofCovariance:
        if self.covariance is None:
            raise OptionError("the covariance is not that of a prior yet; call resolve")
        return self.covariance


@dataclass(frozen=True)
class ConditionalSimulation:
    """Draws of `OI.simulate`, with the interface of `sdaxr.posterior.samplers.predictor_corrector`."""

    evaluations: ClassVar[int] = 1

    def __call__(
        self, denoiser: GuidedDenoiser, noise: Callable[[], Tensor], tick: Callable[[], object] = lambda: None,
        pin: object = None,
    ) -> Tensor:  # fmt: skip
        """Draw samples, of the shape of the noise."""
        del pin
        assert isinstance(denoiser.method, OI)
        states = denoiser.method.simulate(denoiser, noise)
        tick()
        return states
