"""What samplers have in common: the noise levels, the corrections, and how often a sample is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import GRIDS, levels_of
from sdaxr.posterior.samplers.predictor_corrector import Corrector, Predictor, PredictorCorrector
from sdaxr.schema import OptionError, nearest
from sdaxr.states.registry import Options


@dataclass(frozen=True)
class Sampler(Options, ABC):
    """A way from noise to a sample; its fields are its options.

    A new sampler is a subclass in a file of its own and a line in `sdaxr.samplers`. The defaults are measured in
    ``recipes/samplers`` and ``recipes/lorenz63``.

    Parameters
    ----------
    steps
        Number of noise levels.
    grid
        How the noise levels are spaced: ``"karras"`` (dense at high noise; Karras et al. 2022, equation 5,
        arXiv:2206.00364), ``"log-snr"`` (even in their logarithm) or ``"uniform"`` (the times of Rozet & Louppe 2023).
    corrections
        Langevin corrections on each noise level from ``above`` to ``below``.
    tau
        Time of each correction: the noise forgets the part 1 - exp(-tau) of its value.
    above, below
        Smallest and largest noise level with corrections, in standard deviations of the prior.
    largest, smallest
        Bounds of the noise levels r, within those that the prior was trained for.
    attempts
        How often a member is drawn that ends where the observations exclude it; the nearest draw is kept.
    stride
        Of priors with a network on windows: states from one window to the next. 1 is the composition of Rozet & Louppe
        (2023); the length of the window evaluates no state twice; see `sdaxr.prior.blanket`.
    """

    steps: int = 32
    grid: str = "log-snr"
    corrections: int = 3
    tau: float = 0.5
    above: float = 0.1
    below: float = 3.0
    largest: float = 80.0
    smallest: float = 0.0
    attempts: int = 3
    stride: int = 1

    name: ClassVar[str] = ""
    # Largest noise that a component of z may be found to have, in standard deviations; see `PredictorCorrector`.
    limit: ClassVar[float] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid not in GRIDS:
            raise OptionError(f"grid={nearest(self.grid, GRIDS)}")
        least = {"steps": 1, "corrections": 0, "tau": 0, "attempts": 1, "stride": 1, "largest": 0, "smallest": 0}
        for key, bound in least.items():
            if getattr(self, key) < bound:
                raise OptionError(f"{key}={getattr(self, key)}, expected at least {bound}")

    def build(self, levels: tuple[float, float]) -> PredictorCorrector:
        """The algorithm for a prior that was trained on these noise levels, the smallest and the largest."""
        grid = levels_of(self.grid, self.steps, min(self.largest, levels[1]), max(self.smallest, levels[0]))
        return PredictorCorrector(grid, self.predictor(), self.corrector(), self.limit)

    @abstractmethod
    def predictor(self) -> Predictor:
        """The step from each noise level to the next."""

    def corrector(self) -> Corrector:
        """What is done on each noise level."""
        return LangevinCorrector(self.corrections, self.tau, self.above, self.below)
