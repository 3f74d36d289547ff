r"""Observation errors that are not Gaussian, as mixtures of Gaussians (Alspach & Sorenson 1972).

A family of errors is a function T of a standard normal variable g (`sdaxr.observations.noise`). With evenly spaced
nodes :math:`g_k`,

.. math:: g = g_k + \tau \delta, \qquad w_k \propto e^{-g_k^2 / (2 (1 - \tau^2))}, \qquad \delta \sim N(0, 1) .

Given the node, T(g) is approximated by a Gaussian of the same mean and variance. Components are narrow where the
density is high, and wide in the tails. White noise contributes the fraction :math:`s^2` of the variance, so that the
score is finite where a density has an edge. The mixture

.. math:: p(\epsilon) = \sum_k w_k N(\epsilon | m_k, v_k), \qquad v_k \ge s^2,

has the mean zero and the variance one, as the family has. Let V be the variance of H(x) given z. Convolved with
N(0, V), the mixture has the variances :math:`v_k + V`. This convolution is exact for every V.

Methods that solve a linear system with R need one Gaussian N(b, R) in the place of each error. The mean b is the mode
of the convolved density. The variance R is chosen such that N(b, R + V) has the score of the mixture at the innovation
d,

.. math:: \frac{d - b}{R + V} = -\frac{\partial}{\partial d} \log p(d), \qquad p(d) = \sum_k w_k N(d | m_k, v_k + V).

R is never below :math:`s^2`. For a family with heavy tails, R is large at an outlier, as in the reweighting of robust
regression (Holland & Welsch 1977); here the weight follows from the density that is convolved for the noise level r.
For a single observation the guidance is that of the mixture itself.

References
----------
.. [1] Alspach, D. L. & Sorenson, H. W. (1972). Nonlinear Bayesian estimation using Gaussian sum approximations.
   doi:10.1109/TAC.1972.1100034
.. [2] Holland, P. W. & Welsch, R. E. (1977). Robust regression using iteratively reweighted least-squares.
   doi:10.1080/03610927708827533
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from sdaxr.observations.noise import GAUSSIAN, noise_of
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.schema import OptionError

SHARE = 0.1  # s: white noise has a hundredth of the variance of an error.
# Spacing of the nodes g_k, the last node, and tau. The spacing is close to tau, so that the components overlap.
_SPACING, _REACH, _TAU = 0.25, 5.0, 0.2
_VARIANCES = np.geomspace(1e-3, 1e3, 49)  # Values of V for which b is tabulated.
_NEAR = 1e-2  # Least distance of d from b at which R is evaluated: at b, both d - b and the score are zero.
_LARGEST = 1e6  # Bound of R, which is infinite where the density is flat.
_CHUNK = 2**18  # Elements that are evaluated at once, which bounds the memory.


@dataclass(frozen=True)
class Mixture:
    """The distributions of n errors, each in units of its standard deviation.

    Attributes
    ----------
    family
        Index of the family of each error, 0 to F - 1, shape (n,).
    log_weights, means, variances
        log w, m and v of the K components of F families, shape (K, F).
    """

    family: Tensor
    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def of(cls, names: Sequence[str] | np.ndarray, like: Tensor) -> Mixture:
        """The mixtures of errors of these families, shape (n,), with the type and the device of ``like``."""
        families, index = np.unique(np.asarray(names), return_inverse=True)
        tables = np.stack([components(str(name)) for name in families], axis=-1)
        return cls(torch.as_tensor(index, device=like.device), *torch.as_tensor(tables).to(like))

    def log_density(self, d: Tensor) -> Tensor:
        """log p of errors d, shape (batch, n)."""
        return self.log_convolved(d, torch.zeros_like(d[0]))

    def log_convolved(self, d: Tensor, variance: Tensor) -> Tensor:
        """log p at innovations d (batch, n), for p convolved with N(0, variance), shape (n,)."""
        return self._convolved(d, variance)[0]

    def score(self, d: Tensor, variance: Tensor) -> Tensor:
        """The derivative of -log p at innovations d (batch, n), for p convolved with N(0, variance), shape (n,)."""
        return self._convolved(d, variance)[1]

    def matched(self, d: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """b, shape (n,), and R, shape (batch, n), for innovations d and variances V as in `score`."""
        b = self.mode(variance)
        distance = torch.copysign((d - b).abs().clamp_min(_NEAR), d - b)
        _, score, error = self._convolved(b + distance, variance)
        # R = (d - b) / score - V, written without the difference of large numbers.
        matched = (error - b) / torch.copysign(score.abs().clamp_min(1e-30), distance)
        return b, matched.clamp(SHARE**2, _LARGEST)

    def mode(self, variance: Tensor) -> Tensor:
        """b for variances V, shape (n,), interpolated in log V."""
        first, last = math.log(_VARIANCES[0]), math.log(_VARIANCES[-1])
        place = (variance.clamp(_VARIANCES[0], _VARIANCES[-1]).log() - first) / (last - first) * (len(_VARIANCES) - 1)
        lower = place.long().clamp_max(len(_VARIANCES) - 2)
        return torch.lerp(self._modes[lower, self.family], self._modes[lower + 1, self.family], place - lower)

    @cached_property
    def _modes(self) -> Tensor:
        """b of the families for `_VARIANCES`, shape (49, F), by bisection: each density has one maximum."""
        families = self.means.shape[1]
        tables = (a.double() for a in (self.log_weights, self.means, self.variances))
        every = Mixture(torch.arange(families, device=self.means.device).repeat(len(_VARIANCES)), *tables)
        variance = torch.as_tensor(_VARIANCES, device=self.means.device).repeat_interleave(families)
        # The mode of a density with one maximum is at most sqrt(3) standard deviations from its mean, which is zero. As
        # V grows, the mode of the convolved density approaches the mean.
        lower, upper = -(3**0.5) * torch.ones_like(variance), 3**0.5 * torch.ones_like(variance)
        for _ in range(40):
            middle = (lower + upper) / 2
            beyond = every.score(middle[None], variance)[0] > 0
            lower, upper = torch.where(beyond, lower, middle), torch.where(beyond, middle, upper)
        return ((lower + upper) / 2).reshape(-1, families).to(self.means)

    def _convolved(self, d: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p(d), the derivative of -log p, and the mean of the error given d, each of shape (batch, n)."""
        size = max(1, _CHUNK // (len(self.means) * len(d)))
        found = []
        for some, extra, family in zip(*(a.split(size, dim=-1) for a in (d, variance, self.family)), strict=True):
            log_weights, means, own = (a[:, None, family] for a in (self.log_weights, self.means, self.variances))
            slopes = (some - means) / (own + extra)
            joint = log_weights - ((own + extra).log() + slopes * (some - means)) / 2
            log_density = joint.logsumexp(0)
            weights = (joint - log_density).exp()
            found.append((log_density, (weights * slopes).sum(0), (weights * (means + own * slopes)).sum(0)))
        log_density, score, error = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return log_density - math.log(2 * math.pi) / 2, score, error


@dataclass(frozen=True)
class MixtureObservation(GaussianObservation):
    """Observations whose errors are independent mixtures of Gaussians.

    `covariance` and `whiten` need R only: they treat the errors as Gaussian, with the same standard deviations.

    Attributes
    ----------
    mixture
        Distributions of the errors.
    """

    mixture: Mixture = field(kw_only=True)

    def log_likelihood(self, innovation: Tensor, variance: Tensor) -> Tensor:
        """log p of innovations (batch, n), for p convolved with N(0, variance), up to a constant; shape (batch,)."""
        return self.mixture.log_convolved(innovation / self.errors, variance / self.errors.square()).sum(1)

    def weigh(self, values: Tensor, variance: Tensor) -> Tensor:
        """The derivative of -log p at innovations (batch, n), for a variance of H(x) given z of shape (n,)."""
        return self.mixture.score(values / self.errors, variance / self.errors.square()) / self.errors

    def matched(self, x: Tensor, r: float) -> GaussianObservation:
        """Gaussian observations with the same score: errors and values (batch, n) for each member x at noise level r.

        Raises
        ------
        OptionError
            If the variance of H(x) given z has not been measured.
        """
        if self.unresolved is None:
            raise OptionError(
                "errors that are not Gaussian need the variance of the observed quantities given z, found it not "
                "measured; pass unresolved="
            )
        with torch.no_grad():
            d = self.innovation(x) / self.errors
        b, variance = self.mixture.matched(d, self.unresolved(r) / self.errors.square())
        values, errors = self.values - self.errors * b, self.errors * variance.sqrt()
        return GaussianObservation(self.operator, values, errors, self.scale, self.unresolved, pointwise=self.pointwise)

    def deviance(self, x: Tensor) -> Tensor:
        """-2 log p(y | x) minus its smallest value; shape (batch,)."""
        largest = self.mixture.log_density(self.mixture.mode(torch.zeros_like(self.errors))[None])
        return 2 * (largest - self.mixture.log_density(self.innovation(x) / self.errors)).sum(1)


def log_density(errors: np.ndarray, name: str) -> np.ndarray:
    """log p of errors of one family, in units of their standard deviation, of any shape; exact for Gaussian errors."""
    if name == GAUSSIAN:
        return -(errors**2) / 2 - math.log(2 * math.pi) / 2
    d = torch.as_tensor(errors, dtype=torch.float64).reshape(1, -1)
    return Mixture.of(np.full(d.shape[1], name), d).log_density(d).reshape(errors.shape).numpy()


@lru_cache
def components(name: str) -> np.ndarray:
    """log w, m and v of the components of a family, shape (3, K).

    Raises
    ------
    OptionError
        If there is no such family.
    """
    transform = noise_of(name)
    nodes = np.arange(-_REACH, _REACH + _SPACING / 2, _SPACING)
    weights = np.exp(-(nodes**2) / 2 / (1 - _TAU**2))
    weights /= weights.sum()
    delta, quadrature = np.polynomial.hermite_e.hermegauss(64)
    quadrature /= quadrature.sum()
    values = transform(nodes[:, None] + _TAU * delta)
    means = values @ quadrature
    variances = (values - means[:, None]) ** 2 @ quadrature
    # The nodes end at _REACH. Shift and scale restore the mean zero and the variance one.
    means -= weights @ means
    factor = (1 - SHARE**2) / (weights @ (means**2 + variances))
    return np.stack([np.log(weights), means * factor**0.5, variances * factor + SHARE**2])
