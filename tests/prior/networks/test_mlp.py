"""The residual perceptron on windows."""

from __future__ import annotations

import pytest
import torch
from score_networks import randomised, reach

from sdaxr.prior.networks.base import Inputs
from sdaxr.prior.networks.mlp import ResidualMLP


def test_every_state_of_the_window_is_seen() -> None:
    network = randomised(ResidualMLP(width=16, blocks=2).module(Inputs(2, 1, 5))).double()
    x, context = torch.randn(1, 5, 2).double(), torch.ones(1, 5, 1).double()
    for at in (0, 2, 4):
        assert reach(network, x, context, at) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("window", [3, 9])
def test_the_papers_network_has_five_blocks_of_256_units(window: int) -> None:
    """Counted by hand: first and last layers, five blocks of two layers and a normalisation, and the embedding."""
    network = ResidualMLP().module(Inputs(3, 0, window))
    width, embedding = 256, 32 * 32 + 32
    ends = (3 * window + 32) * width + width + width * 3 * window + 3 * window
    blocks = 5 * (2 * (width * width + width) + 2 * width)
    assert sum(p.numel() for p in network.parameters()) == ends + blocks + 2 * embedding
