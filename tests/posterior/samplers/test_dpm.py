"""The multistep solver: its first step, its noise, and corrections after it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from sampled import CHAIN, PREDICTORS, SHAPE, draws, error_at_the_end

from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector


@pytest.mark.parametrize("name", ["exponential", "ancestral"])
def test_the_first_step_of_the_multistep_solver_is_the_one_of_first_order(name: str) -> None:
    eta = PREDICTORS[name].eta
    z, xhat, noise = draws(0, 3)(), draws(1, 3)(), draws(2, 3)()
    first = DDIMStep(eta)(z, xhat, None, 2.0, 1.4, lambda: noise)
    torch.testing.assert_close(DPMStep(eta, below=math.inf)(z, xhat, None, 2.0, 1.4, lambda: noise), first)
    torch.testing.assert_close(DDIMStep(0.0)(z, xhat, None, 2.0, 1.0, lambda: noise), (z + xhat) / 2)


def test_noise_is_drawn_below_its_largest_level_only() -> None:
    drawn = []

    def noise() -> torch.Tensor:
        drawn.append(None)
        return torch.ones(1, *SHAPE, dtype=torch.float64)

    levels = log_snr_levels(9, 16.0, 1 / 16)
    PredictorCorrector(levels, DPMStep(eta=1.0, below=1.0), LangevinCorrector())(CHAIN.denoise, noise)
    assert len(drawn) == 1 + sum(after > 0 and r <= 1 for r, after in pairwise(levels))
    drawn.clear()
    PredictorCorrector(levels, DPMStep(eta=0.0), LangevinCorrector())(CHAIN.denoise, noise)
    assert len(drawn) == 1


@pytest.mark.parametrize("name", ["dpm++", "sde-dpm++"])
def test_corrections_after_a_multistep_predictor_leave_the_density_where_it_is(name: str) -> None:
    """What remains with many levels is the excess of noise of the first correction, which the others remove."""
    for count, tau, most in ((1, 0.2, 0.03), (3, 0.5, 0.005)):
        corrector = LangevinCorrector(count, tau, below=math.inf)
        assert error_at_the_end(PREDICTORS[name], 100, corrector) < most
