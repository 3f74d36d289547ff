"""Samplers of a linear Gaussian chain, with its variances in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gaussian import GaussianChain, affine_moments

from sdaxr.posterior.samplers import (
    DDIM,
    DPMSolver,
    Langevin,
    Predictor,
    Sampler,
    build_sampler,
    log_snr_levels,
)
from sdaxr.posterior.settings import DEFAULTS

LENGTH = 6
CHAIN = GaussianChain(LENGTH)
SHAPE = (LENGTH, 2)
PREDICTORS = {
    "exponential": DDIM(0.0),
    "ddim": DDIM(0.5),
    "ancestral": DDIM(1.0),
    "dpm++": DPMSolver(0.0),
    "sde-dpm++": DPMSolver(1.0, below=math.inf),
    "sde-dpm++ late": DPMSolver(1.5),
}


def draws(seed: int, members: int, length: int = LENGTH) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, length, 2, generator=generator, dtype=torch.float64)


def variances(cov: np.ndarray) -> np.ndarray:
    """Variance in each direction of the prior's eigenvectors."""
    return np.einsum("ij,ik,kj->j", CHAIN.vectors, cov, CHAIN.vectors)


def error_at_the_end(predictor: Predictor, steps: int, corrector: Langevin | None = None) -> float:
    """Largest error of a variance at the last level, relative; v + r^2 is right."""
    levels = log_snr_levels(steps, 300.0, 0.1)[:-1]
    _, cov = affine_moments(Sampler(levels, predictor, corrector or Langevin()), CHAIN.denoise, SHAPE)
    return float(np.abs(variances(cov) / (CHAIN.values + levels[-1] ** 2) - 1).max())


# Of what a correction of tau = 0.5 forgets: as much variance may be missing where many follow each other.
HALF = (1 - math.exp(-0.5)) / 2


def built(name: str, steps: int, corrections: int = 0, **options) -> Sampler:
    """A sampler as users get it."""
    about = DEFAULTS[name]
    settings = {"grid": about.grid, "eta": about.eta} | options
    return build_sampler(name, steps, corrections, about.tau, 80.0, 0.01, **settings)
