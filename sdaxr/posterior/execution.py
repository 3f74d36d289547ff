"""Members in batches that fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.memory import peak_bytes
from sdaxr.posterior.samplers import Sampler, member_noise

log = logging.getLogger(__name__)

CPU_BUDGET = 1.5e9


class Guided(Protocol):
    """A denoiser that can be narrowed to some members."""

    def of(self, members: Tensor) -> Guided:
        """The same for some members."""
        ...

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y]."""
        ...


def sample_batch(
    guided: Guided,
    sampler: Sampler,
    members: Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    tick: Callable[[int], Any] = lambda n: None,
) -> Tensor:
    """Draw some members, each of ``shape`` (time, channel, *space).

    Returns
    -------
    Their normalised states (batch, time, channel, *space), on the CPU.
    """
    noise = member_noise(seed, members, shape, device)
    return sampler(guided.of(torch.tensor(list(members))), noise, partial(tick, len(members))).cpu()


def batch_size(guided: Guided, shape: Sequence[int], members: int, device: torch.device) -> int:
    """How many members fit in memory, from what one evaluation for one member takes."""
    if members == 1:
        return 1
    one = guided.of(torch.tensor([0]))
    # The work space of convolutions and the gaps between tensors come on top of what these hold.
    each = 1.5 * max(peak_bytes(lambda: one(torch.zeros(1, *shape, device=device), 1.0)), 1)
    size = max(1, min(members, int(_budget(device) // each)))
    log.info("%d members a batch, about %.2f GB", size, size * each / 1e9)
    return size


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return 0.6 * torch.cuda.mem_get_info(device)[0]
    import psutil

    return min(CPU_BUDGET, 0.5 * psutil.virtual_memory().available)
