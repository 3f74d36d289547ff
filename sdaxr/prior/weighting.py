"""How much an error of the network counts, by its noise level.

The target of the network has unit variance at every level, but not all of it can be known: at small levels the noise
that was added cannot be told from the state's own, at large ones the state cannot. In between, where the neighbours in
time and space tell nearly everything, the best error may be a hundred times smaller, and so is what it adds to a plain
mean. Weights in inverse proportion to the present error of each level make relative errors count alike, as do the
learned ones of Karras et al. (2024, arXiv:2312.02696); here the error is a running mean over levels in bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Weighting(Protocol):
    """Weights from the levels r and the present errors, both (batch,)."""

    state: Tensor

    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        """Weights, (batch,)."""
        ...


class Uniform:
    """The same for all."""

    def __init__(self, levels: tuple[float, float], device: torch.device) -> None:
        self.state = torch.ones(0, device=device)

    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        return torch.ones_like(errors)


class Relative:
    """The inverse of the running mean of the errors in the bin of the level.

    Attributes
    ----------
    state
        The running means, (bins,); 1 at first, which is the error of a network that knows nothing.
    """

    bins = 32
    memory = 100  # windows

    def __init__(self, levels: tuple[float, float], device: torch.device) -> None:
        self.low, self.high = map(math.log, levels)
        self.state = torch.ones(self.bins, device=device)

    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        place = (r.log() - self.low) / (self.high - self.low) * self.bins
        which = place.long().clamp(0, self.bins - 1)
        weights = 1 / self.state[which]
        counts = torch.zeros_like(self.state).index_add_(0, which, torch.ones_like(errors))
        sums = torch.zeros_like(self.state).index_add_(0, which, errors)
        rate = 1 - (1 - 1 / self.memory) ** counts
        self.state = torch.lerp(self.state, sums / counts.clamp(min=1), rate)
        return weights


WEIGHTINGS: dict[str, Callable[[tuple[float, float], torch.device], Weighting]] = {
    "uniform": Uniform,
    "relative": Relative,
}
