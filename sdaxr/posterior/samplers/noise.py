"""Noise of members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sdaxr.posterior.samplers.predictor_corrector import Noise


def member_noise(
    seed: int, members: Sequence[int], shape: Sequence[int], device: torch.device | str, attempt: int = 0
) -> Noise:
    """Standard normal noise of shape (members, *shape), each member's from a stream of its own, another one for every
    attempt.

    The streams run on the CPU in a fixed order, so that a member is the same in any batch and on any device.
    """
    words = [(seed, m, attempt) if attempt else (seed, m) for m in members]
    seeds = [int(np.random.SeedSequence(w).generate_state(1, np.uint64)[0] >> 1) for w in words]
    streams = [torch.Generator().manual_seed(s) for s in seeds]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in streams]).to(device)
