"""Samplers of a linear Gaussian chain, with its variances in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gaussian import GaussianChain, affine_moments

from sdaxr.posterior.samplers.ddim import DDIMStep
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import Predictor, PredictorCorrector
from sdaxr.posterior.samplers.registry import SAMPLERS

LENGTH = 6
CHAIN = GaussianChain(LENGTH)
SHAPE = (LENGTH, 2)
PREDICTORS = {
    "exponential": DDIMStep(0.0),
    "ddim": DDIMStep(0.5),
    "ancestral": DDIMStep(1.0),
    "dpm++": DPMStep(0.0),
    "sde-dpm++": DPMStep(1.0, below=math.inf),
    "sde-dpm++ late": DPMStep(1.5),
}


def draws(seed: int, members: int, length: int = LENGTH) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, length, 2, generator=generator, dtype=torch.float64)


def variances(cov: np.ndarray) -> np.ndarray:
    """Variance in each direction of the prior's eigenvectors."""
    return np.einsum("ij,ik,kj->j", CHAIN.vectors, cov, CHAIN.vectors)


def error_at_the_end(predictor: Predictor, steps: int, corrector: LangevinCorrector | None = None) -> float:
    """Largest error of a variance at the last level, relative; v + r^2 is right."""
    levels = log_snr_levels(steps, 300.0, 0.1)[:-1]
    _, cov = affine_moments(
        PredictorCorrector(levels, predictor, corrector or LangevinCorrector()), CHAIN.denoise, SHAPE
    )
    return float(np.abs(variances(cov) / (CHAIN.values + levels[-1] ** 2) - 1).max())


def built(name: str, steps: int, corrections: int = 0, **options) -> PredictorCorrector:
    """A sampler as users get it, from level 80 to 0.01."""
    given = {"name": name, "steps": steps, "corrections": corrections, "largest": 80.0, "smallest": 0.01}
    return SAMPLERS.build(given | options).build((0.0, math.inf))
