"""Weighted members: their steps against the densities, and what resampling keeps."""

from __future__ import annotations

import math

import pytest
import torch
from sampled import draws

from sdaxr.posterior.samplers.particles import Particles, transition


def test_the_ratio_of_a_transition_is_that_of_its_densities() -> None:
    z, xhat, pull, eps = (draws(seed, 5)() for seed in range(4))
    zero = torch.zeros(5, dtype=torch.float64)
    now = Particles(z, xhat, 0.3 * pull, zero, zero, torch.arange(5))
    r, after = 2.0, 1.7
    moved, log_ratio = transition(now, r, after, eps)
    kept = (after / r) ** 2
    scale = after * math.sqrt(1 - kept)

    def log_density(mean: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Normal(mean, scale).log_prob(moved).flatten(1).sum(1)

    guided = xhat + 0.3 * pull
    expected = log_density(xhat + kept * (z - xhat)) - log_density(guided + kept * (z - guided))
    torch.testing.assert_close(log_ratio, expected)


def test_resampling_keeps_what_weighs_and_who_descends_from_whom() -> None:
    weights = torch.tensor([0.5, 0.125, 0.0, 0.375], dtype=torch.float64)
    z = torch.arange(4.0, dtype=torch.float64)[:, None, None]
    now = Particles(z, z, z, z[:, 0, 0], weights.log(), torch.tensor([0, 1, 2, 1]))
    assert now.evenness == pytest.approx(1 / (0.25 + 0.125**2 + 0.375**2) / 4)
    assert now.effective == pytest.approx(1 / (0.25 + 0.25))
    chosen = now.resampled(0.3, 8)
    assert chosen.z.flatten().tolist() == [0, 0, 0, 0, 1, 3, 3, 3] and chosen.evenness == 1
    assert chosen.founder.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
