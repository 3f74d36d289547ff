"""Layers of the U-Nets."""

from __future__ import annotations

import pytest
import torch

from sdaxr.prior.networks.layers import Block, SpaceConvolution, from_patches, to_patches


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (1, 4), (3, 2)])
def test_patches_are_put_back_where_they_were(patch: tuple[int, int]) -> None:
    images = torch.arange(2 * 3 * 6 * 8.0).reshape(2, 3, 6, 8)
    patches = to_patches(images, patch)
    assert patches.shape == (2, 6 // patch[0], 8 // patch[1], 3 * patch[0] * patch[1])
    torch.testing.assert_close(from_patches(patches, patch), images, rtol=0, atol=0)


@pytest.mark.parametrize(("wrap", "line"), [((True, True), False), ((False, True), False), ((False, True), True)])
def test_convolutions_wrap_around_periodic_dimensions_only(wrap: tuple[bool, bool], line: bool) -> None:
    torch.manual_seed(0)
    convolution = SpaceConvolution(2, 3, wrap, line).requires_grad_(False)
    x = torch.randn(1, 1 if line else 6, 7, 2)
    for axis in (1, 2)[line:]:
        there, back = convolution(x.roll(2, axis)), convolution(x).roll(2, axis)
        assert torch.allclose(there, back, atol=1e-6) == wrap[axis - 1]


def test_blocks_without_a_convolution_in_time_treat_states_by_themselves() -> None:
    torch.manual_seed(0)
    block = Block(4, 8, 3, 0, (True, True), False).requires_grad_(False)
    x, noise = torch.randn(6, 5, 5, 4), torch.randn(2, 8)
    whole = block(x, noise, 3)
    alone = torch.cat([block(x[i : i + 1], noise[i // 3 : i // 3 + 1], 1) for i in range(6)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
