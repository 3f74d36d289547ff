r"""The sampler of Rozet & Louppe (2023, section 4, arXiv:2306.10574).

.. math:: z' = \hat x + \frac{r'}{r} (z - \hat x), \qquad z \leftarrow z + d\,s + \sqrt{2 d}\,\epsilon, \qquad
          d = \tau \frac{\dim(z)}{|s|^2}

The predictor is the exponential integrator of the reverse diffusion, which is DDIM with :math:`\eta = 0`
(`sdaxr.posterior.samplers.ddim`). The corrections are Langevin steps with the score
:math:`s = (\hat x - z) / r^2` on every noise level (`sdaxr.posterior.samplers.langevin`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.langevin import ScoreLangevinCorrector
from sdaxr.posterior.samplers.predictor_corrector import Corrector, Predictor
from sdaxr.states.validation import Few, Levels


@dataclass(frozen=True)
class Exponential(Sampler):
    r"""The sampler of Rozet & Louppe (2023, section 4, arXiv:2306.10574).

    .. math:: z' = \hat x + \frac{r'}{r} (z - \hat x), \qquad z \leftarrow z + d\,s + \sqrt{2 d}\,\epsilon, \qquad
              d = \tau \frac{\dim(z)}{|s|^2}

    With ``SDA(variance=Scalar(1e-2))`` this is the complete setting of the paper. `sdaxr.samplers.PAPER` is this
    sampler with its defaults.

    Parameters
    ----------
    steps, grid, corrections, tau, above, below, largest, smallest, attempts, mixing, stride
        As in `Sampler`; ``tau`` is the :math:`\tau` of the formula.
    """

    steps: Levels = 256
    grid: str = "uniform"
    corrections: Few = 1
    above: float = 0.0
    below: float = math.inf
    attempts: Few = 1
    mixing: bool = False

    name: ClassVar[str] = "exponential"
    limit: ClassVar[float] = math.inf

    def predictor(self) -> Predictor:
        """The exponential integrator, DDIM with eta = 0."""
        return DDIMStep(0.0)

    def corrector(self) -> Corrector:
        """Langevin steps with the score."""
        return ScoreLangevinCorrector(self.corrections, self.tau, self.above, self.below)
