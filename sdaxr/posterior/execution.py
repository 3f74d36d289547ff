"""Posterior samples in batches of members that fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdaxr.archives.host import check_room
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Algorithm, Noise
from sdaxr.prior.hardware import free_bytes, taken_bytes
from sdaxr.prior.memory import peak_bytes
from sdaxr.schema import DivergenceError

_log = logging.getLogger(__name__)

# Most bytes that a batch may take on a CPU, however much memory is free.
CPU_BUDGET = 1.5e9
# Half as much again for the work space of convolutions and the gaps between tensors, which the peak leaves out.
_SPACE = 1.5


class Guided(Protocol):
    """A denoiser of the posterior that can be restricted to some members."""

    def select(self, members: Tensor) -> Guided:
        """The denoiser of some members, given by their numbers."""
        ...

    def pin(self, z: Tensor, r: float, noise: Noise) -> Tensor:
        """Replace z on arrival at the noise level r."""
        ...

    def twist(self, z: Tensor, r: float) -> tuple[Tensor, Tensor, Tensor]:
        """E[x | z], log p(y | z) and its derivative in z, for samplers that weight members."""
        ...

    def misfit(self, x: Tensor) -> Tensor:
        """Distance of members from the observations, (batch,); observation errors do not explain a value above 1."""
        ...

    def __call__(self, z: Tensor, r: float) -> Tensor:
        """E[x | z, y]."""
        ...


def sample_batch(
    guided: Guided,
    sampler: Algorithm,
    members: Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
    device: torch.device,
    attempts: int = 1,
    most: int | None = None,
    chunk: int | None = None,
    tick: Callable[[int], Any] = lambda _: None,
) -> tuple[Tensor, dict[str, float]]:
    """Draw some members, each of ``shape`` (time, channel, *space).

    For chaotic systems, guidance drives a few samples in a hundred into a trajectory that the observations exclude.
    Such a member is drawn again, up to ``attempts`` times in all. The draw that is nearest to the observations is kept.

    Parameters
    ----------
    guided
        Denoiser of the posterior.
    sampler
        Noise levels, and the steps between them.
    members
        Numbers of the members.
    shape
        Shape of one trajectory, (time, channel, *space).
    seed
        The noise of a member depends on the seed, the number of the member and the attempt only.
    device
        Device of the computation.
    attempts
        Most draws of a member; 1 for samplers whose members depend on each other.
    most
        Largest number of members that are drawn again; where more are far, none is. Default: all.
    chunk
        Number of members that are evaluated at once, where members depend on each other. Default: all.
    tick
        Called with the number of members after every evaluation of the first draw.

    Returns
    -------
    Normalised states, shape (batch, time, channel, *space), on the CPU; and what the sampling found, as attributes.

    Raises
    ------
    DivergenceError
        If the first draw diverges. If a later draw diverges, the earlier draws are kept.
    """

    def streams(numbers: Sequence[int], key: int) -> Noise:
        return member_noise(seed, numbers, shape, device, key)

    def draw(chosen: Sequence[int], attempt: int) -> tuple[Tensor, Tensor, dict[str, float]]:
        size, count = chunk or len(chosen), (lambda _: None) if attempt else tick
        states, found = sampler.members(guided, chosen, streams, attempt=attempt, chunk=size, tick=count)
        misfit = guided.select(torch.tensor(list(chosen))).misfit(states).cpu()
        return states.cpu(), misfit, found

    states, misfit, about = draw(members, 0)
    for attempt in range(1, attempts):
        far = torch.nonzero(misfit > 1).flatten()
        if not 0 < len(far) <= (len(members) if most is None else most):
            break
        _log.info("%d of %d members are far from the observations and are drawn again", len(far), len(members))
        try:
            redrawn, redrawn_misfit, _ = draw([members[i] for i in far], attempt)
        except DivergenceError as error:
            _log.info("the new draw diverged, so the earlier draws are kept: %s", error)
            break
        nearer = redrawn_misfit < misfit[far]
        states[far[nearer]], misfit[far[nearer]] = redrawn[nearer], redrawn_misfit[nearer]
    return states, about


def batch_size(
    one: Callable[[Tensor, float], Tensor],
    shape: Sequence[int],
    members: int,
    device: torch.device,
    *,
    asked: int | None = None,
    free: float | None = None,
    held: float = 0.0,
) -> int:
    """Number of members that fit in memory at once, from the memory of one evaluation for one member.

    How much the process takes at most is logged; as a warning, where it may not fit.

    Parameters
    ----------
    one
        Denoiser of one member.
    shape
        Shape of one trajectory, (time, channel, *space).
    members
        Most members of a batch.
    device
        Device of the computation.
    asked
        The number that the user has chosen, which is taken if it fits. Default: as many as fit.
    free
        Free bytes where the batches are computed. Default: those of this process
        (`sdaxr.prior.hardware.free_bytes`).
    held
        Bytes of each member of a batch beside the evaluation.

    Raises
    ------
    OptionError
        If not even one member fits, or as many as were asked for.
    """
    one(torch.zeros(1, *shape, device=device), 1.0)  # What is computed once is not counted.
    taken = taken_bytes(device)
    each = max(peak_bytes(lambda: one(torch.zeros(1, *shape, device=device), 1.0)), 1) + held / _SPACE
    free = free_bytes(device) if free is None else free
    remedy = "take fewer states at once (cycle), a smaller network, or a machine with more memory"
    check_room(each, free, f"one member of {shape[0]} states takes", remedy, on=device)
    # A part of the free memory, because other processes need some of it, too.
    room = 0.6 * free if device.type == "cuda" else min(CPU_BUDGET, 0.5 * free)
    size = max(1, min(members, int(room // (_SPACE * each)) if asked is None else asked))
    batch = _SPACE * size * each
    remedy = "take a smaller batch (batch, --batch), or leave it out: as many as fit are taken"
    check_room(size * each, free, f"a batch of {size} members takes", remedy, on=device)
    tell = _log.warning if batch > free else _log.info
    tell(
        "%d members a batch, about %.2f GB; about %.3g GB at most, %.2f GB are free",
        size, batch / 1e9, (taken + batch) / 1e9, free / 1e9,
    )  # fmt: skip
    return size if asked is None else asked
