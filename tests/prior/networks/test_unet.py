"""U-Nets: shifts around periodic dimensions, small grids, receptive fields, sizes."""

from __future__ import annotations

import pytest
import torch
from score_networks import inputs, layout, randomised, reach, seeing, small

from sdaxr.prior.networks.base import Inputs
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet


@pytest.mark.parametrize("shape", [(16,), (16, 16)])
@pytest.mark.parametrize(("name", "more"), [("unet", {}), ("space-time-unet", {}), ("space-time-unet", {"refine": 3})])
def test_shifts_around_periodic_dimensions(name: str, more: dict[str, int], shape: tuple[int, ...]) -> None:
    """A shift by patch * 2^(levels - 1) points commutes with the network; not so where the domain ends."""
    options = {"patch": 2} | more
    for periodic in (True, False):
        of = layout(shape, periodic)
        network = seeing(small(name, **options), of, 3)
        x, log_r, context = inputs(of, 3)
        context = torch.ones_like(context)
        for axis in range(3, 3 + len(shape)):
            there = network(x.roll(4, axis), log_r, context)
            back = network(x, log_r, context).roll(4, axis)
            assert torch.allclose(there, back, rtol=1e-3, atol=1e-4) == periodic


def test_one_dimension_may_wrap_while_the_other_ends() -> None:
    network = randomised(SpaceTimeUNet(widths=(8, 12), blocks=1).module(Inputs(1, 1, 3, (False, True))))
    x, log_r = torch.randn(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1)
    context = torch.ones(1, 3, 1, 16, 16)
    out = network(x, log_r, context)
    assert torch.allclose(network(x.roll(4, 4), log_r, context), out.roll(4, 4), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(network(x.roll(4, 3), log_r, context), out.roll(4, 3), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("periodic", [True, False])
def test_grids_smaller_than_the_coarsest_cell(periodic: bool) -> None:
    of = layout((3, 5), periodic)
    x, log_r, context = inputs(of, 3)
    network = seeing(SpaceTimeUNet(widths=(8, 8, 8), blocks=1), of, 3)
    assert network(x, log_r, context).shape == x.shape


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({"widths": (4, 4), "blocks": 1}, 3),  # three blocks: two on the way down, one on the way up
        ({"widths": (4,), "blocks": 2, "temporal": 5}, 4),
        ({"widths": (4, 4), "blocks": 1, "temporal": 0}, 0),
    ],
)
def test_space_time_unet_sees_one_temporal_convolution_a_block_to_either_side(options: dict, side: int) -> None:
    network = randomised(SpaceTimeUNet(**options).module(Inputs(1, 1, 4, (True, True)))).double()
    assert network.reach == side
    seen = reach(network, torch.randn(1, 15, 1, 8, 8).double(), torch.ones(1, 15, 1, 8, 8).double(), 7)
    assert seen == list(range(7 - side, 8 + side))


def test_refinement_sees_beyond_the_patch() -> None:
    """A patch that nothing but its own features reach is seen by its neighbours' points, and begins at zero."""
    network = SpaceTimeUNet(widths=(4,), blocks=0, patch=4, refine=3).module(Inputs(1, 1, 1, (True, True)))
    assert not network.refine.convolution.weight.any()
    network = randomised(network)
    x, context = torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8)
    other = x.clone()
    other[..., 1, 1] = 1.0
    changed = (network(other, torch.zeros(1), context) - network(x, torch.zeros(1), context))[0, 0, 0].abs() > 1e-6
    assert bool(changed[4, :4].any()) and bool(changed[-1, :4].any()) and not bool(changed[5:-1].any())


def test_the_papers_network_has_the_papers_size() -> None:
    """22.9 million parameters for two velocities and the forcing, windows of five (Rozet & Louppe 2023, appendix D)."""
    network = WindowUNet().module(Inputs(2, 2, 5, (True, True)))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(22.9e6, rel=0.05)


def test_window_networks_see_their_whole_window() -> None:
    network = randomised(WindowUNet(widths=(4, 4), blocks=1).module(Inputs(1, 1, 5, (True, True)))).double()
    x, context = torch.randn(1, 5, 1, 8, 8).double(), torch.ones(1, 5, 1, 8, 8).double()
    assert reach(network, x, context, 0) == [0, 1, 2, 3, 4]
