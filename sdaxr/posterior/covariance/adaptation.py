r"""Variances of a Gaussian process that follow the observations of a window.

The weather of a week has more, or less, variance at some frequencies than that of the weeks of the training. With the
variances :math:`a_b S` for the frequencies of octave b, the innovations d are a draw of
:math:`N(0, R + \sum_b a_b H B_b H^T)`. Taken are the factors of the largest posterior density (maximum likelihood
estimation of covariance parameters; Dee 1995, doi:10.1175/1520-0493(1995)123<1128:OLEOEC>2.0.CO;2), with

.. math:: \log a_b \sim N(0, s^2)

a priori: where observations say little, the factors stay at 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sdaxr.posterior.covariance.eofs import System
from sdaxr.posterior.linear import Likelihood, residual
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.prior.eofs import Eofs, spectrum

# s, the standard deviation of the logarithms of the factors: a variance of a third to three times the usual one.
_SPREAD = 0.5
# So many observations, drawn at random, tell the factors; their coefficients in cosines and EOFs are so many numbers.
_OBSERVATIONS, _NUMBERS = 600, 2**26


def variance_factors(modes: Eofs, likelihood: Likelihood, like: Tensor) -> Tensor | None:
    """Factors of the variances of `Eofs`, (length, 1), on the CPU; None where operators or errors do not give them.

    Parameters
    ----------
    modes
        EOFs, with their variances by frequency.
    likelihood
        Observations; only those with linear operators and Gaussian errors tell the factors.
    like
        States (1, time, channel, *space).
    """
    if not all(likelihood.linear(like)) or any(isinstance(o, MixtureObservation) for o in likelihood.networks):
        return None
    system, e = _sample(modes, likelihood, like)
    if system is None:
        return None
    octaves = _octaves(len(modes.variances))
    parts = []
    for octave in range(int(octaves.max()) + 1):
        inside = (octaves == octave).to(modes.variances)[:, None]
        parts.append(system.product(spectrum(modes.variances * inside, like.shape[1], modes.variances)).cpu())
    logarithms = _most_likely(torch.stack(parts), e.double().cpu())
    return logarithms.exp()[octaves][:, None]


def _sample(modes: Eofs, likelihood: Likelihood, like: Tensor) -> tuple[System | None, Tensor]:
    """The linear system of some of the observations, and their whitened innovations from the mean of the prior."""
    count = sum(len(o.errors) for o in likelihood.networks)
    most = min(count, _OBSERVATIONS, max(1, _NUMBERS // (like.shape[1] * (modes.rank + 1))))
    drawn = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
    some, first = [], 0
    for network in likelihood.networks:
        inside = drawn[(drawn >= first) & (drawn < first + len(network.errors))] - first
        first += len(network.errors)
        if len(inside):
            some.append(network.part(torch.as_tensor(inside, device=like.device)))
    return System.of(some, modes, like), -residual(some, like).value[0]


def _octaves(length: int) -> Tensor:
    """The octave of each frequency: 0 for the mean, then 1, 2-3, 4-7, ... half cycles in the series."""
    return torch.tensor([0 if wave == 0 else 1 + int(math.log2(wave)) for wave in range(length)])


def _most_likely(parts: Tensor, e: Tensor) -> Tensor:
    """Logarithms of the factors (b,) for innovations e (n,) with the covariance I + sum of factors times parts."""
    identity = torch.eye(len(e), dtype=torch.float64)

    def cost(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        factors = torch.as_tensor(logarithms).exp()
        root = torch.linalg.cholesky(identity + torch.tensordot(factors, parts, 1))
        inverse = torch.cholesky_inverse(root)
        weights = inverse @ e
        value = 0.5 * float(e @ weights) + float(root.diagonal().log().sum())
        slope = 0.5 * factors * ((inverse - torch.outer(weights, weights)) * parts).sum((1, 2))
        prior = logarithms / _SPREAD**2
        return value + 0.5 * float(logarithms @ prior), slope.numpy() + prior

    found = minimize(cost, np.zeros(len(parts)), jac=True, method="L-BFGS-B", bounds=[(-4.0, 4.0)] * len(parts))
    return torch.as_tensor(found.x)
