r"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712).

.. math:: p(y | z) \approx N(y | H(\hat x), R + H V H^T), \qquad V = \mathrm{Cov}[x | z] = r^2 \frac{d \hat x}{d z}

V is Tweedie's second-order formula (Efron 2011, doi:10.1198/jasa.2011.tm11181). In terms of :math:`z = x_t / \mu` the
formula has no further factor :math:`1 / \mu`. V is never stored. A few steps of GMRES (Saad & Schultz 1986,
doi:10.1137/0907058) solve the linear system. Each step takes one product with the network's Jacobian, and the gradient
needs no further products. For a Gaussian prior the method is exact with as many steps as the matrix of the system has
different eigenvalues.

The Jacobian of a trained network is not exactly symmetric or positive, in particular where a score is composed of
windows. Conjugate gradients can then diverge; `sdaxr.posterior.krylov.gmres` does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.krylov import gmres
from sdaxr.posterior.linear import residual
from sdaxr.states.validation import Steps

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
    """

    iterations: Steps = 3

    name: ClassVar[str] = "mmps"
    remedy: ClassVar[str] = (
        "the network's Jacobian is not a covariance at this noise level; take fewer iterations, MMPS(iterations=1), a "
        "prior with EDM preconditioning, or method='sda'"
    )

    @property
    def cost(self) -> float:
        """1 for the forward pass and the first product, and a third for each further product."""
        return 1 + (self.iterations - 1) / 3

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> ScoreMethod:
        """The method; for a prior that is a Gaussian process, `SDA` with its V, which is the same and exact."""
        network = prior.network
        return SDA().resolve(prior, times, device) if network.modes is not None and network.silent else self

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
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
