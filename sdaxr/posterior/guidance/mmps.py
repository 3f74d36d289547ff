r"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712).

.. math:: p(y | z) \approx N(y | H(\hat x), R + H V H^T), \qquad V = \mathrm{Cov}[x | z] = r^2 \frac{d \hat x}{d z}

V is Tweedie's second-order formula (Efron 2011, doi:10.1198/jasa.2011.tm11181). In terms of :math:`z = x_t / \mu` the
formula has no further factor :math:`1 / \mu`. V is never stored. A few steps of GMRES (Saad & Schultz 1986,
doi:10.1137/0907058) solve the linear system. Each step takes one product with the network's Jacobian, and the gradient
needs no further products. For a Gaussian prior the method is exact with as many steps as the matrix of the system has
different eigenvalues.

The Jacobian of a trained network is not exactly symmetric or positive, in particular where a score is composed of
windows. Conjugate gradients can then diverge; `sdaxr.posterior.krylov.gmres` does not.

At noise levels where several modes are open, the covariance of a mixture says little of the modes that observations
tell apart. Above the level ``below`` the covariance is that of `SDA`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.covariance.variance import Measured
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.krylov import gmres
from sdaxr.posterior.linear import residual
from sdaxr.schema import OptionError
from sdaxr.states.validation import Positive, Steps

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class MMPS(ScoreMethod):
    r"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712).

    .. math:: p(y | z) \approx N(y | H(\hat x), R + H V H^T), \qquad V = r^2 \frac{d \hat x}{d z}

    Parameters
    ----------
    iterations
        Number of steps of GMRES, at least 1. Each step takes one product with the network's Jacobian.
    below
        Largest noise level r at which the covariance is V. Default: all levels.
    variance
        U of `SDA`, in the place of H V H^T above that level; a number is the gamma of `Scalar`.
    """

    iterations: Steps = 3
    below: Positive | None = None
    variance: Uncertainty = field(default_factory=Measured, metadata={"registry": UNCERTAINTIES})

    name: ClassVar[str] = "mmps"
    remedy: ClassVar[str] = (
        "the network's Jacobian is not a covariance at this noise level; take fewer iterations, MMPS(iterations=1), a "
        "prior with EDM preconditioning, or method='sda'"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.below is None and self.variance != Measured():
            raise OptionError(f"found variance={self.variance} without below=, the noise level above which it is used")
        object.__setattr__(self, "variance", SDA(self.variance).variance)  # as it is read there

    @property
    def cost(self) -> float:
        """1 for the forward pass and the first product, a third for each further product; 1 above ``below``."""
        return 1 + (self.iterations - 1) / 3

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured: for the levels above ``below``."""
        return self.below is not None and self.variance.measured

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> ScoreMethod:
        """The method with U; for a prior that is a Gaussian process, `SDA` with its V, which is the same and exact."""
        if prior.network.modes is not None and prior.network.silent:
            return SDA().resolve(prior, times, device)
        return self if self.below is None else replace(self, variance=self.variance.resolve(prior, times, device))

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        if self.below is not None and r > self.below:
            return SDA(self.variance).mean(posterior, z, r)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            xhat = posterior.denoiser(z, r)
        around = residual(posterior.likelihood.matched(xhat, r), xhat)
        products: list[Tensor] = []

        def system(w: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(xhat, z, around.adjoint(w), retain_graph=True)
            products.append(product)
            return w + r**2 * around.forward(product)

        coefficients = gmres(system, -around.value, self.iterations)
        score = torch.einsum("bk,kb...->b...", coefficients, torch.stack(products))
        return xhat.detach() + r**2 * score
