r"""What the methods have in common.

A method approximates :math:`p(y | z)`, or the posterior mean itself, from :math:`\hat x = E[x | z]`. Most take
:math:`N(y | H(\hat x), R + H V H^T)` with V in the place of the covariance of x given z, and
:math:`\nabla_z = J^T H^T (R + H V H^T)^{-1} (y - H(\hat x))` with :math:`J = d \hat x / d z`, V held fixed.

Of errors that are not Gaussian, methods that know a variance of each observation convolve the density with it; those
that solve a linear system have in R the variance of the Gaussian with the same score (`sdaxr.posterior.mixture`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from scipy.stats import chi2
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Operators, examine, is_linear
from sdaxr.schema import DivergenceError

Weigh = Callable[[list[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Guidance(ABC):
    """A denoiser of the posterior.

    Attributes
    ----------
    denoiser
        Prior: (z, r) to E[x | z].
    observations
        One or several networks of instruments, whose errors are independent of each other.
    """

    denoiser: Callable[[Tensor, float], Tensor]
    observations: Sequence[GaussianObservation]

    method: ClassVar[str]
    remedy: ClassVar[str] = (
        "the likelihood is narrower than what the prior leaves open: pass a larger gamma=, more steps= or "
        "corrections=, or thin the observations"
    )

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of what can be set."""
        return tuple(f.name for f in fields(cls) if f.name not in ("denoiser", "observations"))

    @property
    def cost(self) -> float:
        """What one call costs: a forward pass of the network with its vector-Jacobian product counts one, and each
        further product a third. A forward pass alone counts one, too.
        """
        return 1.0

    def of(self, members: Tensor) -> Self:
        """The same for some members."""
        return replace(self, observations=[o.of(members) for o in self.observations])

    def check(self, like: Tensor) -> None:  # noqa: B027 (most methods take any observations)
        """Raise `OptionError` if the observations of states like these (batch, time, channel, *space) do not suit."""

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space).

        Raises
        ------
        DivergenceError
            If it is not finite, or far beyond the states and the noise.
        """
        mean = self.mean(z, r)
        largest = float(mean.abs().amax())
        if not largest < 1e3 * (1 + r):
            raise DivergenceError(self._diagnosis(z, r, largest))
        return mean

    def misfit(self, x: Tensor) -> Tensor:
        """Deviance of samples (the squared innovations, in units of Gaussian errors), over the largest that may be.

        That is what one sample in a million exceeds, and four times the number of observations at least: errors that
        are somewhat too small are no fault of the sample. Shape (batch,).
        """
        with torch.no_grad():
            deviance = [o.deviance(x) for o in self.observations]
        count = sum(o.values.shape[-1] for o in self.observations)
        return torch.stack(deviance).sum(0) / max(4.0 * count, float(chi2.isf(1e-6, count)))

    @abstractmethod
    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], not checked."""

    def operators(self, like: Tensor) -> Operators:
        """What is known of the operators beforehand, found out at the first call."""
        if "_operators" not in self.__dict__:
            object.__setattr__(self, "_operators", examine(self.observations, like))
        known: Operators = self.__dict__["_operators"]
        return known

    def linear(self, like: Tensor) -> tuple[bool, ...]:
        """Whether the operator of each network is linear, up to a constant, found out at the first call."""
        if "_linear" not in self.__dict__:
            object.__setattr__(self, "_linear", tuple(is_linear(o, like) for o in self.observations))
        known: tuple[bool, ...] = self.__dict__["_linear"]
        return known

    def _diagnosis(self, z: Tensor, r: float, largest: float) -> str:
        with torch.no_grad():
            alone = float(self.denoiser(z.detach(), r).abs().amax())
        found = f"method {self.method!r} diverged at noise level r = {r:.3g} (largest normalised value {largest:.3g})"
        if not alone < 1e3 * (1 + r):
            return f"{found}; so does the prior without observations ({alone:.3g}): train it longer, or take another"
        return f"{found}: {self.remedy}"


def through_network(
    denoiser: Callable[[Tensor, float], Tensor], z: Tensor, r: float, slope: Callable[[Tensor], Tensor]
) -> Tensor:
    """xhat + r^2 J^T slope(xhat), for the slope of the log-likelihood in xhat."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        xhat = denoiser(z, r)
    (score,) = torch.autograd.grad(xhat, z, slope(xhat.detach()))
    return xhat.detach() + r**2 * score


def weighted_slope(observations: Sequence[GaussianObservation], x: Tensor, weigh: Weigh) -> Tensor:
    """H'(x)^T w, of the shape of x; ``weigh`` makes the weights w of each network from the innovations y - H(x)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        innovations = [o.innovation(x) for o in observations]
    weights = weigh([i.detach() for i in innovations])
    (slope,) = torch.autograd.grad(innovations, x, [-w for w in weights])
    return slope
