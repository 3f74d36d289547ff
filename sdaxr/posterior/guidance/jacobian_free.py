r"""Guidance without the network's Jacobian: an analysis step on the denoised state.

.. math:: E[x | z, y] \approx \hat x + V H^T (R + H V H^T)^{-1} (y - H(\hat x)), \qquad \hat x = E[x | z]

This is optimal interpolation (Lorenc 1986, doi:10.1002/qj.49711247414) with :math:`\hat x` as the background and V, an
approximation of Cov[x | z], as its error covariance. H is linearised around :math:`\hat x`. No gradient goes through
the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import Independent, StateCovariance, Uncertainty
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.covariance.trajectory import LARGEST, Covariance
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class JacobianFree(ScoreMethod):
    r"""An analysis step on the denoised state; the network is not differentiated.

    .. math:: E[x | z, y] \approx \hat x + V H^T (R + H V H^T)^{-1} (y - H(\hat x))

    This is optimal interpolation (Lorenc 1986, doi:10.1002/qj.49711247414) with the background :math:`\hat x`. With
    :math:`V = r^2 C (C + r^2 I)^{-1}` from the covariance C of the prior, the method is exact for Gaussian priors. With
    a V that is a multiple of the identity, the analysis step is the proximal step of DiffPIR (Zhu et al. 2023,
    arXiv:2305.08995); information then spreads from observed to unobserved parts of the state through the prior only,
    at the following noise levels.

    Parameters
    ----------
    covariance
        V: `Covariance` (of trajectories of state vectors), `Measured` (of fields, for a prior that knows their modes)
        or `Independent`, or the name of one of them. Default: the first of these three that is possible.
    """

    covariance: Uncertainty | None = field(default=None, metadata={"registry": UNCERTAINTIES})

    name: ClassVar[str] = "jacobian_free"
    remedy: ClassVar[str] = "the analysis steps overshoot; give sampler more steps or corrections, or take method='sda'"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.covariance, StateCovariance | Covariance | Measured | None):
            raise OptionError(
                f"covariance={self.covariance}, expected Covariance(), Measured() or Independent() for the method "
                "'jacobian_free'"
            )

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured."""
        return self.covariance is not None and self.covariance.measured

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> JacobianFree:
        """The method with V for trajectories of a prior on ``times``.

        Raises
        ------
        OptionError
            If the prior has no covariance of the kind that is asked for.
        """
        layout, chosen = prior.layout, self.covariance
        if chosen is None:
            small = not layout.space and times.size * layout.channels <= LARGEST
            chosen = Covariance() if small else Measured()
        found = chosen.resolve(prior, times, device)
        if not isinstance(found, StateCovariance):
            if self.covariance is not None:
                raise OptionError(
                    f"covariance=Measured() needs a prior that knows the modes of its fields, found the prior "
                    f"{prior.name!r}; take Covariance() or Independent()"
                )
            found = Independent()
        return replace(self, covariance=found)

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        covariance = self.covariance
        if not isinstance(covariance, StateCovariance):
            raise OptionError("the covariance is not that of a prior yet; call resolve, or take Independent()")
        with torch.no_grad():
            xhat = posterior.denoiser(z, r)
        return xhat + covariance.product_everywhere(covariance.slope(posterior.likelihood, xhat, r), r)
