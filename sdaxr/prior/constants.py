r"""Channels that are one number: the noise of a parameter is shared by all times and points.

A constant channel with independent noise of level r in each of its N values is known to :math:`r / \sqrt{N}`. A
parameter would be decided at noise levels at which nothing is known of the states, before observations can tell of it.
The diffusion therefore is one of the states and of the single number :math:`\theta`,

.. math:: z = (x + r \epsilon, \; \theta + r \epsilon_\theta), \qquad \epsilon_\theta \sim N(0, 1),

whose level is resolved as late as the states are. In a tensor the number is the first value of its channel, and the
denoiser sees it at all times and points. The other values are copies without a meaning of their own: whatever noise
they have, the denoiser does not see it. Its estimate is the mean over the channel, which is constant. A derivative by
the number is the sum of the derivatives by its copies, and is given to all of them: guidance moves the whole channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def as_numbers(z: Tensor, channels: Sequence[int]) -> Tensor:
    """``z`` (batch, time, channel, *space), each of ``channels`` filled with its first value."""
    return _replaced(z, channels, lambda channel: channel[:, :1].expand_as(channel))


def shared(z: Tensor, channels: Sequence[int]) -> Tensor:
    """The same, with the derivative by the number in the place of those by all values of the channel."""
    return _replaced(z, channels, _Shared.apply)


def as_means(x: Tensor, channels: Sequence[int]) -> Tensor:
    """``x`` (batch, time, channel, *space), each of ``channels`` filled with its mean over times and points."""
    return _replaced(x, channels, lambda channel: channel.mean(1, keepdim=True).expand_as(channel))


def unlearnt(shortest: int, longest: int, length: int) -> str | None:
    """What is wrong with the parameters of a trajectory of ``length`` states; None where nothing is.

    Near the ends of a trajectory the network knows less. The mean over the trajectory has an error from there, which is
    learnt for the lengths of the training, from ``shortest`` to ``longest``, and is another one at other lengths.
    Lengths that differ by less than a tenth count as learnt.
    """
    if 0.9 * shortest < length < 1.1 * longest:
        return None
    lengths = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
    return (
        f"parameters are means over trajectories, learnt on {lengths} states, and these have {length}: they may be "
        "biased; take a window of such a length, or train with optimisation={'shortest': ...}"
    )


def _replaced(x: Tensor, channels: Sequence[int], function: Any) -> Tensor:
    parts = list(x.unbind(2))
    for number in channels:
        parts[number] = function(parts[number].flatten(1)).reshape(parts[number].shape)
    return torch.stack(parts, dim=2)


class _Shared(torch.autograd.Function):
    """The first of the values of a channel, (batch, n), in the place of all; the gradient is that by one number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 (the signature of torch)
        return values[:, :1].expand_as(values).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.sum(1, keepdim=True).expand_as(gradient)
