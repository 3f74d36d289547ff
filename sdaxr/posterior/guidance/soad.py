r"""State-observation augmented diffusion (Li, Dong & Zhang 2024).

The prior is one of z = [x, H(x)], so that an observation, however nonlinear H is, picks numbers of the state: S is
linear, with orthogonal rows (here: any such S, means over blocks too). With a row of norm a and natural scale s,

.. math:: p(y | z) \approx N(y | S \hat z, R + V), \qquad V = \frac{s^2 a^2 r^2}{s^2 + a^2 r^2} .

That is the paper's bounded variance, one for each observation. Where a prior has large scales in which neighbouring
observations agree, it counts them many times, overshoots at large r, and takes very many levels to recover; there the
measured covariance of z (`sdaxr.posterior.covariance.modal`) is the default, :math:`S V S^T`.

Forward-diffusion corrector: y itself, noised, is what S z looks like as long as the noise of z is larger than that of
the observation. While :math:`a^2 r^2 > R`, after every step

.. math:: S z \leftarrow y + \sqrt{a^2 r^2 - R}\, \xi .

It knows nothing of the prior, so that near :math:`a^2 r^2 = R` it counts y twice (once in z, once in the likelihood):
the ensemble is too narrow where the errors are not small. It takes errors for Gaussian; the likelihood does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.modal import ModalCovariance
from sdaxr.posterior.covariance.modal import weigh as modal_weigh
from sdaxr.posterior.guidance.base import Guidance, through_network, weighted_slope
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Linearised, is_linear
from sdaxr.schema import OptionError

BOUNDED = "bounded"


@dataclass(frozen=True)
class SOAD(Guidance):
    """Denoiser of the posterior.

    Attributes
    ----------
    gamma
        ``"bounded"``, or the covariance of the prior's fields.
    corrector
        Whether samplers shall `pin` what is observed.
    """

    gamma: ModalCovariance | str = BOUNDED
    corrector: bool = True

    method = "soad"
    remedy = "the observations contradict each other or the prior: give them larger errors, or pass more steps="

    def __post_init__(self) -> None:
        if isinstance(self.gamma, str) and self.gamma != BOUNDED:
            raise OptionError(f"gamma={self.gamma!r}, expected 'bounded' or nothing for the method 'soad'")

    def check(self, like: Tensor) -> None:
        """Raise `OptionError` if an operator is not linear with orthogonal rows."""
        self._rows(like)

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""
        if isinstance(self.gamma, ModalCovariance):
            covariance = self.gamma
            return through_network(self.denoiser, z, r, lambda xhat: self._slope(xhat, covariance, r))
        networks = list(zip(self.observations, self._rows(z), strict=True))

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            return [o.weigh(i, rows.variance(o.scale, r)) for (o, rows), i in zip(networks, innovations, strict=True)]

        return through_network(self.denoiser, z, r, lambda xhat: weighted_slope(self.observations, xhat, weigh))

    def pin(self, z: Tensor, r: float, noise: Callable[[], Tensor]) -> Tensor:
        """The forward-diffusion corrector; where networks see the same, the later in the list has the last word.

        Parameters
        ----------
        z, r
            States (batch, time, channel, *space) and their noise level.
        noise
            Returns standard normal noise of the shape of z.
        """
        for network, rows in zip(self.observations, self._rows(z), strict=True):
            if not self.corrector or r**2 <= rows.ratio.min():
                continue
            around = Linearised(network.operator, z)
            missing = (network.values - around.value) / rows.norm
            fresh = around.forward(noise()) / rows.norm
            z = z + around.adjoint(rows.pinned(missing, fresh, r) / rows.norm)
        return z

    def _slope(self, xhat: Tensor, covariance: ModalCovariance, r: float) -> Tensor:
        around, weights = modal_weigh(self.observations, self.linear(xhat), xhat, covariance, r)
        return around.adjoint(weights)

    def _rows(self, like: Tensor) -> list[_Rows]:
        if "_found" not in self.__dict__:
            object.__setattr__(self, "_found", [_Rows.of(o, like) for o in self.observations])
        found: list[_Rows] = self.__dict__["_found"]
        return found


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
