"""The paper's sampler."""

from __future__ import annotations

import math

from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.exponential import Exponential
from sdaxr.posterior.samplers.langevin import ScoreLangevinCorrector
from sdaxr.posterior.samplers.levels import uniform_levels


def test_it_is_the_papers_setting() -> None:
    """256 steps on uniform times and one correction on every level (Rozet & Louppe 2023, section 4)."""
    built = Exponential().build((0.005, 60.0))
    assert built.levels == uniform_levels(256) and built.predictor == DDIMStep(0.0)
    assert built.corrector == ScoreLangevinCorrector(1, 0.5, 0.0, math.inf) and built.limit == math.inf
    assert built.corrector.corrections(1e3) == built.corrector.corrections(1e-3) == 1 and Exponential().attempts == 1


def test_corrections_may_be_left_to_some_levels() -> None:
    corrector = Exponential(above=0.1, below=3.0, corrections=2).build((0.005, 60.0)).corrector
    assert [corrector.corrections(r) for r in (5.0, 1.0, 0.05)] == [0, 2, 0]
