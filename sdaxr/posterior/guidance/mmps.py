r"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712).

.. math:: p(y | z) \approx N(y | H(\hat x), R + H V H^T), \qquad V = \mathrm{Cov}[x | z] = r^2 \frac{d \hat x}{d z}

by Tweedie's second formula; in units of :math:`z = x_t / \mu` its 1 / mu is there. Nothing is stored of V: the system
is solved by a few steps of GMRES, each with one product of the network's Jacobian, which are also all that the gradient
needs. For a Gaussian prior it is exact with as many steps as there are different eigenvalues.

The Jacobian of a score that is composed of windows, or of any trained network, is not quite symmetric, nor positive;
plain conjugate gradients then diverge. See `sdaxr.posterior.krylov.gmres` for what is done instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod
from sdaxr.posterior.krylov import gmres
from sdaxr.posterior.linear import residual
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class MMPS(ScoreMethod):
    r"""Moment matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712).

    .. math:: p(y | z) \approx N(y | H(\hat x), R + H V H^T), \qquad V = r^2 \frac{d \hat x}{d z}

    Parameters
    ----------
    iterations
        Steps of GMRES, each one product with the network's Jacobian; from 1 on.
    """

    iterations: int = 3

    name: ClassVar[str] = "mmps"
    remedy: ClassVar[str] = (
        "the network's Jacobian is no covariance there; take fewer iterations, MMPS(iterations=1), a prior with EDM "
        "preconditioning, or method='sda'"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise OptionError(f"iterations={self.iterations}, expected at least 1")

    @property
    def cost(self) -> float:
        """One for the forward pass and the first product, and a third for each further one."""
        return 1 + (self.iterations - 1) / 3

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
