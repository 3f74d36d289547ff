"""Members in batches that fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.samplers import Denoiser, Sampler, member_noise

log = logging.getLogger(__name__)

CPU_BUDGET = 1.5e9


class Guided(Protocol):
    """A denoiser that can be narrowed to some members, and the prior's denoiser within."""

    @property
    def denoiser(self) -> Denoiser:
        """E[x | z]."""
        ...

    def of(self, members: Tensor) -> Guided:
        """The same for some members."""
        ...

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y]."""
        ...


def sample_members(
    guided: Guided,
    sampler: Sampler,
    batches: Sequence[Sequence[int]],
    shape: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    tick: Callable[[int], Any] = lambda n: None,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Draw batches of members, each of ``shape`` (time, channel, *space).

    Yields
    ------
    The members of a batch and their normalised states (batch, time, channel, *space), on the CPU.
    """
    for members in batches:
        noise = member_noise(seed, members, shape, device)
        drawn = sampler(guided.of(torch.tensor(list(members))), noise, partial(tick, len(members)))
        yield members, drawn.cpu()


def batch_size(guided: Guided, shape: Sequence[int], members: int, device: torch.device) -> int:
    """How many members fit in memory, from what one evaluation for one member keeps for its gradient."""
    if members == 1:
        return 1
    one = torch.zeros(1, *shape, device=device)
    # Some methods keep nothing of the network, but need its work space all the same.
    kept = max(_kept(guided.of(torch.tensor([0])), one), _kept(guided.denoiser, one.requires_grad_()))
    # Gradients and work space come on top of what is kept.
    each = 2 * max(kept, 1)
    size = max(1, min(members, int(_budget(device) // each)))
    log.info("%d members a batch, about %.2f GB", size, size * each / 1e9)
    return size


def _kept(denoiser: Denoiser, z: Tensor) -> int:
    """Bytes that one evaluation keeps for its gradient."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        denoiser(z, 1.0)
    return sum(kept.values())


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return 0.6 * torch.cuda.mem_get_info(device)[0]
    import psutil

    return min(CPU_BUDGET, 0.5 * psutil.virtual_memory().available)
