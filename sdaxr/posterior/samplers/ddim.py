r"""First-order predictor: the exponential integrator and DDIM.

From level r to r' < r, the predictor of Rozet & Louppe (2023, equation 5: the exponential integrator) is
:math:`z' = \hat x + (r' / r) (z - \hat x)`, which is exact where :math:`\hat x` does not change on the way. With
:math:`\eta > 0`, a part of the noise is drawn anew (DDIM, Song et al. 2021, equation 16):

.. math:: z' = \hat x + \sqrt{r'^2 - s^2} / r\,(z - \hat x) + s \epsilon, \qquad s = \eta (r' / r) \sqrt{r^2 - r'^2}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.predictor_corrector import Noise, Predictor
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class DDIM(Sampler):
    r"""Of first order (Song et al. 2021, arXiv:2010.02502).

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, stride
        As in `Sampler`.
    eta
        Part of the noise that is drawn anew at each step, 0 (deterministic) to 1 (ancestral sampling).
    """

    eta: float = 0.0

    name: ClassVar[str] = "ddim"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise OptionError(f"eta={self.eta}, expected 0 to 1 for the sampler 'ddim'; 'sde-dpm++' takes more")

    def predictor(self) -> Predictor:
        """DDIM with this amount of noise."""
        return DDIMStep(self.eta)


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling: DDIM with all of the noise (Song et al. 2021, arXiv:2010.02502).

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, stride
        As in `Sampler`.
    """

    grid: str = "karras"
    corrections: int = 1

    name: ClassVar[str] = "ancestral"

    def predictor(self) -> Predictor:
        """DDIM with all of the noise drawn anew."""
        return DDIMStep(1.0)


@dataclass(frozen=True)
class DDIMStep:
    """First-order step.

    Attributes
    ----------
    eta
        Part of the noise that is drawn anew: 0 is the exponential integrator, 1 ancestral sampling.
    """

    eta: float = 0.0

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """From level ``r`` to ``after``."""
        del slope
        fresh = self.eta * after / r * math.sqrt(r**2 - after**2)
        moved = xhat + math.sqrt(after**2 - fresh**2) / r * (z - xhat)
        return moved + fresh * noise() if fresh else moved
