"""Families of errors as scipy has them."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

_LOGNORMAL = 1 / math.sqrt((math.e - 1) * math.e)
FAMILIES = {
    "laplace": stats.laplace(scale=math.sqrt(0.5)),
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "lognormal": stats.lognorm(1, loc=-math.exp(0.5) * _LOGNORMAL, scale=_LOGNORMAL),
}


def quadrature(family: str, d: np.ndarray, variance: float) -> np.ndarray:
    """-d log p / dd for the family convolved with N(0, variance), over its quantiles."""
    normal = np.linspace(-7, 7, 4001)
    errors = FAMILIES[family].ppf(stats.norm.cdf(normal))
    exponent = -((d[:, None] - errors) ** 2) / 2 / variance
    density = np.exp(exponent - exponent.max(1, keepdims=True) - normal**2 / 2)
    return (density * (d[:, None] - errors)).sum(1) / density.sum(1) / variance
