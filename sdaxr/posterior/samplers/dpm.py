r"""Second-order multistep predictor: DPM-Solver++(2M) and its stochastic form (Lu et al. 2022).

With :math:`\lambda = -\log r`, z follows for every :math:`\eta` (Karras et al. 2022, equation 6: a Langevin diffusion
is added to the flow)

.. math:: dz = (1 + \eta^2) (\hat x - z)\, d\lambda + \sqrt{2} \eta r\, dw,

which an exponential integrator solves for z, given :math:`\hat x` at the middle of the step. One evaluation a step is
enough to extrapolate it there, :math:`\hat x_{1/2} = \hat x + (h / 2)\, d \hat x / d \lambda`, with the slope along
the step before:

.. math:: z' = \hat x_{1/2} + e^{-(1 + \eta^2) h} (z - \hat x_{1/2}) + r' \sqrt{1 - e^{-2 \eta^2 h}}\, \epsilon,
          \qquad h = \log(r / r').

Without noise the samples keep every error of the guidance at large r; noise forgets it, as Langevin corrections do,
at no evaluation more. At levels above the standard deviation of the prior it has nothing to correct and only makes the
equation stiffer, so that it begins at r = 1.
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
class SDEDPMSolver(Sampler):
    r"""Stochastic and of second order: SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095).

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, stride
        As in `Sampler`.
    eta
        Amount of noise that is drawn anew below the standard deviation of the prior, from 0 on. More noise forgets more
        errors of the guidance, and needs more levels.
    """

    eta: float = 1.0

    name: ClassVar[str] = "sde-dpm++"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta < math.inf:
            raise OptionError(f"eta={self.eta}, expected a number from 0 on for the sampler 'sde-dpm++'")

    def predictor(self) -> Predictor:
        """The stochastic step."""
        return DPMStep(self.eta)


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """Deterministic and of second order: DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095).

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, stride
        As in `Sampler`.
    """

    name: ClassVar[str] = "dpm++"

    def predictor(self) -> Predictor:
        """The deterministic step."""
        return DPMStep(0.0)


@dataclass(frozen=True)
class DPMStep:
    """Second-order step.

    Attributes
    ----------
    eta
        Amount of noise: 0 is DPM-Solver++(2M), 1 SDE-DPM-Solver++(2M); more is possible.
    below
        Largest level with noise.
    """

    eta: float = 0.0
    below: float = 1.0

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """From level ``r`` to ``after``; the first step is of first order, the last one to zero gives ``xhat``."""
        if after == 0:
            return xhat
        step = math.log(r / after)
        middle = xhat if slope is None else xhat + step / 2 * slope
        eta = self.eta if r <= self.below else 0.0
        moved = middle + math.exp(-(1 + eta**2) * step) * (z - middle)
        return moved + after * math.sqrt(-math.expm1(-2 * eta**2 * step)) * noise() if eta else moved
