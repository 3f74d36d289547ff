"""Random noise of the members of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sdaxr.archives.seeds import unit_seed
from sdaxr.posterior.samplers.predictor_corrector import Noise


def member_noise(
    seed: int, members: Sequence[int], shape: Sequence[int], device: torch.device | str, attempt: int = 0
) -> Noise:
    """A function that returns new standard normal noise of shape (members, *shape) at every call.

    Each member has a random stream of its own, given by (seed, member, attempt). The streams run on the CPU, so that a
    member has the same noise in any batch and on any device.
    """
    words = [(seed, m, attempt) if attempt else (seed, m) for m in members]
    # PyTorch takes seeds of 63 bits.
    streams = [torch.Generator().manual_seed(unit_seed(*w) >> 1) for w in words]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in streams]).to(device)
