"""Noise of members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sdaxr.posterior.samplers.sampler import Noise


def member_noise(seed: int, members: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Noise:
    """Standard normal noise of shape (members, *shape), each member's from a stream of its own.

    The streams run on the CPU in a fixed order, so that a member is the same in any batch and on any device.
    """
    seeds = [int(np.random.SeedSequence((seed, m)).generate_state(1, np.uint64)[0] >> 1) for m in members]
    streams = [torch.Generator().manual_seed(s) for s in seeds]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in streams]).to(device)
