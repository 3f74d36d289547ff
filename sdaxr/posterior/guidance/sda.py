r"""Score-based data assimilation (Rozet & Louppe 2023, section 3.2, arXiv:2306.10574).

.. math:: p(y | z) \approx N(y | H(\hat x), R + U), \qquad \hat x = E[x | z]

with :math:`r = \sigma / \mu` and :math:`z = x_t / \mu`. In the paper :math:`U = r^2 \Gamma`, where :math:`\Gamma` is a
scalar (`Scalar`) or, in appendix B, follows from the covariance of the prior (`Covariance`). The default U is measured
(`Measured`).

The gradient goes through the network. A gradient in :math:`x_t` has the further factor :math:`1 / \mu`; in terms of z
this factor is included.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.covariance.variance import Measured, Scalar
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod, pulled_back, through_network
from sdaxr.schema import OptionError
from sdaxr.states.validation import Number, checked

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class SDA(ScoreMethod):
    r"""Score-based data assimilation (Rozet & Louppe 2023, arXiv:2306.10574).

    .. math:: p(y | z) \approx N(y | H(\hat x), R + U), \qquad \hat x = E[x | z]

    Parameters
    ----------
    variance
        U, the covariance of the observed quantities given z: `Measured` (default), `Scalar` (as in the paper),
        `Bounded`, `Covariance`, `Independent` or `Matrix`; the name of one of them; or a number, the gamma of `Scalar`.
        With `Covariance`, the method is exact for Gaussian priors.
    """

    variance: Uncertainty = field(default_factory=Measured, metadata={"registry": UNCERTAINTIES})

    name: ClassVar[str] = "sda"
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.variance, Real) and not isinstance(self.variance, bool):
            object.__setattr__(self, "variance", Scalar(checked("variance", self.variance, Number)))
        super().__post_init__()
        if not isinstance(self.variance, Uncertainty):
            raise OptionError(
                f"variance={self.variance!r}, expected one of {', '.join(UNCERTAINTIES.names())}, an object such as "
                "Scalar(0.01), or a number"
            )

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured."""
        return self.variance.measured

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> SDA:
        """The method with U for trajectories of a prior on ``times``."""
        return replace(self, variance=self.variance.resolve(prior, times, device))

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        return through_network(
            posterior.denoiser, z, r, lambda xhat: self.variance.slope(posterior.likelihood, xhat, r)
        )

    def twist(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z], log p(y | z) up to a constant, (batch,), and its derivative in z."""
        likelihood = posterior.likelihood
        xhat, score = pulled_back(posterior.denoiser, z, r, lambda x: self.variance.slope(likelihood, x, r))
        return xhat, self.variance.log_likelihood(likelihood, xhat, r), score
