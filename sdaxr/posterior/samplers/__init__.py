"""Predictor-corrector sampling, one algorithm a file.

A `Sampler` goes down a grid of noise levels (`levels`) with a predictor (`ddim`, `dpm`) and Langevin corrections
(`langevin`). It takes any denoiser: a prior's or a guided one.
"""

from __future__ import annotations

import math

from sdaxr.posterior.samplers.ddim import DDIM
from sdaxr.posterior.samplers.dpm import DPMSolver
from sdaxr.posterior.samplers.langevin import Langevin, ScoreLangevin
from sdaxr.posterior.samplers.levels import GRIDS, karras_levels, levels_of, log_snr_levels, uniform_levels
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.posterior.samplers.sampler import Corrector, Denoiser, Noise, Predictor, Sampler
from sdaxr.schema import OptionError, nearest

SAMPLERS = ("sde-dpm++", "dpm++", "ancestral", "ddim", "exponential")
# The only samplers whose amount of noise can be chosen; the others are defined by it.
_ETA = {"dpm++": 0.0, "ancestral": 1.0, "exponential": 0.0}


def build_sampler(
    name: str,
    steps: int,
    corrections: int,
    tau: float,
    largest: float,
    smallest: float,
    *,
    grid: str,
    eta: float,
    above: float = 0.1,
    below: float = 3.0,
) -> Sampler:
    """The sampler ``name`` of `SAMPLERS` on the grid ``grid`` of `GRIDS`, from the level ``largest`` to ``smallest``.

    Raises
    ------
    OptionError
        If a name is unknown or a number impossible.
    """
    if name not in SAMPLERS:
        raise OptionError(f"sampler={nearest(name, SAMPLERS)}")
    for key, value, least in (("steps", steps, 1), ("corrections", corrections, 0), ("tau", tau, 0), ("eta", eta, 0)):
        if value < least:
            raise OptionError(f"{key}={value}, expected at least {least}")
    if eta != _ETA.get(name, eta):
        raise OptionError(
            f"eta={eta}, but sampler={name!r} is defined by eta={_ETA[name]:g}; leave it out, or take "
            "sampler='sde-dpm++' or 'ddim'"
        )
    if name == "ddim" and eta > 1:
        raise OptionError(f"eta={eta}, expected at most 1 for sampler='ddim'; sampler='sde-dpm++' takes more")
    predictor = DPMSolver(eta) if name in ("dpm++", "sde-dpm++") else DDIM(eta)
    levels = levels_of(grid, steps, largest, smallest)
    if name == "exponential":
        return Sampler(levels, predictor, ScoreLangevin(corrections, tau), limit=math.inf)
    return Sampler(levels, predictor, Langevin(corrections, tau, above, below))


__all__ = [
    "DDIM",
    "GRIDS",
    "SAMPLERS",
    "Corrector",
    "DPMSolver",
    "Denoiser",
    "Langevin",
    "Noise",
    "Predictor",
    "Sampler",
    "ScoreLangevin",
    "build_sampler",
    "karras_levels",
    "levels_of",
    "log_snr_levels",
    "member_noise",
    "uniform_levels",
]
