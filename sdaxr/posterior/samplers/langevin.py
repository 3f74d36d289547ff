r"""Langevin corrections: moves within one noise level, whose density they leave as it is for small steps.

.. math:: z \leftarrow z + d\,s + \sqrt{2 d}\,\epsilon, \qquad s = \nabla \log p(z) = (\hat x - z) / r^2

The variance of z in each direction becomes too large by about d / 2. `Langevin` takes :math:`d = \tau r^2`: a part of
the noise of that level, which the steps after it take out. `ScoreLangevin` is the paper's,
:math:`d = \tau \dim(z) / |s|^2`. This is a mean over all directions, at small r much more than :math:`r^2`, and too
much for those in which the data vary least (the noise of a nearly deterministic chain). As it depends on z, the
covariance is also inflated by about 2 / dim(z), which matters for very short state vectors only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.samplers.sampler import Noise


@dataclass(frozen=True)
class Langevin:
    r"""Steps of :math:`d = \tau r^2`.

    Attributes
    ----------
    count
        Corrections a level.
    tau
        Their step.
    above, below
        Smallest and largest level that is corrected: around the standard deviation of the prior, where guidance is
        least exact and z still moves freely. Below, such steps are too long for what the data vary least in.
    """

    count: int = 0
    tau: float = 0.5
    above: float = 0.1
    below: float = 3.0

    def corrections(self, r: float) -> int:
        """How many there are at level ``r``."""
        return self.count if self.above <= r <= self.below else 0

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """One correction at level ``r``."""
        return z + self.tau * (xhat - z) + math.sqrt(2 * self.tau) * r * noise()


@dataclass(frozen=True)
class ScoreLangevin:
    r"""Steps of :math:`d = \tau \dim(z) / |s|^2` at every level (Rozet & Louppe 2023).

    Attributes
    ----------
    count
        Corrections a level.
    tau
        Their step.
    """

    count: int = 0
    tau: float = 0.5

    def corrections(self, r: float) -> int:
        """How many there are at level ``r``."""
        return self.count if r > 0 else 0

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """One correction at level ``r``."""
        score = (xhat - z) / r**2
        power = score.square().flatten(1).mean(dim=1).clamp_min(1e-20)
        step = (self.tau / power).reshape(-1, *[1] * (z.ndim - 1))
        return z + step * score + (2 * step).sqrt() * noise()
