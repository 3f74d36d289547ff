r"""Langevin corrections: moves within one noise level, whose density they leave as it is for small steps.

.. math:: dz = (\hat x - z)\, dt + \sqrt{2} r\, dw, \qquad \nabla \log p(z) = (\hat x - z) / r^2

`LangevinCorrector` solves it over a time :math:`\tau` with :math:`\hat x` held fixed, which is an Ornstein-Uhlenbeck
process:

.. math:: z \leftarrow \hat x + e^{-\tau} (z - \hat x) + \sqrt{1 - e^{-2 \tau}} r \epsilon .

A part of the noise of that level is drawn anew, and its variance stays :math:`r^2` in every direction that prior and
observations determine, for every :math:`\tau`. Euler's step, with :math:`\sqrt{2 \tau} r \epsilon`, makes it too large
by :math:`\tau / 2` of itself there, and the denoiser sees states noisier than r says. In directions of which little is
known the variance becomes too small by half of :math:`1 - e^{-\tau}` after many steps, but z hardly moves along these.

`ScoreLangevinCorrector` is the paper's, :math:`z + d\,s + \sqrt{2 d}\,\epsilon` with :math:`d = \tau \dim(z) / |s|^2`.
This is a mean over all directions, at small r much more than :math:`r^2`, and too much for those in which the data vary
least (the noise of a nearly deterministic chain). As it depends on z, the covariance is also inflated by about 2 /
dim(z), which matters for very short state vectors only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.samplers.predictor_corrector import Noise


@dataclass(frozen=True)
class LangevinCorrector:
    r"""Steps of a time :math:`\tau`, in which the noise forgets :math:`1 - e^{-\tau}` of itself.

    Attributes
    ----------
    count
        Corrections a level.
    tau
        Time of each.
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
        kept = math.exp(-self.tau)
        return xhat + kept * (z - xhat) + math.sqrt(1 - kept**2) * r * noise()


@dataclass(frozen=True)
class ScoreLangevinCorrector:
    r"""Steps of :math:`d = \tau \dim(z) / |s|^2` (Rozet & Louppe 2023).

    Attributes
    ----------
    count
        Corrections a level.
    tau
        Their step.
    above, below
        Smallest and largest level that is corrected.
    """

    count: int = 0
    tau: float = 0.5
    above: float = 0.0
    below: float = math.inf

    def corrections(self, r: float) -> int:
        """How many there are at level ``r``."""
        return self.count if r > 0 and self.above <= r <= self.below else 0

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """One correction at level ``r``."""
        score = (xhat - z) / r**2
        power = score.square().flatten(1).mean(dim=1).clamp_min(1e-20)
        step = (self.tau / power).reshape(-1, *[1] * (z.ndim - 1))
        return z + step * score + (2 * step).sqrt() * noise()
