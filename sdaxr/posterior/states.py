r"""States that are observed themselves, and trajectories that are continued from them.

An observation of states is :math:`y = x + N(0, e^2)` on the first k states of a trajectory (or all of them), with
values of its own for every member. Sampling a trajectory whose first states are held in this way draws the states after
them from the prior's transition; doing so again from the last states of the result continues it to any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdaxr.archives.seeds import unit_seed
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance, measure
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Denoiser, PredictorCorrector
from sdaxr.prior.held_out import HeldOut

DenoiserAt = Callable[[int, int], Denoiser]


def observe_states(
    values: Tensor, error: float | Tensor, variance: UnresolvedVariance | None = None
) -> GaussianObservation:
    """Identity observations of the first k states of each member.

    Parameters
    ----------
    values
        Normalised states, shape (members, k, channel, *space).
    error
        Standard deviation, a number or of a shape that broadcasts to (channel, *space).
    variance
        Variance of each channel given z, see `channel_variance`.
    """
    count, one = values.shape[1], values[0]
    errors = torch.as_tensor(error, dtype=values.dtype, device=values.device).expand_as(one).flatten()
    unresolved = None
    if variance is not None:
        spread = variance.table.to(values).reshape(len(variance.levels), 1, -1, *[1] * (one.ndim - 2))
        unresolved = UnresolvedVariance(variance.levels, spread.expand(-1, *one.shape).flatten(1))
    return GaussianObservation(
        lambda x: x[:, :count].flatten(1), values.flatten(1), errors, torch.ones_like(errors), unresolved
    )


def channel_variance(held_out: HeldOut) -> UnresolvedVariance:
    """Variance of each channel given z, table (level, channel), measured on states whose truth is known."""
    return measure(held_out, lambda true, denoised: (true - denoised).square().transpose(0, 2).flatten(1).mean(dim=1))


def blocks(known: int, steps: int, context: int, block: int) -> list[int]:
    """How many states each block of a continuation is conditioned on; every block has ``context + block`` states."""
    held, new = [], 0
    while new < steps:
        held.append(min(context, known + new))
        new += context + block - held[-1]
    return held


def extend(
    denoiser_at: DenoiserAt,
    known: Tensor,
    steps: int,
    *,
    context: int,
    block: int,
    sampler: PredictorCorrector,
    method: ScoreMethod,
    error: float,
    variance: UnresolvedVariance | None = None,
    seed: int = 0,
    members: Sequence[int] | None = None,
    tick: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Continue trajectories, block after block.

    Parameters
    ----------
    denoiser_at
        (first, count) to the denoiser of ``count`` states, the first of which is number ``first`` counted from the
        first known one.
    known
        Normalised states, shape (members, k, channel, *space).
    steps
        New states.
    context, block
        At most so many states condition a block, and so many new ones are drawn at once (more while fewer are known).
    sampler, method
        How to sample, and how the known states guide.
    error
        Standard deviation with which the known states are held.
    variance
        The measured variance of each channel, for methods that need it.
    seed, members
        Each member's noise is drawn from (seed, number of the block, member).
    tick
        Called after every evaluation with the number of members.

    Returns
    -------
    The new states, shape (members, steps, channel, *space).
    """
    start = known.shape[1]
    numbers = range(len(known)) if members is None else members
    length = context + block
    for number, held in enumerate(blocks(start, steps, context, block)):
        likelihood = observe_states(known[:, known.shape[1] - held :], error, variance)
        guided = method.guide(denoiser_at(known.shape[1] - held, length), [likelihood])
        stream = unit_seed(seed, number)
        noise = member_noise(stream, numbers, (length, *known.shape[2:]), known.device)
        drawn = sampler(guided, noise, lambda: tick(len(numbers)), guided.pin)
        known = torch.cat([known, drawn[:, held:].to(known)], dim=1)
    return known[:, start : start + steps]
