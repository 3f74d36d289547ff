r"""Score-based methods: base classes.

With :math:`z = x_t / \mu = x + r \epsilon` and :math:`\hat x = E[x | z]`, Tweedie's formula (Efron 2011,
doi:10.1198/jasa.2011.tm11181) gives the posterior mean

.. math:: E[x | z, y] = \hat x + r^2 \nabla_z \log p(y | z) .

A method approximates :math:`p(y | z)`, or the posterior mean itself, from :math:`\hat x`. Most methods take
:math:`p(y | z) \approx N(y | H(\hat x), R + U)`, where U approximates the covariance of H(x) given z
(`sdaxr.posterior.covariance`). With U held fixed and :math:`J = d \hat x / d z`,

.. math:: \nabla_z \log p(y | z) \approx J^T H'(\hat x)^T (R + U)^{-1} (y - H(\hat x)) .

Errors that are not Gaussian are mixtures of Gaussians (`sdaxr.posterior.mixture`). Methods with a variance of each
observation convolve the density of the errors with N(0, U). Methods that solve a linear system replace each error by
the Gaussian with the same score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.methods import Method
from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.predictor_corrector import FAR, Algorithm
from sdaxr.schema import DivergenceError, OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class ScoreMethod(Method, ABC):
    """A method that needs a prior; its fields are its options.

    A new method is a subclass in a file of its own and a line in `sdaxr.methods`.

    Parameters
    ----------
    adapt
        For a prior with EOFs: the variances of its Gaussian process follow the observations
        (`sdaxr.posterior.covariance.adaptation`), where operators are linear and errors Gaussian.
    """

    adapt: bool = field(default=True, kw_only=True)

    # Whether observations are compared with the observed quantities among the variables of an augmented prior
    # (`sdaxr.prior.augmentation`).
    augmented: ClassVar[bool] = False
    # Whether the method has `twist`: an approximation of p(y | z), not of the posterior mean only.
    weighs: ClassVar[bool] = False
    # Advice in the error message where the method diverges.
    remedy: ClassVar[str] = (
        "the likelihood is narrower than the uncertainty of the prior given z; give method a larger variance, such as "
        "SDA(variance=Scalar(0.1)), give sampler more steps or corrections, or thin the observations"
    )

    @property
    def cost(self) -> float:
        """Cost of one evaluation: 1 for a forward pass of the network, with or without one vector-Jacobian product.

        Each further product costs a third.
        """
        return 1.0

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured on the held-out states of the prior."""
        return False

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> ScoreMethod:
        """The method for trajectories of a prior on ``times``: options that depend on the prior are filled in."""
        del prior, times, device
        return self

    def algorithm(self, sampler: Sampler, **levels: Any) -> Algorithm:
        """The algorithm of the sampler on the noise levels of a prior (`Sampler.build`).

        Raises
        ------
        OptionError
            If the sampler weights members, for which the method has no likelihood.
        """
        if sampler.together and not self.weighs:
            raise OptionError(
                f"sampler={sampler.name!r} weights members with p(y | z), which method={self.name!r} does not "
                "approximate; take method='sda', or another sampler"
            )
        return sampler.build(**levels)

    def guide(
        self, denoiser: Callable[[Tensor, float], Tensor], observations: Sequence[GaussianObservation]
    ) -> GuidedDenoiser:
        """The denoiser of the posterior.

        Parameters
        ----------
        denoiser
            Denoiser of the prior: (z, r) to E[x | z].
        observations
            One or several networks; the errors of different networks are independent.
        """
        return GuidedDenoiser(self, denoiser, Likelihood(observations))

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if the method cannot use these observations.

        ``like`` is a batch of states (batch, time, channel, *space).
        """
        del likelihood, like

    @abstractmethod
    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""

    def pin(self, posterior: GuidedDenoiser, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """Replace z on arrival at the noise level r, before the first evaluation there; most methods return z."""
        del posterior, r, noise
        return z

    def twist(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z], log p(y | z) up to a constant, and its derivative in z; for samplers that weight members.

        Methods that have it say so by ``weighs``.
        """
        raise NotImplementedError

    def misfit(self, likelihood: Likelihood, x: Tensor) -> Tensor:
        """Distance of samples from the observations, (batch,); observation errors do not explain a value above 1."""
        return likelihood.misfit(x)


@dataclass(frozen=True)
class GuidedDenoiser:
    r"""A denoiser of the posterior, :math:`E[x | z, y] = \hat x + r^2 \nabla_z \log p(y | z)`.

    Samplers use it like the denoiser of a prior.

    Attributes
    ----------
    method
        The method of guidance.
    denoiser
        Denoiser of the prior: (z, r) to E[x | z].
    likelihood
        The observations.
    """

    method: ScoreMethod
    denoiser: Callable[[Tensor, float], Tensor]
    likelihood: Likelihood

    def select(self, members: Tensor) -> Self:
        """The denoiser of some members, given by their numbers."""
        return type(self)(self.method, self.denoiser, self.likelihood.select(members))

    def check(self, like: Tensor) -> None:
        """Raise `OptionError` if the method cannot use the observations, see `ScoreMethod.check`."""
        self.method.check(self.likelihood, like)

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space).

        Raises
        ------
        DivergenceError
            If the estimate is not finite, or a thousand times larger than the states and the noise.
        """
        mean = self.method.mean(self, z, r)
        largest = float(mean.abs().amax())
        if not largest < FAR * (1 + r):
            raise DivergenceError(self._diagnosis(z, r, largest))
        return mean

    def twist(self, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z], log p(y | z) and its derivative in z, see `ScoreMethod.twist`."""
        return self.method.twist(self, z, r)

    def pin(self, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """Replace z on arrival at the noise level r, see `ScoreMethod.pin`."""
        return self.method.pin(self, z, r, noise)

    def misfit(self, x: Tensor) -> Tensor:
        """Distance of samples from the observations, see `ScoreMethod.misfit`."""
        return self.method.misfit(self.likelihood, x)

    def _diagnosis(self, z: Tensor, r: float, largest: float) -> str:
        with torch.no_grad():
            alone = float(self.denoiser(z.detach(), r).abs().amax())
        name = self.method.name
        found = f"method {name!r} diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g})"
        if not alone < FAR * (1 + r):
            return (
                f"{found}; the prior without observations diverges, too ({alone:.3g}): train the prior longer, or take "
                "another prior"
            )
        return f"{found}: {self.method.remedy}"


def through_network(
    denoiser: Callable[[Tensor, float], Tensor], z: Tensor, r: float, slope: Callable[[Tensor], Tensor]
) -> Tensor:
    """xhat + r^2 J^T slope(xhat); ``slope`` is the derivative of log p(y | z) in xhat, and J = d xhat / d z."""
    xhat, score = pulled_back(denoiser, z, r, slope)
    return xhat + r**2 * score


def pulled_back(
    denoiser: Callable[[Tensor, float], Tensor], z: Tensor, r: float, slope: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """xhat, and J^T slope(xhat), the derivative of log p(y | z) in z; see `through_network`."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        xhat = denoiser(z, r)
    (score,) = torch.autograd.grad(xhat, z, slope(xhat.detach()))
    return xhat.detach(), score
