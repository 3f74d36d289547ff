r"""Weights of the network's errors, by noise level.

The target of the network has unit variance at every noise level, but only a part of it can be predicted. At small
levels the noise looks like the smallest scales of the state; at large levels the noise hides the state. In between,
neighbours in time and space determine nearly all of the state: the best error there may be a hundred times smaller than
at the ends, and a plain mean over all levels hardly depends on it.

``uniform`` is the plain mean. ``relative`` divides the error at level r by its running mean
:math:`\bar e(r)`, so that relative errors count alike at all levels:

.. math:: w(r) = 1 / \bar e(r)

Karras et al. (2024), arXiv:2312.02696, learn the same weight with a network; here :math:`\bar e` is a table over bins
of log r.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Weighting(ABC):
    """Weights of errors at noise levels between the smallest and the largest of ``levels``.

    Attributes
    ----------
    state
        What is remembered from step to step, (bins,); a checkpoint holds it.
    """

    bins = 0

    def __init__(self, levels: tuple[float, float], device: torch.device) -> None:
        self.low, self.high = map(math.log, levels)
        self.state = torch.ones(self.bins, device=device)

    @abstractmethod
    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        """Weights, (batch,), from the noise levels r and the present errors, both (batch,)."""


class Uniform(Weighting):
    """The weight 1 at every noise level."""

    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        return errors.new_ones(len(r))


class Relative(Weighting):
    """The inverse of the running mean of the errors, in bins of the noise level.

    The means begin at 1, the error of a network that knows nothing.
    """

    # Over the default levels, from 5e-3 to 100, a bin is a factor of 1.36: within it the error changes little.
    bins = 32
    # The mean forgets within 100 windows, some 100 steps of 32 windows in 32 bins.
    memory = 100

    def __call__(self, r: Tensor, errors: Tensor) -> Tensor:
        place = (r.log() - self.low) / (self.high - self.low) * self.bins
        which = place.long().clamp(0, self.bins - 1)
        weights = 1 / self.state[which]
        counts = torch.zeros_like(self.state).index_add_(0, which, torch.ones_like(errors))
        sums = torch.zeros_like(self.state).index_add_(0, which, errors)
        rate = 1 - (1 - 1 / self.memory) ** counts
        self.state = torch.lerp(self.state, sums / counts.clamp(min=1), rate)
        return weights


WEIGHTINGS: dict[str, type[Weighting]] = {"uniform": Uniform, "relative": Relative}
