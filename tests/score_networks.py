"""Small networks of every kind, with weights that let everything within reach be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sdaxr.prior.networks.base import NETWORKS, Inputs, Network, NetworkModule
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis

# Small sizes for the options that a network has.
_SIZES = {"width": 16, "blocks": 1, "widths": (8, 12), "kernel": 3}
SHAPES: dict[bool, list[tuple[int, ...]]] = {False: [()], True: [(12,), (8, 12), (33, 49)]}
# Every network with every shape of states that it is for.
CASES = [(name, shape) for name in NETWORKS.names() for shape in SHAPES[NETWORKS.kind(name).gridded]]


def small(name: str, **options: Any) -> Network:
    """A small network of that name."""
    known = NETWORKS.kind(name).__dataclass_fields__
    return NETWORKS.build({"name": name, **{k: v for k, v in _SIZES.items() if k in known}, **options})


def initial(network: Network, of: StateLayout, window: int) -> NetworkModule:
    """The network for states of a layout, as it is before the training."""
    return network.module(Inputs(of.channels, of.context_channels, window, of.periodic)).requires_grad_(False)


def seeing(network: Network, of: StateLayout, window: int) -> NetworkModule:
    """The network for states of a layout, with random weights."""
    return randomised(initial(network, of, window))


def layout(shape: tuple[int, ...], periodic: bool = True, channels: int = 2) -> StateLayout:
    space = ("y", "x")[2 - len(shape) :]
    attrs = {"period": 1.0} if periodic else {}
    coords = {d: Coordinate(np.arange(n) / n, attrs) for d, n in zip(space, shape, strict=True)}
    names = tuple("uvwpq"[:channels])
    ones = np.ones((channels, *[1] * len(shape)))
    sizes = dict(zip(space, shape, strict=True))
    return StateLayout(
        names, {v: {} for v in names}, (), None, space, coords, sizes, TimeAxis("float", 1, ""), 0 * ones, ones
    )


def randomised(network: NetworkModule, seed: int = 0) -> NetworkModule:
    """Networks begin with an output of zero; to see what they can see, every weight gets a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return network.eval().requires_grad_(False)


def inputs(of: StateLayout, length: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, of.channels, *of.shape, generator=generator)
    context = torch.ones(1, length, of.context_channels, *of.shape)
    return x, torch.linspace(-1, 1, batch), context


def reach(network: NetworkModule, x: torch.Tensor, context: torch.Tensor, at: int) -> list[int]:
    """Times whose state has an influence on the output at one time."""
    x = x.clone().requires_grad_()
    out = network(x, torch.zeros(len(x)), context)
    (slope,) = torch.autograd.grad(out[:, at].sum(), x)
    return torch.nonzero(slope.abs().flatten(2).amax(dim=(0, 2))).flatten().tolist()
