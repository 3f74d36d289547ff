"""What a network makes of noisy windows whose states are known: how well it knows what is observed of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows before noise and after denoising.

    Attributes
    ----------
    states
        Normalised states, (sample, time, channel, *space).
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    denoised
        E[x | z] for the same noise at each level, (level, sample, time, channel, *space).
    """

    states: Tensor
    levels: tuple[float, ...]
    denoised: Tensor

    @classmethod
    def of(
        cls, denoise: Callable[[Tensor, float], Tensor], states: Tensor, levels: tuple[float, float], count: int = 14
    ) -> HeldOut:
        """Those of a denoiser (z, r) to E[x | z], at ``count`` levels from the smallest to the largest."""
        tabulated = np.geomspace(*levels, count).tolist()
        noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states.device)
        with torch.no_grad():
            return cls(states, tuple(tabulated), torch.stack([denoise(states + r * noise, r) for r in tabulated]))
