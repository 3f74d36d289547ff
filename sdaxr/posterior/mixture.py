r"""Errors that are not Gaussian, as mixtures of Gaussians.

A family of errors is a function T of a standard normal number g (`sdaxr.observations.noise`). With evenly spaced nodes,

.. math:: g = g_k + \tau \delta, \qquad w_k \propto e^{-g_k^2 / 2 (1 - \tau^2)}, \qquad \delta \sim N(0, 1),

and given the node T(g) is taken for Gaussian, with its mean and variance: components are narrow where the density is
high, and wide in the tails. A share s^2 of the variance is white noise, so that the score is finite where a density has
an edge. The mixture

.. math:: p(\epsilon) = \sum_k w_k N(\epsilon | m_k, v_k), \qquad v_k \ge s^2,

has mean zero and variance one as the family has. Convolved with N(0, V), which is what z leaves open of H(x), each
:math:`v_k` becomes :math:`v_k + V`: nothing more is approximated, for any V.

Methods that solve a linear system with R need one Gaussian N(b, R) in the place of each error. With b where the
convolved density is largest, R is that with the score of the family at the innovation d,

.. math:: \frac{d - b}{R + V} = -\frac{\partial}{\partial d} \log p(d), \qquad p(d) = \sum_k w_k N(d | m_k, v_k + V).

It is never below :math:`s^2`, and large for an outlier of heavy tails: the reweighting of robust regression (Holland &
Welsch 1977), for the density that the level r sees. For a single observation the guidance is that of the family.
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

SHARE = 0.1  # s
_SPACING, _REACH, _TAU = 0.25, 5.0, 0.2
_VARIANCES = np.geomspace(1e-3, 1e3, 49)  # for which b is tabulated
_NEAR = 1e-2  # nearer to b, R is as it is there
_LARGEST = 1e6  # R, where the density is flat
_CHUNK = 2**18  # numbers at once


@dataclass(frozen=True)
class Mixture:
    """The distributions of n errors, each in units of its standard deviation.

    Attributes
    ----------
    family
        Which of F families each error is of, shape (n,).
    log_weights, means, variances
        log w, m and v of the families, shape (K, F).
    """

    family: Tensor
    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def of(cls, names: Sequence[str] | np.ndarray, like: Tensor) -> Mixture:
        """From the family of each error, shape (n,); of the type of ``like``, and on its device."""
        families, index = np.unique(np.asarray(names), return_inverse=True)
        tables = np.stack([components(str(name)) for name in families], axis=-1)
        return cls(torch.as_tensor(index, device=like.device), *torch.as_tensor(tables).to(like))

    def log_density(self, d: Tensor) -> Tensor:
        """log p of errors, shape (batch, n)."""
        return self._convolved(d, torch.zeros_like(d[0]))[0]

    def score(self, d: Tensor, variance: Tensor) -> Tensor:
        """-d log p / dd at innovations d, shape (batch, n), for p convolved with N(0, variance), shape (n,)."""
        return self._convolved(d, variance)[1]

    def matched(self, d: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """b, shape (n,), and R, shape (batch, n), for innovations d and variances V as in `score`."""
        b = self.mode(variance)
        away = torch.copysign((d - b).abs().clamp_min(_NEAR), d - b)
        _, score, error = self._convolved(b + away, variance)
        # (d - b) / score - V, written without the difference of large numbers.
        r = (error - b) / torch.copysign(score.abs().clamp_min(1e-30), away)
        return b, r.clamp(SHARE**2, _LARGEST)

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
        # The mode of a family is within the root of three standard deviations of the mean, and moves to it with V.
        lower, upper = -(3**0.5) * torch.ones_like(variance), 3**0.5 * torch.ones_like(variance)
        for _ in range(40):
            middle = (lower + upper) / 2
            beyond = every.score(middle[None], variance)[0] > 0
            lower, upper = torch.where(beyond, lower, middle), torch.where(beyond, middle, upper)
        return ((lower + upper) / 2).reshape(-1, families).to(self.means)

    def _convolved(self, d: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p(d), -d log p / dd, and the mean of the error given d, each of shape (batch, n)."""
        size = max(1, _CHUNK // (len(self.means) * len(d)))
        found = []
        for some, spread, family in zip(*(a.split(size, dim=-1) for a in (d, variance, self.family)), strict=True):
            log_weights, means, own = (a[:, None, family] for a in (self.log_weights, self.means, self.variances))
            slopes = (some - means) / (own + spread)
            joint = log_weights - ((own + spread).log() + slopes * (some - means)) / 2
            log_density = joint.logsumexp(0)
            shares = (joint - log_density).exp()
            found.append((log_density, (shares * slopes).sum(0), (shares * (means + own * slopes)).sum(0)))
        log_density, score, error = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return log_density - math.log(2 * math.pi) / 2, score, error


@dataclass(frozen=True)
class MixtureObservation(GaussianObservation):
    """Observations whose errors are mixtures of Gaussians, and independent.

    What asks for R alone (`covariance`, `whiten`) takes them for Gaussian with these standard deviations.

    Attributes
    ----------
    mixture
        Distributions of the errors.
    """

    mixture: Mixture = field(kw_only=True)

    def weigh(self, values: Tensor, variance: Tensor) -> Tensor:
        """-d log p / dd at innovations (batch, n), for a variance of H(x) given z of shape (n,)."""
        return self.mixture.score(values / self.errors, variance / self.errors.square()) / self.errors

    def matched(self, x: Tensor, r: float) -> GaussianObservation:
        """Gaussian observations, whose errors (batch, n) and values are those of each member x at the level r.

        Raises
        ------
        OptionError
            If the variance of H(x) given z has not been measured.
        """
        if self.unresolved is None:
            raise OptionError(
                "errors that are not Gaussian need the variance of what is observed, found it not measured; pass "
                "unresolved="
            )
        with torch.no_grad():
            d = self.innovation(x) / self.errors
        b, variance = self.mixture.matched(d, self.unresolved(r) / self.errors.square())
        values, errors = self.values - self.errors * b, self.errors * variance.sqrt()
        return GaussianObservation(self.operator, values, errors, self.scale, self.unresolved, pointwise=self.pointwise)

    def deviance(self, x: Tensor) -> Tensor:
        """-2 log p(y | x), above its least value; shape (batch,)."""
        largest = self.mixture.log_density(self.mixture.mode(torch.zeros_like(self.errors))[None])
        return 2 * (largest - self.mixture.log_density(self.innovation(x) / self.errors)).sum(1)


def log_density(errors: np.ndarray, name: str) -> np.ndarray:
    """log p of errors of a family, in units of their standard deviation, of any shape; exact where it is Gaussian."""
    if name == GAUSSIAN:
        return -(errors**2) / 2 - math.log(2 * math.pi) / 2
    d = torch.as_tensor(errors, dtype=torch.float64).reshape(1, -1)
    return Mixture.of(np.full(d.shape[1], name), d).log_density(d).reshape(errors.shape).numpy()


@lru_cache
def components(name: str) -> np.ndarray:
    """log w, m and v of a family, shape (3, K).

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
    # The nodes end somewhere: the moments that are missing there are given back.
    means -= weights @ means
    factor = (1 - SHARE**2) / (weights @ (means**2 + variances))
    return np.stack([np.log(weights), means * factor**0.5, variances * factor + SHARE**2])
