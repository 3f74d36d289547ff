"""Settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdaxr.prior.preconditioning import PARAMETERISATIONS
from sdaxr.prior.weighting import WEIGHTINGS
from sdaxr.schema import OptionError, nearest


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run does; two runs with equal settings can be resumed as one."""

    window: int
    shortest: int
    network: str
    network_options: dict[str, Any]
    parameterisation: str
    steps: int | None
    minutes: float | None
    batch: int
    learning_rate: float
    weight_decay: float
    ema: float
    levels: tuple[float, float]
    weighting: str
    precision: str
    homogeneous: tuple[str, ...]
    symmetries: tuple[Mapping[str, Any], ...]
    seed: int
    data: dict[str, Any] = field(default_factory=dict)
    layout: dict[str, Any] = field(default_factory=dict)

    def check(self, windowed: bool) -> None:
        """Raise `OptionError` if a setting is impossible; ``windowed`` priors take windows of one length only."""
        if self.parameterisation not in PARAMETERISATIONS:
            raise OptionError(f"parameterisation={nearest(self.parameterisation, PARAMETERISATIONS)}")
        if self.weighting not in WEIGHTINGS:
            raise OptionError(f"weighting={nearest(self.weighting, WEIGHTINGS)}")
        if not 1 <= self.shortest <= self.window or (windowed and self.shortest < self.window):
            what = "the window itself for priors of windows of one length" if windowed else "1 to the window"
            raise OptionError(f"shortest={self.shortest}, expected {what} ({self.window})")
        if self.window < 1 or (windowed and self.window % 2 == 0):
            raise OptionError(
                f"window={self.window}, expected an odd number 2k + 1 for {self.network!r}, {self.parameterisation!r}"
            )
        for key in ("steps", "minutes", "batch", "learning_rate"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise OptionError(f"{key}={value}, expected a positive number")
