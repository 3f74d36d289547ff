r"""Variances of a Gaussian process that follow the observations of a window.

The weather of a week has more, or less, variance at some frequencies than that of the weeks of the training, and seas
warm: the level of a month to come is what a record tells least. With the variances :math:`a_g S` for the frequencies of
octave g, and one more term for each channel, a constant c times the level :math:`u_c`, the innovations d are a draw of

.. math:: N(0, R + \sum_g a_g H B_g H^T + \sum_c k_c s_c\, H u_c u_c^T H^T)

with the usual variance :math:`s_c` of the level. Taken are the factors of the largest posterior density (maximum
likelihood estimation of covariance parameters; Dee 1995,
doi:10.1175/1520-0493(1995)123<1128:OLEOEC>2.0.CO;2), where :math:`\log a_g` and :math:`\log k_c` are normal a priori:
where observations say little, :math:`a_g` stays at 1, and :math:`k_c` at 0.1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sdaxr.posterior.covariance.eofs import System
from sdaxr.posterior.linear import Likelihood, residual
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.prior.eofs import Eofs, spectrum
from sdaxr.states.fields import StateLayout

# Means and standard deviations of the logarithms of the factors: an octave has a third to three times its usual
# variance; a level may be anywhere.
_OCTAVE, _LEVEL = (0.0, 0.5), (math.log(0.1), 2.0)
# Largest value of the pattern of a level over its median: where hardly anything varies, a level in units of the
# standard deviation would be that of these points alone.
_STEEPEST = 4.0
# So many observations, drawn at random, tell the factors; their coefficients in cosines and EOFs are so many numbers.
_OBSERVATIONS, _NUMBERS = 600, 2**26
_ROUNDING = 1e-6


def variance_factors(modes: Eofs, levels: Tensor, likelihood: Likelihood, like: Tensor) -> Tensor | None:
    """Factors of the octaves and of the levels, (g + m,), on the CPU; None where observations do not give them.

    Parameters
    ----------
    modes
        EOFs, with their variances by frequency.
    levels
        Patterns of unit length, (m, channel * point), see `level_patterns`.
    likelihood
        Observations; only those with linear operators and Gaussian errors tell the factors.
    like
        States (1, time, channel, *space).
    """
    if not all(likelihood.linear(like)) or any(isinstance(o, MixtureObservation) for o in likelihood.networks):
        return None
    modes = modes.spanning(levels)
    system, e = _sample(modes, likelihood, like)
    if system is None:
        return None
    octaves, usual, length = _octaves(len(modes.variances)), modes.variances, like.shape[1]
    parts = []
    for octave in range(int(octaves.max()) + 1):
        inside = (octaves == octave).to(usual)[:, None]
        parts.append(system.product(spectrum(usual * inside, length, usual)))
    scaled = _usual_levels(modes, levels, length) * length**0.5
    seen = system.whiten((system.resolved[:, 0] @ scaled.T).T).double()
    means, deviations = np.array([*[_OCTAVE] * len(parts), *[_LEVEL] * len(seen)]).T
    parts += [torch.outer(row, row) for row in seen]
    return _most_likely(torch.stack(parts).cpu(), e.double().cpu(), means, deviations).exp()


def adapted(modes: Eofs, levels: Tensor, factors: Tensor, length: int) -> Eofs:
    """The same EOFs with variances, and levels, that are multiplied by the factors; for series of ``length`` states."""
    modes = modes.spanning(levels)
    usual = _usual_levels(modes, levels, length)
    by_octave, by_level = factors.split([len(factors) - len(usual), len(usual)])
    shown = by_level.to(usual).sqrt()[:, None] * usual
    return modes.scaled(by_octave[_octaves(len(modes.variances))][:, None], shown)


def level_patterns(layout: StateLayout) -> Tensor:
    """A level that is the same at all points with data, in physical units, of each channel: (m, channel * point).

    That of a parameter is zero: the training trajectories tell how it varies.
    """
    patterns = np.ones((layout.channels, *layout.shape)) / layout.std
    patterns = patterns if layout.mask is None else patterns * layout.mask
    found = np.zeros((layout.channels, *patterns.shape))
    for channel, pattern in enumerate(patterns):
        if pattern.any() and channel not in layout.parameter_channels.values():
            seen = np.minimum(pattern, _STEEPEST * np.median(pattern[pattern > 0]))
            found[channel, channel] = seen / np.linalg.norm(seen)
    return torch.as_tensor(found.reshape(layout.channels, -1), dtype=torch.float32)


def _usual_levels(modes: Eofs, levels: Tensor, length: int) -> Tensor:
    """Coefficients (m, rank) of the levels, as large as the standard deviation of the process along each of them."""
    along = levels.to(modes.vectors) @ modes.vectors
    variances = along.square() @ spectrum(modes.variances, length)[0, :-1] / length
    return variances.sqrt()[:, None] * along


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


def _most_likely(parts: Tensor, e: Tensor, means: np.ndarray, deviations: np.ndarray) -> Tensor:
    """Logarithms of the factors (g,) for innovations e (n,) with the covariance I + sum of factors times parts."""
    from scipy.optimize import minimize

    identity = torch.eye(len(e), dtype=torch.float64)

    def cost(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        factors = torch.as_tensor(logarithms).exp()
        matrix = identity + torch.tensordot(factors, parts, 1)
        # Rounding of the parts, which are computed in single precision.
        root = torch.linalg.cholesky(matrix + _ROUNDING * float(matrix.diagonal().max()) * identity)
        inverse = torch.cholesky_inverse(root)
        weights = inverse @ e
        value = 0.5 * float(e @ weights) + float(root.diagonal().log().sum())
        slope = 0.5 * factors * ((inverse - torch.outer(weights, weights)) * parts).sum((1, 2))
        away = (logarithms - means) / deviations
        return value + 0.5 * float(away @ away), slope.numpy() + away / deviations

    found = minimize(cost, means, jac=True, method="L-BFGS-B", bounds=[(-6.0, 6.0)] * len(parts))
    return torch.as_tensor(found.x)
