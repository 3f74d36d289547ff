"""Noise of members."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sdaxr.archives.seeds import unit_seed
from sdaxr.posterior.samplers.predictor_corrector import Noise


def member_noise(
    seed: int, members: Sequence[int], shape: Sequence[int], device: torch.device | str, attempt: int = 0
) -> Noise:
    """Standard normal noise of shape (members, *shape), each member's from a stream of its own, another one for every
    attempt.

    The streams run on the CPU in a fixed order, so that a member is the same in any batch and on any device.
    """
    words = [(seed, m, attempt) if attempt else (seed, m) for m in members]
    # PyTorch takes 63 bits.
    streams = [torch.Generator().manual_seed(unit_seed(*w) >> 1) for w in words]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in streams]).to(device)
