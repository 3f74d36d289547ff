r"""Langevin corrections: moves at one noise level r, which leave p(z) unchanged in the limit of small steps.

.. math:: dz = (\hat x - z)\, dt + \sqrt{2} r\, dw, \qquad \nabla \log p(z) = s = (\hat x - z) / r^2

`LangevinCorrector` solves this equation over a time :math:`\tau` with a fixed :math:`\hat x`. The solution is an
Ornstein-Uhlenbeck process (Uhlenbeck & Ornstein 1930, doi:10.1103/PhysRev.36.823):

.. math:: z \leftarrow \hat x + e^{-\tau} (z - \hat x) + \sqrt{1 - e^{-2 \tau}}\, r \epsilon .

A part of the noise is drawn anew. In every direction in which prior and observations determine :math:`\hat x`, the
variance of the noise remains :math:`r^2` for every :math:`\tau`. In these directions an Euler step, with the noise
:math:`\sqrt{2 \tau}\, r \epsilon`, would make the variance too large by the fraction :math:`\tau / 2`, and the denoiser
would see states with more noise than r. In directions of which little is known, the variance becomes too small by the
fraction :math:`(1 - e^{-\tau}) / 2` after many steps; z hardly moves along these directions.

`ScoreLangevinCorrector` is the corrector of Rozet & Louppe (2023, arXiv:2306.10574),

.. math:: z \leftarrow z + d\,s + \sqrt{2 d}\,\epsilon, \qquad d = \tau \frac{\dim(z)}{|s|^2} .

The step d follows from the mean of the squared score over all directions. At small r it is much larger than
:math:`\tau r^2`, and too large for the directions in which the data vary least (the noise of a nearly deterministic
chain). Because d depends on z, the covariance is also inflated by a fraction of about 2 / dim(z), which matters for
very short state vectors only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.samplers.predictor_corrector import Noise


@dataclass(frozen=True)
class LangevinCorrector:
    r"""Langevin steps of the time :math:`\tau`; each keeps the fraction :math:`e^{-\tau}` of the noise.

    Attributes
    ----------
    count
        Number of corrections on a noise level.
    tau
        Time of a correction, without unit.
    above, below
        Smallest and largest noise level with corrections. Corrections help around the standard deviation of the prior:
        there, guidance is least exact and z still moves freely. At lower noise levels the steps are too long for the
        directions in which the data vary least.
    """

    count: int = 0
    tau: float = 0.5
    above: float = 0.1
    below: float = 3.0

    def corrections(self, r: float) -> int:
        """Number of corrections at the noise level ``r``."""
        return self.count if r > 0 and self.above <= r <= self.below else 0

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """One correction at the noise level ``r``; all states have the shape of z."""
        kept = math.exp(-self.tau)
        return xhat + kept * (z - xhat) + math.sqrt(1 - kept**2) * r * noise()


@dataclass(frozen=True)
class ScoreLangevinCorrector(LangevinCorrector):
    r"""Langevin steps of the size :math:`d = \tau \dim(z) / |s|^2` (Rozet & Louppe 2023, arXiv:2306.10574).

    Attributes
    ----------
    count, above, below
        As in `LangevinCorrector`.
    tau
        Size of a step, without unit.
    """

    def __call__(self, z: Tensor, xhat: Tensor, r: float, noise: Noise) -> Tensor:
        """One correction at the noise level ``r``; all states have the shape of z."""
        score = (xhat - z) / r**2
        power = score.square().flatten(1).mean(dim=1).clamp_min(1e-20)
        step = (self.tau / power).reshape(-1, *[1] * (z.ndim - 1))
        return z + step * score + (2 * step).sqrt() * noise()
