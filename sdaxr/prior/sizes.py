"""Sizes of the network, its window and a batch that fit the data and the device, where the caller gives none.

All follow from the sizes of the data, and from whether the device is a GPU: neither the number of cores nor their speed
changes what is trained, and memory does only where there is little. Two slow cores have about 3e10 floating point
operations a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sdaxr.prior.hardware import free_bytes
from sdaxr.prior.memory import peak_bytes
from sdaxr.prior.networks.base import Inputs, Network

# Sides of a grid below which its points are not folded, and points above which 4 x 4 of them are, on a CPU and a GPU.
_SMALL, _LARGE = 16, {"cpu": 2**13, "gpu": 2**17}
# States from which a third level with 128 channels is worth its cost, and points on the sides of the coarsest level.
_MANY, _COARSEST = 10_000, 4
_WIDTHS = (32, 64, 128)
# Windows of priors of windows of one length, of fields and of state vectors. They are longer where the network reaches
# further: otherwise every state of the training is near an end of its window.
_FIXED, _FIELDS, _VECTORS = 5, 8, 33
# Floating point operations of a step: a second on two slow cores, a tenth on a large GPU. And limits of a batch.
_WORK, _BATCHES = {"cpu": 3e10, "gpu": 1e13}, (2, 32)
# Fraction of the free memory for a step.
_ROOM = 0.25
# What convolutions and the gaps between tensors take beside the tensors, and arrays of the size of a batch.
_SPACE, _ARRAYS = 1.25, 3


@dataclass(frozen=True)
class Sizes:
    """Sizes of training data.

    Attributes
    ----------
    shape
        Sizes of the horizontal dimensions; empty for state vectors.
    states
        Number of states of all trajectories.
    longest
        Longest window that the data have.
    """

    shape: tuple[int, ...]
    states: int
    longest: int

    def network(self, device: torch.device) -> dict[str, Any]:
        """Options of the default network that fit the data; the others keep their defaults."""
        if not self.shape:
            return {}
        large = math.prod(self.shape) > _LARGE[_kind(device)]
        patch = 1 if min(self.shape) < _SMALL else 4 if large else 2
        levels = 3 if self.states >= _MANY else 2
        while levels > 1 and min(self.shape) < _COARSEST * patch * 2 ** (levels - 1):
            levels -= 1
        return {"widths": _WIDTHS[:levels], "patch": patch}

    def window(self, network: Network, *, fixed: bool) -> int:
        """States of a window: more than the network reaches, where the data have so many; odd where it is ``fixed``."""
        if fixed:
            return min(_FIXED, max(1, self.longest - 1 + self.longest % 2))
        with torch.device("meta"):
            reach = network.module(Inputs(1, 1, 1, (False,) * len(self.shape))).reach
        return max(1, min(max(_FIELDS if self.shape else _VECTORS, (reach or 0) + 2), self.longest))


def batch_of(
    network: Network, inputs: Inputs, shape: tuple[int, ...], device: torch.device, precision: str = "float32"
) -> int:
    """Windows in a step of the network: a power of two, from 2 to 32, whose memory is a quarter of what is free."""
    least, most = _BATCHES
    # The pass backwards costs twice the pass forwards.
    affordable = _WORK[_kind(device)] / max(3 * operations(network, inputs, shape), 1)
    batch, room = 1 << int(math.log2(min(max(affordable, least), most))), _ROOM * free_bytes(device)
    while batch > least and step_bytes(network, inputs, shape, batch, precision) > room:
        batch //= 2
    return batch


def step_bytes(network: Network, inputs: Inputs, shape: tuple[int, ...], batch: int, precision: str) -> float:
    """Bytes that a step of the training takes beside the weights, for ``batch`` windows; nothing is computed."""
    # Fake tensors have the types of the CPU's autocast; tensors of the meta device are quicker.
    with torch.device("meta") if precision == "float32" else FakeTensorMode():
        module = network.module(inputs)
        x, context = (torch.empty(batch, inputs.window, n, *shape) for n in (inputs.channels, inputs.context))
        log_r = torch.empty(batch)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                found = module(x, log_r, context)
            (found.float() - x).square().mean().backward()

        taken = peak_bytes(step)
    # Noise, noisy states, what the modes make of them, and the error.
    return _SPACE * (taken + _ARRAYS * (x.numel() + context.numel()) * 4)


def operations(network: Network, inputs: Inputs, shape: tuple[int, ...]) -> int:
    """Floating point operations of the network for one window; nothing is computed."""
    with torch.device("meta"):
        module = network.module(inputs)
        x, context = (torch.empty(1, inputs.window, n, *shape) for n in (inputs.channels, inputs.context))
        log_r = torch.empty(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x, log_r, context)
    return int(counter.get_total_flops())


def _kind(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else "gpu"
