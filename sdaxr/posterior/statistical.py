r"""Statistical linearisation: what a nonlinear operator does to states that are not yet known.

Linearised around :math:`\hat x`, a sine has a slope of the full size even where the prior leaves several of its periods
open, and a sensor that saturates none beyond its range. With x given z Gaussian, of mean :math:`\hat x` and covariance
V, the linear function of x that is nearest to H in the mean square is (Gelb 1974, section 6.2)

.. math:: E[H(x)] + E[H'(x)]\,(x - \hat x),

and what it misses is noise of the observation. Expectations are means over pairs :math:`\hat x \pm \delta` with
:math:`\delta \sim N(0, V)`; of a linear operator they are exact, and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Linearised


def linearise(
    observations: Sequence[GaussianObservation], linear: Sequence[bool], x: Tensor, draws: Tensor
) -> tuple[Linearised, Tensor]:
    """The misfit -e around states of which some things are open, and what it misses.

    Parameters
    ----------
    observations, linear
        The networks, and whether the operator of each is linear.
    x
        Means of the states, (batch, time, channel, *space).
    draws
        Deviations from them, (draw, time, channel, *space); each is taken with both signs.

    Returns
    -------
    Mean misfit with its mean slope, in units of the errors; and the mean square of what they miss, shape (batch, n).
    """
    pairs = torch.cat([draws, -draws])
    networks = list(zip(observations, linear, strict=True))

    def seen(network: GaussianObservation, states: Tensor) -> Tensor:
        """H of the pairs, (batch, 2 draws, n)."""
        return network.operator((states.unsqueeze(1) + pairs).flatten(0, 1)).unflatten(0, (len(states), len(pairs)))

    def mean(states: Tensor) -> Tensor:
        parts = [o.operator(states) if exact else seen(o, states).mean(1) for o, exact in networks]
        return torch.cat([o.whiten(m - o.values) for o, m in zip(observations, parts, strict=True)], dim=1)

    around = Linearised(mean, x)
    slopes = torch.stack([around.forward(d.expand_as(x)) for d in draws], dim=1)
    parts = slopes.split([o.values.shape[-1] for o in observations], dim=-1)
    missed = [
        torch.zeros_like(slope[:, 0]) if exact else _missed(o, seen(o, x.detach()), slope)
        for (o, exact), slope in zip(networks, parts, strict=True)
    ]
    return around, torch.cat(missed, dim=1)


def _missed(network: GaussianObservation, seen: Tensor, slopes: Tensor) -> Tensor:
    """Mean square of what is even in the deviations, and of what is odd and not linear, in units of errors."""
    plus, minus = seen.detach().chunk(2, dim=1)
    even = (plus + minus) / 2
    even, odd = (
        torch.stack([network.whiten(draw) for draw in v.unbind(1)], dim=1)
        for v in (even - even.mean(1, keepdim=True), (plus - minus) / 2)
    )
    return (even.square() + (odd - slopes).square()).mean(1)
