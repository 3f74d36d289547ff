"""The network that is convolutional in time."""

from __future__ import annotations

import pytest
import torch
from score_networks import randomised, reach

from sdaxr.prior.networks.base import Inputs
from sdaxr.prior.networks.convolutional import TemporalConvolution


@pytest.mark.parametrize(
    ("blocks", "kernel", "dilation", "side"),
    [(1, 3, 1, 3), (2, 3, 1, 5), (2, 5, 1, 10), (4, 5, 1, 18), (3, 3, 2, 15), (2, 5, 3, 18)],
)
def test_temporal_receptive_field_is_as_documented(blocks: int, kernel: int, dilation: int, side: int) -> None:
    options = {"width": 8, "blocks": blocks, "kernel": kernel, "dilation": dilation}
    network = randomised(TemporalConvolution(**options).module(Inputs(2, 1, 9))).double()
    assert network.reach == side
    length = 2 * side + 7
    seen = reach(network, torch.randn(1, length, 2).double(), torch.ones(1, length, 1).double(), side + 3)
    assert seen == list(range(3, 2 * side + 4))


def test_the_ends_of_a_trajectory_are_seen() -> None:
    """Zero padding beside the channel of ones: the same states are told apart at the ends, and only there."""
    network = randomised(TemporalConvolution(width=8, blocks=1, kernel=3).module(Inputs(1, 1, 9))).double()
    side = network.reach
    assert side is not None
    x, context = torch.ones(1, 4 * side, 1).double(), torch.ones(1, 4 * side, 1).double()
    out = network(x, torch.zeros(1).double(), context)[0, :, 0]
    middle = out[2 * side]
    torch.testing.assert_close(out[side:-side], middle.expand(2 * side))
    assert abs(float(out[0] - middle)) > 1e-6 and abs(float(out[-1] - middle)) > 1e-6
