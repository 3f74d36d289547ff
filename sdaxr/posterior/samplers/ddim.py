r"""First-order predictor: the exponential integrator and DDIM.

.. math:: z' = \hat x + \frac{\sqrt{r'^2 - s^2}}{r} (z - \hat x) + s \epsilon, \qquad
          s = \eta \frac{r'}{r} \sqrt{r^2 - r'^2}, \qquad \epsilon \sim N(0, I)

is the step from the noise level r to r' < r, with :math:`\hat x = E[x | z]` (DDIM, Song et al. 2021, equation 16,
arXiv:2010.02502). A part of the noise, of standard deviation s, is drawn anew. With :math:`\eta = 0` this is the
exponential integrator, :math:`z' = \hat x + (r' / r) (z - \hat x)` (Rozet & Louppe 2023, equation 5, arXiv:2306.10574).
The exponential integrator is exact where :math:`\hat x` does not change along the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.predictor_corrector import Noise, Predictor
from sdaxr.schema import OptionError
from sdaxr.states.validation import Few


@dataclass(frozen=True)
class DDIM(Sampler):
    r"""First-order sampler with any amount of new noise: DDIM (Song et al. 2021, equation 16, arXiv:2010.02502).

    .. math:: z' = \hat x + \frac{\sqrt{r'^2 - s^2}}{r} (z - \hat x) + s \epsilon, \qquad
              s = \eta \frac{r'}{r} \sqrt{r^2 - r'^2}

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, mixing, stride
        As in `Sampler`.
    eta
        Amount of noise that is drawn anew at each step, from 0 (deterministic) to 1 (ancestral sampling).
    """

    eta: float = 0.0

    name: ClassVar[str] = "ddim"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise OptionError(
                f"eta={self.eta}, expected 0 to 1 for the sampler 'ddim'; take 'sde-dpm++' for more noise"
            )

    def predictor(self) -> Predictor:
        """The step of DDIM with this ``eta``."""
        return DDIMStep(self.eta)


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling: DDIM with eta = 1 (Song et al. 2021, arXiv:2010.02502).

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, mixing, stride
        As in `Sampler`.
    """

    grid: str = "karras"
    corrections: Few = 1

    name: ClassVar[str] = "ancestral"

    def predictor(self) -> Predictor:
        """The step of DDIM with eta = 1."""
        return DDIMStep(1.0)


@dataclass(frozen=True)
class DDIMStep:
    """First-order step.

    Attributes
    ----------
    eta
        Amount of noise that is drawn anew: 0 is the exponential integrator, 1 is ancestral sampling.
    """

    eta: float = 0.0

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """Step from the noise level ``r`` to ``after``; all states have the shape of z."""
        del slope
        fresh = self.eta * after / r * math.sqrt(r**2 - after**2)
        moved = xhat + math.sqrt(after**2 - fresh**2) / r * (z - xhat)
        return moved + fresh * noise() if fresh else moved
