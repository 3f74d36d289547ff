"""Denoised windows whose true states are known: from them, the uncertainty given z is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Over the default range of the training (5e-3 to 100) these are three in each decade.
_LEVELS = 14


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows, and what a denoiser makes of them at several noise levels.

    Attributes
    ----------
    states
        Normalised states, (sample, time, channel, *space).
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    denoised
        E[x | z] for the same noise at each level, (level, sample, time, channel, *space).
    noise
        The noise of unit variance, (sample, time, channel, *space): z = x + r noise. It is zero where there is none.
    """

    states: Tensor
    levels: tuple[float, ...]
    denoised: Tensor
    noise: Tensor

    @classmethod
    def of(
        cls,
        denoise: Callable[[Tensor, float], Tensor],
        states: Tensor,
        levels: tuple[float, float],
        present: Tensor | float = 1.0,
    ) -> HeldOut:
        """Denoise ``states`` at 14 levels, from the smallest to the largest.

        Parameters
        ----------
        denoise
            Maps z (sample, time, channel, *space) and a noise level r to E[x | z].
        states
            Normalised states, (sample, time, channel, *space).
        levels
            Smallest and largest noise level.
        present
            1 where there are states and noise, 0 on land; it broadcasts against a state (channel, *space).
        """
        tabulated = np.geomspace(*levels, _LEVELS).tolist()
        noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states.device) * present
        with torch.no_grad():
            denoised = torch.stack([denoise(states * present + r * noise, r) for r in tabulated])
        return cls(states, tuple(tabulated), denoised, noise)

    def map(self, function: Callable[[Tensor], Tensor]) -> HeldOut:
        """The same with ``function`` of all windows (sample, time, channel, *space), those of each level in turn."""
        denoised = torch.stack([function(windows) for windows in self.denoised])
        return HeldOut(function(self.states), self.levels, denoised, function(self.noise))


@lru_cache(maxsize=1)  # What is denoised is 14 times as large as the windows.
def known_of(*_content: str) -> dict[str, HeldOut]:
    """Windows after denoising, by device, which all priors share that are opened of files of the same content."""
    return {}
