r"""What the score-based methods have in common.

A method approximates :math:`p(y | z)`, or the posterior mean itself, from :math:`\hat x = E[x | z]`. Most take
:math:`N(y | H(\hat x), R + U)` with U in the place of the covariance of H(x) given z (`sdaxr.posterior.covariance`),
and :math:`\nabla_z = J^T H^T (R + U)^{-1} (y - H(\hat x))` with :math:`J = d \hat x / d z`, U held fixed.

Where errors are not Gaussian, methods with a variance of each observation convolve the density of the errors with it.
Methods that solve a linear system have in R the variance of the Gaussian with the same score
(`sdaxr.posterior.mixture`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.methods import Method
from sdaxr.schema import DivergenceError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class ScoreMethod(Method, ABC):
    """A method that needs a prior: its fields are its options.

    A new method is a subclass in a file of its own and a line in `sdaxr.methods`.
    """

    # Whether observations are matched with what a prior knows of the observed quantities (`sdaxr.prior.augmentation`).
    augmented: ClassVar[bool] = False
    # What a person may do where the method diverges.
    remedy: ClassVar[str] = (
        "the likelihood is narrower than what the prior leaves open; give method a larger variance, such as "
        "SDA(variance=Scalar(0.1)), give sampler more steps or corrections, or thin the observations"
    )

    @property
    def cost(self) -> float:
        """What one evaluation costs: a forward pass of the network with its vector-Jacobian product, or without, is 1.

        Each further product counts a third.
        """
        return 1.0

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured on the held-out states of the prior."""
        return False

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> ScoreMethod:
        """The same method for trajectories of a prior on ``times``: what depends on the prior is looked up."""
        del prior, times, device
        return self

    def guide(
        self, denoiser: Callable[[Tensor, float], Tensor], observations: Sequence[GaussianObservation]
    ) -> GuidedDenoiser:
        """The denoiser of the posterior.

        Parameters
        ----------
        denoiser
            Prior: (z, r) to E[x | z].
        observations
            One or several networks, whose errors are independent of each other.
        """
        return GuidedDenoiser(self, denoiser, Likelihood(observations))

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if the observations of states like these (batch, time, channel, *space) do not suit."""
        del likelihood, like

    @abstractmethod
    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""

    def pin(self, posterior: GuidedDenoiser, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """z on arrival at the noise level r, before anything else is done there; most methods leave z as it is."""
        del posterior, r, noise
        return z

    def misfit(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        """How far samples are from the observations, (batch,); beyond 1 it is no accident of the errors."""
        return likelihood.misfit(x)


@dataclass(frozen=True)
class GuidedDenoiser:
    r"""A denoiser of the posterior, :math:`E[x | z, y] = \hat x + r^2 \nabla_z \log p(y | z)`.

    Samplers take it like the denoiser of a prior.

    Attributes
    ----------
    method
        How the observations guide.
    denoiser
        Prior: (z, r) to E[x | z].
    likelihood
        The observations.
    """

    method: ScoreMethod
    denoiser: Callable[[Tensor, float], Tensor]
    likelihood: Likelihood

    def of(self, members: Tensor) -> Self:
        """The same for some members."""
        return type(self)(self.method, self.denoiser, self.likelihood.of(members))

    def check(self, like: Tensor) -> None:
        """Raise `OptionError` if the observations of states like these do not suit the method."""
        self.method.check(self.likelihood, like)

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space).

        Raises
        ------
        DivergenceError
            If it is not finite, or far beyond the states and the noise.
        """
        mean = self.method.mean(self, z, r)
        largest = float(mean.abs().amax())
        if not largest < FAR * (1 + r):
            raise DivergenceError(self._diagnosis(z, r, largest))
        return mean

    def pin(self, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """z on arrival at the noise level r, see `ScoreMethod.pin`."""
        return self.method.pin(self, z, r, noise)

    def misfit(self, x: Tensor) -> Tensor:
        """How far samples are from the observations, (batch,); beyond 1 it is no accident of the errors."""
        return self.method.misfit(self.likelihood, x)

    def _diagnosis(self, z: Tensor, r: float, largest: float) -> str:
        with torch.no_grad():
            alone = float(self.denoiser(z.detach(), r).abs().amax())
        name = self.method.name
        found = f"method {name!r} diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g})"
        if not alone < FAR * (1 + r):
            return f"{found}; so does the prior without observations ({alone:.3g}): train it longer, or take another"
        return f"{found}: {self.method.remedy}"


# Normalised states are of the order of one, and z of the order of 1 + r: what is a thousand times larger has diverged.
FAR = 1e3


def through_network(
    denoiser: Callable[[Tensor, float], Tensor], z: Tensor, r: float, slope: Callable[[Tensor], Tensor]
) -> Tensor:
    """xhat + r^2 J^T slope(xhat), for the slope of the log-likelihood in xhat."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        xhat = denoiser(z, r)
    (score,) = torch.autograd.grad(xhat, z, slope(xhat.detach()))
    return xhat.detach() + r**2 * score
