r"""State-observation augmented diffusion (Li, Dong & Zhang 2024, arXiv:2407.21314).

The state x of the prior is augmented: it contains the physical state and the observed quantities H(physical state).
Whether H is linear or not, an observation then selects components of x:

.. math:: y = S x + N(0, R)

with a linear S of orthogonal rows. S may also take means over blocks that do not overlap. For a row of norm a and an
observed quantity of natural scale s,

.. math:: p(y | z) \approx N(y | S \hat x, R + V), \qquad V = \frac{s^2 a^2 r^2}{s^2 + a^2 r^2}, \qquad
          \hat x = E[x | z], \qquad z = x + r \epsilon .

This V is the paper's bounded variance, one for each observation. Where a prior has large scales, neighbouring
observations carry the same information, and this variance counts the information many times: the estimate overshoots at
large r, and recovers only over very many noise levels. For priors that know the modes of their fields, the default is
therefore the measured covariance of x given z, :math:`S\, \mathrm{Cov}[x | z]\, S^T`
(`sdaxr.posterior.covariance.modal`).

Forward-diffusion corrector: as long as the noise of S z is larger than the observation errors, y with added noise has
the distribution of S z. While :math:`a^2 r^2 > R`, on arrival at each noise level,

.. math:: S z \leftarrow y + \sqrt{a^2 r^2 - R}\, \xi, \qquad \xi \sim N(0, I) .

The corrector does not use the prior. Near :math:`a^2 r^2 = R` it counts y twice, once in z and once in the likelihood:
where the errors are not small, the ensemble is too narrow. The corrector treats errors as Gaussian; the likelihood uses
their density. A pinned z also leaves samplers of second order with steps of first order.

With the covariance of a Gaussian prior and without the corrector, the method is exact. With the corrector it is exact
for errors that vanish and steps that are short: after 64 steps, errors of a sixth of the standard deviation of a
Gaussian field left 0.57 of the posterior variance where it is observed, and 0.87 elsewhere.
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

    .. math:: p(y | z) \approx N(y | S \hat x, R + V), \qquad \hat x = E[x | z]

    The state x contains the observed quantities, and S selects them: the prior is trained with
    ``train(augment={"velocity": op.pv_inversion()})``, or the operators select variables of the state.

    Parameters
    ----------
    variance
        V: `Measured`, the covariance of fields (default), or `Bounded`, the paper's variance of each observation; or
        the name of one of them. For priors that do not know the modes of their fields, `Bounded` replaces `Measured`.
    corrector
        Whether the forward-diffusion corrector is used: as long as the noise is larger than the observation errors, the
        noised observations replace the observed quantities in z. Without it, the method is exact for Gaussian priors
        with `Measured`.
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
        """The method with V for trajectories of a prior on ``times``."""
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
        if not isinstance(variance, Bounded):
            raise OptionError("the variance is not that of a prior yet; call resolve, or take Bounded()")
        networks = list(zip(likelihood.networks, _rows(likelihood, z), strict=True))

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            return [o.weigh(i, rows.variance(o.scale, r)) for (o, rows), i in zip(networks, innovations, strict=True)]

        return through_network(posterior.denoiser, z, r, lambda xhat: weighted_slope(likelihood.networks, xhat, weigh))

    def pin(self, posterior: GuidedDenoiser, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """Apply the forward-diffusion corrector.

        Where several networks observe the same quantity, the last network in the list determines its value.

        Parameters
        ----------
        posterior
            Denoiser of the posterior, which holds the observations.
        z, r
            Diffused states (batch, time, channel, *space), and their noise level.
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
    """Norms a of the rows of S, and the errors of the normalised rows: diag(1/a) R diag(1/a) = Q diag(ratio) Q^T.

    ``vectors`` is Q; None where R is diagonal.
    """

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
                "overlap), found an operator of another kind; train a prior whose state contains the observed "
                "quantities, train(augment={'name': operator}), or take method='sda'"
            )
        if network.independent:
            return cls(norm, (network.errors / norm).square(), None)
        ratio, vectors = torch.linalg.eigh(network.covariance / (norm[:, None] * norm))
        return cls(norm, ratio.to(norm), vectors.to(norm))

    def variance(self, scale: Tensor, r: float) -> Tensor:
        """The bounded variance V = s^2 a^2 r^2 / (s^2 + a^2 r^2), shape (n,)."""
        noise = (self.norm * r).square()
        return scale.square() * noise / (scale.square() + noise)

    def pinned(self, missing: Tensor, fresh: Tensor, r: float) -> Tensor:
        """Change of the normalised rows of S z, (batch, n): the missing part of y, and new noise.

        The change is zero where the noise of S z is not larger than the observation errors.
        """
        if self.vectors is not None:
            missing, fresh = missing @ self.vectors, fresh @ self.vectors
        change = torch.where(r**2 > self.ratio, missing + (r**2 - self.ratio).clamp_min(0.0).sqrt() * fresh, 0.0)
        return change if self.vectors is None else change @ self.vectors.T
