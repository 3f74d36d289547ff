r"""Statistical linearisation: what a nonlinear operator does to states that are not yet known.

Linearised around :math:`\hat x`, a sine has a slope of the full size even where the prior leaves several of its periods
open, and a sensor that saturates none beyond its range. With x given z Gaussian, of mean :math:`\hat x` and covariance
V, the linear function of x that is nearest to H in the mean square is (Gelb 1974, section 6.2)

.. math:: E[H(x)] + E[H'(x)]\,(x - \hat x),

and what it misses is noise of the observation. Expectations of an operator that is a function f of each value of
something affine are integrals in one dimension, by quadrature, and :math:`E[f'] = E[f(a) (a - E a)] / \mathrm{Var}[a]`
(Stein's lemma). Of others they are means over pairs :math:`\hat x \pm \delta` with :math:`\delta \sim N(0, V)`; of a
linear operator they are exact, and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation, Pointwise
from sdaxr.posterior.linear import Linearised

_NODES = 16


def linearise(
    observations: Sequence[GaussianObservation], linear: Sequence[bool], x: Tensor, draws: Tensor
) -> tuple[Linearised, Tensor]:
    """The residual -e around states that are known in part, and what its linearisation misses.

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
    Mean residual with its mean slope, in units of the errors; and the mean square of what they miss, shape (batch, n).
    """
    parts = [_expected(o, exact, x, draws) for o, exact in zip(observations, linear, strict=True)]

    def mean_residual(states: Tensor) -> Tensor:
        return torch.cat([o.whiten(m(states) - o.values) for o, (m, _) in zip(observations, parts, strict=True)], dim=1)

    return Linearised(mean_residual, x), torch.cat([missed for _, missed in parts], dim=1)


def _expected(
    network: GaussianObservation, exact: bool, x: Tensor, draws: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """E[H] as a function of the mean state, and the mean square of what its slope misses, in units of the errors."""
    if exact:
        return network.operator, x.new_zeros(len(x), network.values.shape[-1])
    if network.pointwise is not None and network.correlation is None:
        return _by_quadrature(network, network.pointwise, x, draws)
    pairs = torch.cat([draws, -draws])

    def seen(states: Tensor) -> Tensor:
        """H of the pairs, (batch, 2 draws, n)."""
        found = network.operator((states.unsqueeze(1) + pairs).flatten(0, 1))
        return found.reshape(len(states), len(pairs), -1)

    around = Linearised(lambda states: network.whiten(seen(states).mean(1)), x)
    slopes = torch.stack([around.forward(d.expand_as(x)) for d in draws], dim=1)
    return lambda states: seen(states).mean(1), _missed(network, seen(x.detach()), slopes)


@torch.no_grad()
def _by_quadrature(
    network: GaussianObservation, pointwise: Pointwise, x: Tensor, draws: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    centre = pointwise.inner(x)
    deviations = pointwise.inner(draws) - pointwise.inner(torch.zeros_like(draws[:1]))
    sizes = torch.bincount(pointwise.group)
    square = torch.zeros(len(sizes)).to(x).index_add_(0, pointwise.group, deviations.square().mean(0)) / sizes
    # Narrower than this, a function has no bend that single precision could tell.
    sd = square.sqrt().clamp_min(1e-3 * float(centre.square().mean().sqrt()))[pointwise.group]
    mean, slope, second = (torch.zeros_like(centre) for _ in range(3))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        value = pointwise.outer(centre + node * sd)
        mean, slope, second = mean + weight * value, slope + weight * node * value, second + weight * value.square()
    missed = (second - mean.square() - slope.square()).clamp_min(0.0) / network.errors.square()
    return lambda states: mean + slope / sd * (pointwise.inner(states) - centre), missed


def _missed(network: GaussianObservation, seen: Tensor, slopes: Tensor) -> Tensor:
    """Mean square of what is even in the deviations, and of what is odd and not linear, in units of errors."""
    plus, minus = seen.detach().chunk(2, dim=1)
    even = (plus + minus) / 2
    even, odd = (
        torch.stack([network.whiten(draw) for draw in v.unbind(1)], dim=1)
        for v in (even - even.mean(1, keepdim=True), (plus - minus) / 2)
    )
    return (even.square() + (odd - slopes).square()).mean(1)
