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

from sdaxr.posterior.covariance.base import GaussianPrior
from sdaxr.posterior.covariance.eofs import EofCovariance
from sdaxr.posterior.covariance.modal import ModalCovariance, WindowCovariance
from sdaxr.posterior.covariance.trajectory import Covariance
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.linear import Likelihood, residual
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.posterior.samplers.predictor_corrector import Independent
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.modes import Modes
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class OI(ScoreMethod):
    """Optimal interpolation (Gandin 1963; Lorenc 1986, doi:10.1002/qj.49711247414): exact draws, without a network.

    The covariance is that of the Gaussian process of a prior with EOFs (`sdaxr.prior.eofs`) or with sines and cosines
    (`sdaxr.prior.modes`), or for state vectors that of `Covariance`. Operators are linear, and errors Gaussian.

    Parameters
    ----------
    covariance
        That of the prior, which `resolve` fills in.
    """

    covariance: GaussianPrior | None = None

    name: ClassVar[str] = "oi"

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> OI:
        """The method with the covariance of a prior.

        Raises
        ------
        OptionError
            If the prior has neither modes nor state vectors, if its modes are those of windows of another length, or
            if a trajectory of state vectors has more than 4096 values.
        """
        modes = prior.modes(device)
        if isinstance(modes, Eofs):
            return replace(self, covariance=EofCovariance(modes))
        if isinstance(modes, Modes):
            if modes.window not in (None, times.size):
                raise OptionError(
                    f"method='oi' with the prior {prior.name!r} is for windows of {modes.window} states, found "
                    f"{times.size}; give as many times, or take method='sda'"
                )
            kind = ModalCovariance if modes.window is None else WindowCovariance
            return replace(self, covariance=kind.gaussian(modes))
        if prior.layout.space:
            raise OptionError(
                f"method='oi' needs a prior with modes, and the prior {prior.name!r} has none; train one with "
                "sdaxr.train(..., parameterisation='eof', steps=0)"
            )
        return replace(self, covariance=Covariance().resolve(prior, times, device))

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear, or errors are not Gaussian."""
        if not all(likelihood.linear(like)) or any(isinstance(o, MixtureObservation) for o in likelihood.networks):
            raise OptionError(
                "method='oi' is for linear operators and Gaussian errors, found others; take method='sda'"
            )

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """The draw that begins with z / r as noise; there is one level only, and no error is drawn."""
        return self._conditioned(posterior.likelihood, self._known.spread(z / r, math.inf), None)

    def simulate(self, posterior: GuidedDenoiser, noise: Callable[[], Tensor]) -> Tensor:
        """Draws of the posterior, of the shape of the noise (batch, time, channel, *space)."""
        return self._conditioned(posterior.likelihood, self._known.spread(noise(), math.inf), noise)

    def _conditioned(self, likelihood: Likelihood, x: Tensor, noise: Callable[[], Tensor] | None) -> Tensor:
        """Draws x of the prior, conditioned on the observations."""
        around = residual(likelihood.networks, x)
        e = -around.value
        error = torch.zeros_like(e[:, :0] if noise else e)
        while noise and error.shape[1] < e.shape[1]:
            error = torch.cat([error, noise().flatten(1)], dim=1)
        weights = self._known.solve(likelihood, around, e - error[:, : e.shape[1]], math.inf)
        return x + self._known.product(around.adjoint(weights), math.inf)

    def algorithm(self, sampler: object, **levels: object) -> ConditionalSimulation:
        """The simulation, in the place of a sampler."""
        del sampler, levels
        return ConditionalSimulation()

    @property
    def _known(self) -> GaussianPrior:
        if self.covariance is None:
            raise OptionError("the covariance is not that of a prior yet; call resolve")
        return self.covariance


@dataclass(frozen=True)
class ConditionalSimulation(Independent):
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
