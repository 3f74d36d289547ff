"""Held-out windows before noise and after denoising."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import GaussianChain

from sdaxr.prior.held_out import HeldOut


def test_levels_are_evenly_spaced_in_their_logarithm() -> None:
    held_out = HeldOut.of(lambda z, r: z, torch.zeros(2, 3, 1), (0.001, 10**3.5))
    assert held_out.levels == pytest.approx([10 ** (-3 + i / 2) for i in range(14)])
    assert held_out.denoised.shape == (14, 2, 3, 1)


def test_the_same_noise_grows_with_the_level() -> None:
    states = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    held_out = HeldOut.of(lambda z, r: z, states, (0.01, 10.0))
    noise = torch.stack([(z - states) / r for z, r in zip(held_out.denoised, held_out.levels, strict=True)])
    torch.testing.assert_close(noise, noise[-1:].expand_as(noise), rtol=1e-3, atol=1e-3)
    assert float(noise[0].std()) == pytest.approx(1, rel=0.3)


def test_there_is_no_noise_on_land() -> None:
    sea = torch.tensor([1.0, 0.0])
    held_out = HeldOut.of(lambda z, r: z, torch.ones(3, 4, 2), (0.01, 10.0), sea)
    assert not held_out.noise[..., 1].any() and not held_out.denoised[..., 1].any()
    torch.testing.assert_close(held_out.denoised[5, ..., 0], 1 + held_out.levels[5] * held_out.noise[..., 0])


@pytest.mark.parametrize("level", [0, 7, 13])
def test_errors_of_an_exact_denoiser_are_the_variance_given_z(level: int) -> None:
    chain = GaussianChain(6)
    states = torch.as_tensor(chain.draw(4000, 0))
    held_out = HeldOut.of(chain.denoise, states, (0.05, 20.0))
    r = held_out.levels[level]
    covariance = chain.covariance
    left = covariance - covariance @ np.linalg.solve(covariance + r**2 * np.eye(len(covariance)), covariance)
    found = float((held_out.denoised[level] - states).square().mean())
    assert found == pytest.approx(left.trace() / len(left), rel=0.05)
