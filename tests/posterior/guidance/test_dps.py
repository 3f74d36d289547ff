"""Diffusion posterior sampling: steps of a given length against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenarios import CHAIN, draws, matrix_observation, scenario

from sdaxr.posterior.guidance.dps import DPS
from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import karras_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector


def test_dps_moves_towards_the_observations() -> None:
    matrix, y, error, _ = scenario("partial")
    observed = matrix_observation(matrix, y, error)
    sampler = PredictorCorrector(karras_levels(64, 20.0, 0.02), DDIMStep(1.0), LangevinCorrector())
    samples = {
        zeta: sampler(DPS(zeta=zeta).guide(CHAIN.denoise, [observed]), draws(12, members=200)) for zeta in (0.0, 3.0)
    }
    residual = {zeta: float(observed.innovation(x).square().mean().sqrt()) for zeta, x in samples.items()}
    assert residual[0.0] > 0.8
    assert residual[3.0] < residual[0.0] / 2
    torch.testing.assert_close(samples[0.0], sampler(CHAIN.denoise, draws(12, members=200)))


def test_dps_step_is_normalised_for_each_member() -> None:
    """-zeta d|e|^2/dz / |e| against finite differences, and a member does not see the others of its batch."""
    matrix, y, error, _ = scenario("noisy")
    observed = replace(matrix_observation(matrix, y, error), scale=torch.full((len(y),), 2.0, dtype=torch.float64))
    guided = DPS(zeta=0.7).guide(CHAIN.denoise, [observed])
    z, r = draws(13, members=3)(), 0.8
    together = guided(z, r)
    for i in range(3):
        torch.testing.assert_close(together[i], guided(z[i : i + 1], r)[0], rtol=1e-12, atol=1e-12)

    def norm(z: torch.Tensor) -> float:
        return float((observed.innovation(CHAIN.denoise(z, r)) / 2).square().sum().sqrt())

    step = torch.zeros_like(z[:1])
    step[0, 3, 1] = 1e-5
    slope = (norm(z[:1] + step) ** 2 - norm(z[:1] - step) ** 2) / 2e-5
    expected = CHAIN.denoise(z[:1], r)[0, 3, 1] - r**2 * 0.7 * slope / norm(z[:1])
    assert float(together[0, 3, 1]) == pytest.approx(float(expected), rel=1e-6)
