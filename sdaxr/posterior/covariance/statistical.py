r"""Statistical linearisation of nonlinear observation operators.

Let x given z be Gaussian, with the mean :math:`\hat x` and the covariance V. The affine function of x that is nearest
to H in the mean square is (Gelb 1974, section 6.2)

.. math:: E[H(x)] + E[H'(x)]\,(x - \hat x) .

The remainder, H minus this function, is treated as further noise of the observation.

The tangent :math:`H'(\hat x)` would mislead at large uncertainty. A sine keeps its full slope even if x is unknown by
several periods, and a sensor that saturates has no slope at all beyond its range.

The expectations are computed as follows.

- Linear operators: exactly.
- Operators :math:`H(x) = f(a)` of each value a of an affine function of x: by quadrature in one dimension, with
  :math:`E[f'(a)] = E[f(a) (a - E[a])] / \mathrm{Var}[a]` (Stein 1981).
- Other operators: as means over pairs :math:`\hat x \pm \delta` with :math:`\delta \sim N(0, V)`.

References
----------
.. [1] Gelb, A. (ed.) (1974). Applied optimal estimation. MIT Press.
.. [2] Stein, C. M. (1981). Estimation of the mean of a multivariate normal distribution. doi:10.1214/aos/1176345632
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sdaxr.posterior.likelihood import GaussianObservation, Pointwise
from sdaxr.posterior.linear import Linearised

# Nodes of the Gauss-Hermite quadrature: exact for polynomials of degree 31.
_NODES = 16


def linearise(
    observations: Sequence[GaussianObservation], linear: Sequence[bool], x: Tensor, draws: Tensor
) -> tuple[Linearised, Tensor]:
    """The residual -e, linearised statistically around uncertain states.

    Parameters
    ----------
    observations, linear
        The networks of observations, and whether the operator of each is linear.
    x
        Means of the states, (batch, time, channel, *space).
    draws
        Deviations of the states from x, (draw, time, channel, *space); each is used with both signs.

    Returns
    -------
    The expected residual with its expected Jacobian, in units of the errors; and the mean square of the remainder, in
    units of the squared errors, shape (batch, n).
    """
    parts = [_expected(o, exact, x, draws) for o, exact in zip(observations, linear, strict=True)]

    def mean_residual(states: Tensor) -> Tensor:
        return torch.cat([o.whiten(m(states) - o.values) for o, (m, _) in zip(observations, parts, strict=True)], dim=1)

    return Linearised(mean_residual, x), torch.cat([missed for _, missed in parts], dim=1)


def _expected(
    network: GaussianObservation, exact: bool, x: Tensor, draws: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """E[H] as a function of the mean state, and the mean square of the remainder in units of the squared errors."""
    if exact:
        return network.operator, x.new_zeros(len(x), network.values.shape[-1])
    if network.pointwise is not None and network.independent:
        return _by_quadrature(network, network.pointwise, x, draws)
    pairs = torch.cat([draws, -draws])

    def seen(states: Tensor) -> Tensor:
        """H of both states of each pair, (batch, 2 draws, n)."""
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
    # A function over a narrower interval is linear to single precision.
    sd = square.sqrt().clamp_min(1e-3 * float(centre.square().mean().sqrt()))[pointwise.group]
    mean, slope, second = (torch.zeros_like(centre) for _ in range(3))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        value = pointwise.outer(centre + node * sd)
        mean, slope, second = mean + weight * value, slope + weight * node * value, second + weight * value.square()
    missed = (second - mean.square() - slope.square()).clamp_min(0.0) / network.errors.square()
    return lambda states: mean + slope / sd * (pointwise.inner(states) - centre), missed


def _missed(network: GaussianObservation, seen: Tensor, slopes: Tensor) -> Tensor:
    """Mean square of the remainder, in units of the squared errors, (batch, n).

    The remainder has a part that is even in the deviations, and an odd part, from which the linear part is subtracted.
    """
    plus, minus = seen.detach().chunk(2, dim=1)
    even = (plus + minus) / 2
    even, odd = (
        torch.stack([network.whiten(draw) for draw in v.unbind(1)], dim=1)
        for v in (even - even.mean(1, keepdim=True), (plus - minus) / 2)
    )
    return (even.square() + (odd - slopes).square()).mean(1)
