r"""The sampler of Rozet & Louppe (2023, section 4, arXiv:2306.10574).

The exponential integrator of the reverse equation is DDIM without noise (`sdaxr.posterior.samplers.ddim`); corrections
are Langevin steps of the score on every level (`sdaxr.posterior.samplers.langevin`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.langevin import ScoreLangevinCorrector
from sdaxr.posterior.samplers.predictor_corrector import Corrector, Predictor


@dataclass(frozen=True)
class Exponential(Sampler):
    """The paper's predictor and corrector on the paper's times (Rozet & Louppe 2023, arXiv:2306.10574).

    With ``SDA(variance=Scalar(1e-2))`` this is the paper's setting as a whole; `sdaxr.samplers.PAPER` is this object.

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, stride
        As in `Sampler`; ``tau`` is that of the paper, d = tau dim(s) / |s|^2.
    """

    steps: int = 256
    grid: str = "uniform"
    corrections: int = 1
    above: float = 0.0
    below: float = math.inf
    attempts: int = 1

    name: ClassVar[str] = "exponential"
    limit: ClassVar[float] = math.inf

    def predictor(self) -> Predictor:
        """DDIM without noise."""
        return DDIMStep(0.0)

    def corrector(self) -> Corrector:
        """Langevin steps of the score."""
        return ScoreLangevinCorrector(self.corrections, self.tau, self.above, self.below)
