"""Options of samplers become levels, steps and corrections."""

from __future__ import annotations

import pytest

from sdaxr.posterior.samplers.ddim import DDIM, Ancestral, DDIMStep
from sdaxr.posterior.samplers.dpm import DPMSolver, DPMStep, SDEDPMSolver
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import karras_levels, log_snr_levels


@pytest.mark.parametrize(
    ("sampler", "step"),
    [
        (SDEDPMSolver(eta=0.5), DPMStep(0.5)),
        (DPMSolver(), DPMStep(0.0)),
        (Ancestral(), DDIMStep(1.0)),
        (DDIM(eta=0.3), DDIMStep(0.3)),
    ],
)
def test_each_has_its_step(sampler, step) -> None:
    assert sampler.build((0.01, 80.0)).predictor == step


def test_options_reach_the_algorithm() -> None:
    sampler = SDEDPMSolver(steps=7, corrections=2, tau=0.4, above=0.2, below=5.0, largest=20.0, smallest=0.05)
    built = sampler.build((0.01, 80.0))
    assert built.levels == log_snr_levels(7, 20.0, 0.05)
    assert built.corrector == LangevinCorrector(2, 0.4, 0.2, 5.0) and built.limit == 8.0
    assert Ancestral(steps=5).build((0.01, 80.0)).levels == karras_levels(5, 80.0, 0.01)
