"""Options that all samplers share: noise levels, corrections, attempts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import GRIDS
from sdaxr.posterior.samplers.predictor_corrector import Algorithm, Corrector, Predictor, PredictorCorrector
from sdaxr.schema import OptionError, nearest
from sdaxr.states.registry import Options
from sdaxr.states.validation import Count, Few, Levels, NotNegative

# Noise level at which sampling begins: noise of 80 standard deviations hides the states.
LARGEST = 80.0

# A power of the approximate likelihood, function of the noise level r.
Power = Callable[[float], float]


def always(r: float) -> float:
    """The power 1 at every noise level."""
    del r
    return 1.0


@dataclass(frozen=True)
class Sampler(Options, ABC):
    """An algorithm that turns noise into a sample; its fields are its options.

    A new sampler is a subclass in a file of its own and a line in `sdaxr.samplers`. The defaults follow from the
    measurements in ``recipes/samplers`` and ``recipes/lorenz63``.

    Parameters
    ----------
    steps
        Number of noise levels above zero; the uniform grid has one more.
    grid
        Spacing of the noise levels: ``"log-snr"`` (uniform in log r), ``"karras"`` (steps of log r are short at high
        noise and long at low noise; Karras et al. 2022, equation 5, arXiv:2206.00364) or ``"uniform"`` (uniform in the
        time of Rozet & Louppe 2023, arXiv:2306.10574, from r = 1000 to 0.001 whatever the bounds are).
    corrections
        Number of Langevin corrections on each noise level from ``above`` to ``below``.
    tau
        Time of a Langevin correction, without unit. A correction keeps the fraction exp(-tau) of the noise of a state,
        and draws the rest anew.
    above, below
        Smallest and largest noise level with corrections, in standard deviations of the prior.
    largest, smallest
        Bounds of the noise levels r, in standard deviations of the prior. Levels beyond those of the training are not
        used. The uniform grid has bounds of its own. Without ``largest`` sampling begins at 80, or where the noise is
        larger than the leading EOF of the prior (`sdaxr.prior.eofs`).
    attempts
        Most draws of a member whose sample is excluded by the observations; the nearest draw is kept. A forecast draws
        once.
    mixing
        Whether all members are drawn again, by `Twisted`, where they disagree about the mode (`sdaxr.posterior.modes`).
    stride
        For priors with a network on windows: number of states from one window to the next. 1 is the composition of
        Rozet & Louppe (2023). With the length of the window, no state is evaluated twice. See `sdaxr.prior.blanket`.
    """

    steps: Levels = 32
    grid: str = "log-snr"
    corrections: Few = 3
    tau: NotNegative = 0.5
    above: float = 0.1
    below: float = 3.0
    largest: NotNegative | None = None
    smallest: NotNegative = 0.0
    attempts: Few = 3
    mixing: bool = True
    stride: Count = 1

    name: ClassVar[str] = ""
    # Whether the members of an ensemble depend on each other.
    together: ClassVar[bool] = False
    # Options that may be reduced to save evaluations, the first one first; and their least values.
    spared: ClassVar[Mapping[str, int]] = {"corrections": 0, "steps": 2}
    # Bound of |z - xhat| / r for each component, see `PredictorCorrector`. Normal noise exceeds 8 standard deviations
    # with a probability of 1e-15.
    limit: ClassVar[float] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid not in GRIDS:
            raise OptionError(f"grid={nearest(self.grid, GRIDS)}")
        self.expect("attempts", self.attempts > 0, "at least one")
        if self.above > self.below:
            raise OptionError(f"above={self.above} and below={self.below}, expected above to be the smaller level")

    def build(
        self, levels: tuple[float, float], *, hidden: float = 0.0, power: Callable[[], Power] = lambda: always
    ) -> Algorithm:
        """The algorithm for a prior, see `noise_levels`.

        ``power`` returns the power of the approximate likelihood, for samplers that weight members with it.
        """
        del power
        grid = self.noise_levels(levels, hidden)
        return PredictorCorrector(grid, self.predictor(), self.corrector(), self.limit)

    def noise_levels(self, levels: tuple[float, float], hidden: float = 0.0) -> tuple[float, ...]:
        """The noise levels; ``levels`` are the smallest and the largest noise level of the training of a prior.

        Where ``largest`` is not given, sampling begins at 80, or at the level ``hidden`` where this is larger.

        Raises
        ------
        OptionError
            If no noise level of the training is from ``smallest`` to ``largest``.
        """
        first = max(LARGEST, hidden) if self.largest is None else self.largest
        largest, smallest = min(first, levels[1]), max(self.smallest, levels[0])
        if largest <= smallest:
            raise OptionError(
                f"largest={self.largest} and smallest={self.smallest}, expected levels between {levels[0]:g} and "
                f"{levels[1]:g}, where the prior is trained, and largest above smallest"
            )
        return GRIDS[self.grid](self.steps, largest, smallest)

    def within(self, evaluations: float, **levels: Any) -> Sampler:
        """The sampler with options so reduced that a sample takes at most ``evaluations``, on levels as in `build`."""
        found = self
        for key, least in self.spared.items():
            while getattr(found, key) > least and found.build(**levels).evaluations > evaluations:
                found = replace(found, **{key: getattr(found, key) - 1})
        return found

    @abstractmethod
    def predictor(self) -> Predictor:
        """The step from each noise level to the next."""

    def corrector(self) -> Corrector:
        """The corrections on each noise level."""
        return LangevinCorrector(self.corrections, self.tau, self.above, self.below)


def refuse_together(sampler: Sampler, what: str) -> None:
    """Raise `OptionError` if the sampler draws members together, for a task whose members have other observations."""
    if sampler.together:
        raise OptionError(
            f"sampler={sampler.name!r} draws members together given the same observations, found {what}; take another "
            "sampler, such as 'sde-dpm++'"
        )
