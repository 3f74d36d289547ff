r"""State-observation augmented diffusion (Li, Dong & Zhang 2024, arXiv:2407.21314).

The prior is one of z = [x, H(x)], so that an observation, however nonlinear H is, picks numbers of the state: S is
linear, with orthogonal rows (here: any such S, means over blocks too). With a row of norm a and natural scale s,

.. math:: p(y | z) \approx N(y | S \hat z, R + V), \qquad V = \frac{s^2 a^2 r^2}{s^2 + a^2 r^2} .

That is the paper's bounded variance, one for each observation. Where a prior has large scales in which neighbouring
observations agree, this variance counts them many times: the estimate overshoots at large r, and takes very many levels
to recover. There the measured covariance of z (`sdaxr.posterior.covariance.modal`) is the default, :math:`S V S^T`.

Forward-diffusion corrector: y itself, noised, is what S z looks like as long as the noise of z is larger than that of
the observation. While :math:`a^2 r^2 > R`, after every step

.. math:: S z \leftarrow y + \sqrt{a^2 r^2 - R}\, \xi .

The corrector knows nothing of the prior, so that near :math:`a^2 r^2 = R` it counts y twice (once in z, once in the
likelihood): the ensemble is too narrow where the errors are not small. The corrector takes errors for Gaussian; the
likelihood does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance, Uncertainty
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.covariance.variance import Bounded, Measured
from sdaxr.posterior.guidance.base import GuidedDenoiser, ScoreMethod, through_network
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood, Linearised, is_linear, weighted_slope
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class SOAD(ScoreMethod):
    r"""State-observation augmented diffusion (Li, Dong & Zhang 2024, arXiv:2407.21314).

    .. math:: p(y | z) \approx N(y | S \hat z, R + V)

    For a prior of states and of what is observed of them, ``train(augment={"velocity": op.pv_inversion()})``, or
    operators that pick numbers of the state.

    Parameters
    ----------
    variance
        V: `Measured`, the covariance of fields (default), or `Bounded`, the paper's variance, which also stands in the
        place of the former for priors that do not know the modes of their fields; or the name of one of them.
    corrector
        Whether what is observed is replaced by the noised observations as long as the noise is larger than the errors
        (the forward-diffusion corrector).
    """

    variance: Uncertainty = field(default_factory=Measured, metadata={"registry": UNCERTAINTIES})
    corrector: bool = True

    name: ClassVar[str] = "soad"
    augmented: ClassVar[bool] = True
    remedy: ClassVar[str] = (
        "the observations contradict each other or the prior; give them larger errors, or give sampler more steps"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.variance, StateCovariance | Measured) and self.variance != Bounded():
            raise OptionError(f"variance={self.variance}, expected Measured() or Bounded() for the method 'soad'")

    @property
    def measured(self) -> bool:
        """Whether the variance of each observed quantity has to be measured."""
        return self.variance.measured

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> SOAD:
        """The same method with V for trajectories of a prior on ``times``."""
        found = self.variance.resolve(prior, times, device)
        return replace(self, variance=found if isinstance(found, StateCovariance) else Bounded())

    def check(self, likelihood: Likelihood, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear with orthogonal rows."""
        _rows(likelihood, like)

    def mean(self, posterior: GuidedDenoiser, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        likelihood, variance = posterior.likelihood, self.variance
        if isinstance(variance, StateCovariance):
            return through_network(posterior.denoiser, z, r, lambda xhat: variance.slope(likelihood, xhat, r))
        networks = list(zip(likelihood.networks, _rows(likelihood, z), strict=True))

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            return [o.weigh(i, rows.variance(o.scale, r)) for (o, rows), i in zip(networks, innovations, strict=True)]

        return through_network(posterior.denoiser, z, r, lambda xhat: weighted_slope(likelihood.networks, xhat, weigh))

    def pin(self, posterior: GuidedDenoiser, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """The forward-diffusion corrector; where networks see the same, the later in the list has the last word.

        Parameters
        ----------
        posterior
            The observations.
        z, r
            States (batch, time, channel, *space) and their noise level.
        noise
            Returns standard normal noise of the shape of z.
        """
        likelihood = posterior.likelihood
        for network, rows in zip(likelihood.networks, _rows(likelihood, z), strict=True):
            if not self.corrector or r**2 <= rows.ratio.min():
                continue
            around = Linearised(network.operator, z)
            missing = (network.values - around.value) / rows.norm
            fresh = around.forward(noise()) / rows.norm
            z = z + around.adjoint(rows.pinned(missing, fresh, r) / rows.norm)
        return z


def _rows(likelihood: Likelihood, like: Tensor) -> list[_Rows]:
    return likelihood.once("rows", lambda: [_Rows.of(o, like) for o in likelihood.networks])


@dataclass(frozen=True)
class _Rows:
    """Rows of S, of norm a; and R over their norms, taken apart: diag(1/a) R diag(1/a) = Q diag(ratio) Q^T."""

    norm: Tensor
    ratio: Tensor
    vectors: Tensor | None

    @classmethod
    def of(cls, network: GaussianObservation, like: Tensor) -> _Rows:
        around = Linearised(network.operator, torch.zeros_like(like[:1]))
        square = around.forward(around.adjoint(torch.ones_like(around.value)))[0]
        norm = square.sqrt()
        probe = torch.randn(around.value.shape, generator=torch.Generator().manual_seed(0)).to(norm)
        back = around.forward(around.adjoint(probe / norm)) / norm
        if not is_linear(network, like) or not torch.allclose(back, probe, atol=1e-3):
            raise OptionError(
                "method='soad' is for observations that are a part of the state (or means over parts that do not "
                "overlap), found an operator of another kind; train a prior that knows what is observed, "
                "train(augment={'name': operator}), or take method='sda'"
            )
        if network.correlation is None:
            return cls(norm, (network.errors / norm).square(), None)
        ratio, vectors = torch.linalg.eigh(network.covariance / (norm[:, None] * norm))
        return cls(norm, ratio.to(norm), vectors.to(norm))

    def variance(self, scale: Tensor, r: float) -> Tensor:
        """V, shape (n,)."""
        free = (self.norm * r).square()
        return scale.square() * free / (scale.square() + free)

    def pinned(self, missing: Tensor, fresh: Tensor, r: float) -> Tensor:
        """What S z lacks, (batch, n), with new noise, where the noise of z is larger than that of y; else zero."""
        if self.vectors is not None:
            missing, fresh = missing @ self.vectors, fresh @ self.vectors
        change = torch.where(r**2 > self.ratio, missing + (r**2 - self.ratio).clamp_min(0.0).sqrt() * fresh, 0.0)
        return change if self.vectors is None else change @ self.vectors.T
