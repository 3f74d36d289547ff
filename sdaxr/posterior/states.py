r"""Observations of complete states, and the continuation of trajectories.

The first k states of a trajectory are observed,

.. math:: y_i = x_i + N(0, e^2), \qquad i = 1, \ldots, k,

with values of its own for every member. Given these observations, a sample of the trajectory contains states after the
first k, drawn from :math:`p(x_{k+1}, \ldots | y_1, \ldots, y_k)` under the prior. Repeated from the last states of each
sample, this continues a trajectory to any length (Rozet & Louppe 2023, arXiv:2306.10574).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from sdaxr.archives.seeds import unit_seed
from sdaxr.posterior.covariance.unresolved import UnresolvedVariance, measure
from sdaxr.posterior.guidance.base import ScoreMethod
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.predictor_corrector import Algorithm, Denoiser
from sdaxr.prior.held_out import HeldOut

DenoiserAt = Callable[[int, int], Denoiser]


def observe_states(
    values: Tensor,
    error: float | Tensor,
    variance: UnresolvedVariance | None = None,
    *,
    parameters: Collection[int] = (),
) -> GaussianObservation:
    """Identity observations of the first k states of each member.

    A parameter is one number, and is observed once: the mean of its channel.

    Parameters
    ----------
    values
        Normalised states, shape (members, k, channel, *space).
    error
        Standard deviation e of the normalised states, a number or of a shape that broadcasts to (k, channel, *space).
    variance
        Variance of each channel given z, see `channel_variance`; for methods that need it.
    parameters
        Numbers of the channels of parameters.
    """
    count, one = values.shape[1], values[0]
    still, moving = list(parameters), [c for c in range(one.shape[1]) if c not in parameters]

    def seen(x: Tensor) -> Tensor:
        states = x[:, :count]
        if not still:
            return states.flatten(1)
        constants = states[:, :, still].transpose(1, 2).flatten(2).mean(2)
        return torch.cat([states[:, :, moving].flatten(1), constants], 1)

    errors = seen(torch.as_tensor(error, dtype=values.dtype, device=values.device).expand_as(one)[None])[0]
    unresolved = None
    if variance is not None:
        table = variance.table.to(values).reshape(len(variance.levels), 1, -1, *[1] * (one.ndim - 2))
        unresolved = UnresolvedVariance(variance.levels, seen(table.expand(-1, *one.shape)))
    return GaussianObservation(seen, seen(values), errors, torch.ones_like(errors), unresolved)


def channel_variance(held_out: HeldOut, *, parameters: Collection[int] = ()) -> UnresolvedVariance:
    """Variance of each channel given z, table (level, channel), measured on the held-out states.

    That of the channels ``parameters`` is the variance of their means.
    """
    still = torch.zeros(held_out.states.shape[2], dtype=torch.bool, device=held_out.states.device)
    still[list(parameters)] = True

    def error(denoised: Tensor) -> Tensor:
        # (channel, sample, time and point)
        errors = (held_out.states - denoised).movedim(2, 0).flatten(2)
        return torch.where(still, errors.mean(2).square().mean(1), errors.square().flatten(1).mean(1))

    return measure(held_out, error)


def blocks(known: int, steps: int, context: int, block: int) -> list[int]:
    """Number of known states that each block is conditioned on; every block has ``context + block`` states in all."""
    counts, new = [], 0
    while new < steps:
        counts.append(min(context, known + new))
        new += context + block - counts[-1]
    return counts


def extend(
    denoiser_at: DenoiserAt,
    known: Tensor,
    steps: int,
    *,
    context: int,
    block: int,
    sampler: Algorithm,
    method: ScoreMethod,
    error: float,
    variance: UnresolvedVariance | None = None,
    parameters: Collection[int] = (),
    seed: int = 0,
    members: Sequence[int] | None = None,
    tick: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Continue trajectories, one block of states after another.

    Parameters
    ----------
    denoiser_at
        Function of (first, count): the denoiser of ``count`` consecutive states. ``first`` is the index of the first of
        these states; the first known state has the index 0.
    known
        Normalised known states, shape (members, k, channel, *space).
    steps
        Number of new states.
    context, block
        Largest number of known states that condition a block, and number of new states in a block. A block with fewer
        known states has more new ones.
    sampler, method
        The sampler, and the method by which the known states guide it.
    error
        Standard deviation e of the known states, in normalised units.
    variance
        The measured variance of each channel given z, for methods that need it.
    parameters
        Numbers of the channels of parameters.
    seed, members
        The noise of a member depends on ``seed``, the number of the block and the number of the member only.
    tick
        Called with the number of members after every evaluation.

    Returns
    -------
    The new states, shape (members, steps, channel, *space).
    """
    start = known.shape[1]
    numbers = range(len(known)) if members is None else members
    length = context + block
    for number, held in enumerate(blocks(start, steps, context, block)):
        likelihood = observe_states(known[:, known.shape[1] - held :], error, variance, parameters=parameters)
        guided = method.guide(denoiser_at(known.shape[1] - held, length), [likelihood])
        stream = unit_seed(seed, number)
        noise = member_noise(stream, numbers, (length, *known.shape[2:]), known.device)
        drawn = sampler(guided, noise, lambda: tick(len(numbers)), guided.pin)
        known = torch.cat([known, drawn[:, held:].to(known)], dim=1)
    return known[:, start : start + steps]
