r"""First-order predictor: the exponential integrator and DDIM.

From level r to r' < r, the predictor of Rozet & Louppe (2023, equation 5: the exponential integrator) is
:math:`z' = \hat x + (r' / r) (z - \hat x)`, which is exact where :math:`\hat x` does not change on the way. With
:math:`\eta > 0`, a part of the noise is drawn anew (DDIM, Song et al. 2021, equation 16):

.. math:: z' = \hat x + \sqrt{r'^2 - s^2} / r\,(z - \hat x) + s \epsilon, \qquad s = \eta (r' / r) \sqrt{r^2 - r'^2}
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdaxr.posterior.samplers.sampler import Noise


@dataclass(frozen=True)
class DDIM:
    """First-order step.

    Attributes
    ----------
    eta
        Share of the noise that is drawn anew: 0 is the exponential integrator, 1 ancestral sampling.
    """

    eta: float = 0.0

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """From level ``r`` to ``after``."""
        fresh = self.eta * after / r * math.sqrt(r**2 - after**2)
        moved = xhat + math.sqrt(after**2 - fresh**2) / r * (z - xhat)
        return moved + fresh * noise() if fresh else moved
