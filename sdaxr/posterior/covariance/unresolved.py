r"""The variance of each observed quantity given z, measured at each noise level.

.. math:: \mathrm{Var}[H(x) | z] \approx E\,[(H(x) - H(\hat x))^2], \qquad \hat x = E[x | z], \quad z = x + r \epsilon

For a linear H the right side is the mean over z of the left side (the law of total variance). The right side is
measured on known states x: a few held-out windows, which every file of a prior contains. The result belongs to the
prior, the operator and the noise level; the constant :math:`\Gamma` of Rozet & Louppe (2023, arXiv:2306.10574) need not
be guessed.
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
    """Variance of each observed quantity given z, tabulated by noise level.

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
        """Variance at the noise level ``r``, shape (n,).

        The ratio to the variance of white noise, r^2 / (1 + r^2), is interpolated, linearly in both logarithms: the
        variance itself bends near r = 1, the ratio does not. Below the first level the variance is proportional to r^2,
        above the last level it is constant.
        """
        first, last = self.levels[0], self.levels[-1]
        lower, part = place_of(r, self.levels)
        below, above = ((self.table[i] / _white(self.levels[i])).log() for i in (lower, lower + 1))
        row = torch.lerp(below, above, part).exp() * _white(min(max(r, first), last))
        return row * min(1.0, r / first) ** 2


def place_of(r: float, levels: Sequence[float]) -> tuple[int, float]:
    """Place of r among levels that are evenly spaced in log r: index of the level below, and fraction of the step."""
    first, last = levels[0], levels[-1]
    place = math.log(min(max(r, first), last) / first) / math.log(last / first) * (len(levels) - 1)
    lower = min(int(place), len(levels) - 2)
    return lower, place - lower


def _white(r: float) -> float:
    """Variance of x given z where x is white noise of unit variance."""
    return r**2 / (1 + r**2)


def measure(held_out: HeldOut, error: Callable[[Tensor], Tensor]) -> UnresolvedVariance:
    """Measure the variance on held-out windows.

    Parameters
    ----------
    held_out
        Windows of known states, and the denoised windows at each noise level.
    error
        Function of the denoised windows: the mean square error of each observed quantity, shape (n,).
    """
    with torch.no_grad():
        rows = [error(denoised).clamp_min(1e-20) for denoised in held_out.denoised]
    return UnresolvedVariance(held_out.levels, torch.stack(rows))
