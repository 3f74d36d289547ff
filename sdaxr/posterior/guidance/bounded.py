r"""Score-based data assimilation with a bounded variance.

.. math:: p(y | z) \approx N(y | H(\hat x), R + V), \qquad V = \frac{s^2 \gamma r^2}{s^2 + \gamma r^2}

for each observed quantity, in units of its natural scale (so that s = 1). At small r this is Rozet & Louppe's (2023)
:math:`\gamma r^2`; at large r it does not exceed what the prior leaves open, the prior's own variance. With
:math:`\gamma = 1` it is exact where the prior is white noise, and what Li, Dong & Zhang (2024) use; a prior that knows
more than that (a chaotic chain, whose neighbours in time tell where a state is) needs a much smaller :math:`\gamma`, or
the likelihood is too wide.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.guidance.base import Guidance, through_network, weighted_slope
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class Bounded(Guidance):
    """Denoiser of the posterior.

    Attributes
    ----------
    gamma
        Above 0; variance at small noise levels over r^2, in units of the natural scale.
    """

    gamma: float = 1.0

    method = "bounded"

    def __post_init__(self) -> None:
        if isinstance(self.gamma, str) or self.gamma <= 0:
            raise OptionError(f"gamma={self.gamma!r}, expected a number above 0 for the method 'bounded'")

    def mean(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y], of the shape of z (batch, time, channel, *space)."""

        def weigh(innovations: list[Tensor]) -> list[Tensor]:
            return [o.weigh(i, self._variance(o, r)) for o, i in zip(self.observations, innovations, strict=True)]

        return through_network(self.denoiser, z, r, lambda xhat: weighted_slope(self.observations, xhat, weigh))

    def _variance(self, network: GaussianObservation, r: float) -> Tensor:
        free = self.gamma * r**2
        return network.scale.square() * free / (1 + free)
