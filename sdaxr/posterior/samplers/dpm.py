r"""Second-order multistep predictor: DPM-Solver++(2M) and its stochastic form (Lu et al. 2022, arXiv:2211.01095).

With :math:`\lambda = -\log r` and :math:`\hat x = E[x | z]`, the reverse diffusion is, for every :math:`\eta`,

.. math:: dz = (1 + \eta^2) (\hat x - z)\, d\lambda + \sqrt{2} \eta r\, dw .

This is the probability flow (:math:`\eta = 0`) plus a Langevin diffusion (Karras et al. 2022, equation 6,
arXiv:2206.00364). An exponential integrator solves the equation for z, given :math:`\hat x` in the middle of the step.
There, :math:`\hat x` is extrapolated with its slope over the previous step, so that one evaluation a step is enough:

.. math:: \hat x_{1/2} = \hat x + \frac{h}{2} \frac{d \hat x}{d \lambda}, \qquad h = \log(r / r')

.. math:: z' = \hat x_{1/2} + e^{-(1 + \eta^2) h} (z - \hat x_{1/2}) + r' \sqrt{1 - e^{-2 \eta^2 h}}\, \epsilon .

Without noise, a sample keeps every error that guidance made at large r. New noise removes such errors, as Langevin
corrections do, without further evaluations. At noise levels above the standard deviation of the prior, noise has
nothing to correct and only makes the equation stiffer. Noise is therefore added at r <= 1 only.
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
    r"""Stochastic second-order sampler: SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095).

    .. math:: z' = \hat x_{1/2} + e^{-(1 + \eta^2) h} (z - \hat x_{1/2}) + r' \sqrt{1 - e^{-2 \eta^2 h}}\, \epsilon,
              \qquad h = \log(r / r')

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, mixing, stride
        As in `Sampler`.
    eta
        Amount of noise that is drawn anew at noise levels below the standard deviation of the prior; at least 0. More
        noise removes more errors of the guidance, and needs more noise levels.
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
    r"""Deterministic second-order sampler: DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095).

    .. math:: z' = \hat x_{1/2} + e^{-h} (z - \hat x_{1/2}), \qquad h = \log(r / r')

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, mixing, stride
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
        Amount of noise that is drawn anew: 0 is DPM-Solver++(2M), 1 is SDE-DPM-Solver++(2M); more is possible.
    below
        Largest noise level with new noise.
    """

    eta: float = 0.0
    below: float = 1.0

    def __call__(self, z: Tensor, xhat: Tensor, slope: Tensor | None, r: float, after: float, noise: Noise) -> Tensor:
        """Step from the noise level ``r`` to ``after``; all states have the shape of z.

        Without a slope the step is of first order. The step to zero returns ``xhat``.
        """
        if after == 0:
            return xhat
        step = math.log(r / after)
        middle = xhat if slope is None else xhat + step / 2 * slope
        eta = self.eta if r <= self.below else 0.0
        moved = middle + math.exp(-(1 + eta**2) * step) * (z - middle)
        return moved + after * math.sqrt(-math.expm1(-2 * eta**2 * step)) * noise() if eta else moved
