"""Noise of members."""

from __future__ import annotations

import torch

from sdaxr.posterior.samplers.noise import member_noise


def test_noise_of_members_does_not_depend_on_the_batch() -> None:
    noise, alone = member_noise(3, [4, 7], (5, 2), "cpu"), member_noise(3, [7], (5, 2), "cpu")
    for _ in range(3):
        assert torch.equal(noise()[1], alone()[0])
    other = member_noise(4, [7], (5, 2), "cpu")
    assert not torch.equal(other(), member_noise(3, [7], (5, 2), "cpu")())
