r"""Guidance without the network's Jacobian: an analysis step on the denoised state.

.. math:: E[x | z, y] \approx \hat x + V H^T (R + H V H^T)^{-1} (y - H(\hat x))

This is optimal interpolation with :math:`\hat x` as the background and V as its error covariance; H is linearised
around :math:`\hat x`. Nothing goes back through the network. With :math:`V = r^2 C (C + r^2 I)^{-1}` from the prior's
covariance in time (`sdaxr.posterior.covariance.trajectory`) it is exact for Gaussian priors. V may also be the measured
covariance of fields (`sdaxr.posterior.covariance.modal`). Without either, V is :math:`r^2 / (1 + r^2)\, I`, exact for
white noise of unit variance; the update is then the proximal step of Zhu et al. (2023, DiffPIR), and what is observed
spreads to the rest of the state only through the prior, at later steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.modal import ModalCovariance, weigh
from sdaxr.posterior.covariance.trajectory import PriorCovariance
from sdaxr.posterior.guidance.base import Guidance
from sdaxr.posterior.linear import misfit, solve
from sdaxr.schema import OptionError

INDEPENDENT = "independent"


@dataclass(frozen=True)
class JacobianFree(Guidance):
    """Denoiser of the posterior.

    Attributes
    ----------
    gamma
        The covariance of the prior, or of its fields, or ``"independent"`` for white noise of unit variance.
    """

    gamma: PriorCovariance | ModalCovariance | str = INDEPENDENT

    method = "jacobian_free"
    remedy = "the analysis steps overshoot: pass more steps= or corrections=, or take method='sda'"

    def __post_init__(self) -> None:
        if isinstance(self.gamma, str) and self.gamma != INDEPENDENT:
            raise OptionError(
                f"gamma={self.gamma!r}, expected 'covariance' or 'independent' for the method 'jacobian_free'"
            )

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        with torch.no_grad():
            xhat = self.denoiser(z, r)
        if isinstance(self.gamma, ModalCovariance):
            around, weights = weigh(self.observations, self.linear(xhat), xhat, self.gamma, r)
            return xhat + self.gamma.given(around.adjoint(weights), r, everywhere=True)
        around = misfit([o.matched(xhat, r) for o in self.observations], xhat)
        weights = solve(around, lambda u: self._spread(u, r), self.operators(z).matrix)
        return xhat + self._spread(around.adjoint(weights), r)

    def _spread(self, u: Tensor, r: float) -> Tensor:
        if isinstance(self.gamma, PriorCovariance):
            return self.gamma.given(u, r)
        return r**2 / (1 + r**2) * u
