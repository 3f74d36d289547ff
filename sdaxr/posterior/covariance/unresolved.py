r"""How well the prior alone knows an observed quantity at each noise level.

Guidance needs the variance of H(x) given z. By the law of total variance its mean is the mean square of
:math:`H(x) - H(\hat x(z))`, which can be measured on states whose truth is known: a few held-out windows that every
prior file carries. This replaces a guessed Gamma by one that belongs to this prior, this operator and this noise level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.prior.held_out import HeldOut


@dataclass(frozen=True)
class UnresolvedVariance:
    """Variance of each observed quantity given z, tabulated over the noise level.

    Attributes
    ----------
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    table
        Variances, shape (level, n).
    """

    levels: tuple[float, ...]
    table: Tensor

    def __call__(self, r: float) -> Tensor:
        """Variance at level ``r``, shape (n,); proportional to r^2 below the first level, constant above the last.

        What is interpolated, linearly in both logarithms, is the ratio to the variance of white noise, which has no
        bend at r = 1.
        """
        first, last = self.levels[0], self.levels[-1]
        lower, part = place_of(r, self.levels)
        below, above = ((self.table[i] / _white(self.levels[i])).log() for i in (lower, lower + 1))
        row = torch.lerp(below, above, part).exp() * _white(min(max(r, first), last))
        return row * min(1.0, r / first) ** 2


def place_of(r: float, levels: Sequence[float]) -> tuple[int, float]:
    """Where r lies among levels evenly spaced in their logarithm: the one below, and the part of the step from it."""
    first, last = levels[0], levels[-1]
    place = math.log(min(max(r, first), last) / first) / math.log(last / first) * (len(levels) - 1)
    lower = min(int(place), len(levels) - 2)
    return lower, place - lower


def _white(r: float) -> float:
    """Variance of x given z where x is white noise of unit variance."""
    return r**2 / (1 + r**2)


def measure(held_out: HeldOut, error: Callable[[Tensor, Tensor], Tensor]) -> UnresolvedVariance:
    """Measure the variance on windows of known states.

    Parameters
    ----------
    held_out
        True and denoised windows.
    error
        Both of them to the mean square error of each observed quantity, shape (n,).
    """
    with torch.no_grad():
        rows = [error(held_out.states, denoised).clamp_min(1e-20) for denoised in held_out.denoised]
    return UnresolvedVariance(held_out.levels, torch.stack(rows))
