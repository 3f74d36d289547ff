r"""The power of an approximate likelihood that makes it as informative as it is, measured at each noise level.

.. math:: \tilde p(y | z) = \prod_i N(y_i | H_i(\hat x), R_i + U_i)

takes the observed quantities for independent given z. In a chaotic chain they are not: at noise levels at which a few
trajectories are possible, all observations tell the same thing, and the product counts it several times. The power
:math:`b` with which :math:`\tilde p^b` best tells the observations of one held-out trajectory from those of others
maximises (van den Oord et al. 2018, equation 4)

.. math:: \frac{1}{n} \sum_j \log \frac{\tilde p(y_j | z_j)^b}{\tfrac{1}{n} \sum_k \tilde p(y_j | z_k)^b} ,

which is largest where the ratio is :math:`p(y | z) / p(y)`. Trajectories of one posterior are more alike than held-out
ones: among them the slope of log p(y | z) over :math:`\log \tilde p` is smaller. With the share
:math:`u = U / (R + U)` of the variance that is due to the noise,

.. math:: \beta(r) = b(r)^{3 u(r)}

was within 0.1 of this slope, which particle filters gave from r = 8 to 3 (``recipes/lorenz63/levels.py``).
At small r the errors of the observations dominate, and :math:`\beta` is 1.

References
----------
.. [1] van den Oord, A., Li, Y. & Vinyals, O. (2018). Representation learning with contrastive predictive coding.
   arXiv:1807.03748
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.unresolved import place_of
from sdaxr.posterior.covariance.variance import Variance
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.prior.held_out import HeldOut

# Powers that are tried; 1 counts the observations as independent.
_POWERS = torch.logspace(-2, 0, 41, dtype=torch.float64)
_ALIKE = 3.0
# Most trajectories, and about the most values in one array.
_TRAJECTORIES, _VALUES = 256, 2**24


@dataclass(frozen=True)
class Tempering:
    r"""The power :math:`\beta`, tabulated by noise level.

    Attributes
    ----------
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    powers
        :math:`\beta` at each of them, from 0 to 1.
    """

    levels: tuple[float, ...]
    powers: tuple[float, ...]

    def __call__(self, r: float) -> float:
        """The power at the noise level ``r``, interpolated linearly in log r."""
        lower, part = place_of(r, self.levels)
        return math.exp((1 - part) * math.log(self.powers[lower]) + part * math.log(self.powers[lower + 1]))

    @classmethod
    def measure(
        cls, networks: Sequence[GaussianObservation], variance: Variance, held_out: HeldOut, length: int
    ) -> Tempering:
        """Measure the power on held-out windows.

        Parameters
        ----------
        networks
            The observations, whose operators take trajectories of ``length`` states.
        variance
            U.
        held_out
            Windows of known states, and the denoised windows at each noise level.
        length
            Number of states of a trajectory.
        """
        random = torch.Generator().manual_seed(0)
        most = min(_TRAJECTORIES, max(16, _VALUES // (64 * sum(o.values.shape[-1] for o in networks))))
        known = trajectories(held_out.states, length, most)
        with torch.no_grad():
            seen = [o.operator(known) for o in networks]
            noise = [torch.randn(y.shape, generator=random).to(y) for y in seen]
            drawn = [y + o.errors * e for o, y, e in zip(networks, seen, noise, strict=True)]
            powers = []
            for r, denoised in zip(held_out.levels, held_out.denoised, strict=True):
                estimate = trajectories(denoised, length, most)
                logs = torch.zeros(len(known), len(known), dtype=torch.float64)
                for o, y in zip(networks, drawn, strict=True):
                    u, expected = variance.at(o, r), o.operator(estimate)
                    logs += torch.stack([o.log_likelihood(each - expected, u).double().cpu() for each in y])
                powers.append(best_power(logs) ** (_ALIKE * _unresolved_share(networks, variance, r)))
        return cls(held_out.levels, tuple(powers))


def trajectories(windows: Tensor, length: int, most: int) -> Tensor:
    """At most ``most`` trajectories of ``length`` states from windows (sample, time, ...).

    Long windows are cut at every half length; short ones are repeated.
    """
    window = windows.shape[1]
    if window < length:
        long = windows.repeat(1, -(-length // window), *[1] * (windows.ndim - 2))
        return long[:most, :length]
    starts = range(0, window - length + 1, max(1, length // 2))
    return torch.cat([windows[:, s : s + length] for s in starts])[:most]


def best_power(logs: Tensor) -> float:
    """The power b for a matrix of log p~(y_j | z_k), (n, n), in double precision."""
    tried = _POWERS[:, None, None] * logs
    gains = (tried.diagonal(dim1=1, dim2=2) - tried.logsumexp(2)).mean(1)
    return float(_POWERS[gains.argmax()])


def _unresolved_share(networks: Sequence[GaussianObservation], variance: Variance, r: float) -> float:
    """Mean of U / (R + U) over all observations."""
    parts = [(u / (o.errors.square() + u)).flatten() for o in networks for u in [variance.at(o, r)]]
    return float(torch.cat(parts).mean())
