"""Members in batches that fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.memory import peak_bytes
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Noise, PredictorCorrector
from sdaxr.schema import DivergenceError

_log = logging.getLogger(__name__)

CPU_BUDGET = 1.5e9


class Guided(Protocol):
    """A denoiser that can be narrowed to some members."""

    def of(self, members: Tensor) -> Guided:
        """The same for some members."""
        ...

    def pin(self, z: Tensor, r: float, noise: Noise) -> Tensor:
        """z on arrival at the noise level r."""
        ...

    def misfit(self, x: Tensor) -> Tensor:
        """How far members are from the observations, (batch,); beyond 1 it is no accident of their errors."""
        ...

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y]."""
        ...


def sample_batch(
    guided: Guided,
    sampler: PredictorCorrector,
    members: Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    attempts: int = 1,
    tick: Callable[[int], Any] = lambda _: None,
) -> Tensor:
    """Draw some members, each of ``shape`` (time, channel, *space).

    Guidance locks a few in a hundred samples of a chaotic system into a trajectory that the observations exclude. Such
    a sample is drawn again, up to ``attempts`` times, and the draw that is nearest to the observations is kept.

    Returns
    -------
    Their normalised states (batch, time, channel, *space), on the CPU.
    """

    def draw(chosen: Sequence[int], attempt: int) -> tuple[Tensor, Tensor]:
        mine = guided.of(torch.tensor(list(chosen)))
        noise = member_noise(seed, chosen, shape, device, attempt)
        states = sampler(mine, noise, (lambda: None) if attempt else partial(tick, len(members)), mine.pin)
        return states.cpu(), mine.misfit(states).cpu()

    states, misfit = draw(members, 0)
    for attempt in range(1, attempts):
        far = torch.nonzero(misfit > 1).flatten()
        if not len(far):
            break
        _log.info("%d of %d members are far from the observations; they are drawn again", len(far), len(members))
        try:
            again, left = draw([members[i] for i in far], attempt)
        except DivergenceError as error:
            _log.info("they are kept as they are: %s", error)
            break
        nearer = left < misfit[far]
        states[far[nearer]], misfit[far[nearer]] = again[nearer], left[nearer]
    return states


def batch_size(guided: Guided, shape: Sequence[int], members: int, device: torch.device) -> int:
    """How many members fit in memory, from what one evaluation for one member takes."""
    if members == 1:
        return 1
    one = guided.of(torch.tensor([0]))
    # The work space of convolutions and the gaps between tensors come on top of what these hold.
    each = 1.5 * max(peak_bytes(lambda: one(torch.zeros(1, *shape, device=device), 1.0)), 1)
    size = max(1, min(members, int(_budget(device) // each)))
    _log.info("%d members a batch, about %.2f GB", size, size * each / 1e9)
    return size


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return 0.6 * float(torch.cuda.mem_get_info(device)[0])
    import psutil

    return min(CPU_BUDGET, 0.5 * float(psutil.virtual_memory().available))
