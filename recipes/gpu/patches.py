"""Phase `patches`: a prior of patches of 64 x 64 points, and what it makes of 512 x 512 points.

Patches, scenario and scores are those of `recipes/large_domains/run.py`, with twice its noise levels. The flows are
simulated by `turbulence.py`, the truths from seeds of their own. The Gaussian process of the patches alone assimilates
the same observations.
"""

from __future__ import annotations

import time
from dataclasses import replace
from types import ModuleType

import torch
import turbulence
import xarray as xr
from flow import labelled
from phase import Phase
from priors import Design, neighbour, trained

import sdaxr

# Flows on 128 x 128 points, from which the patches are cut.
FLOWS, LENGTH = 256, 64
# Units of 64 points to a side, and truths of each; the states and members of all.
DOMAINS = ((1, 4), (8, 1))
STATES, MEMBERS, LEVELS = 32, 4, 16
# Seconds that the posteriors take.
FOR_SCORES = 210


def run(phase: Phase) -> None:
    """Simulate, train, assimilate."""
    recipe = neighbour("large_domains", "run")
    begin = time.monotonic()
    number, length = (4, 16) if phase.tenth else (FLOWS, LENGTH)
    data = recipe.with_forcing(flows(phase, recipe, 2, range(number), length))
    phase.record("trajectories", sizes=dict(data.sizes), seconds=round(time.monotonic() - begin, 1))
    floor = phase.out / "floor.safetensors"
    options = recipe.design(64)
    sdaxr.train(data, floor, **options, steps=0, device=str(phase.device), overwrite=True, progress=False)
    design = Design("patches-64", options, replace(recipe.OPTIMISATION, compile=True), recipe.SAMPLER)
    seconds = phase.left - (60 if phase.tenth else FOR_SCORES)
    prior = trained(phase, data, design, max(20.0, seconds))
    states, members, levels = (8, 2, 2) if phase.tenth else (STATES, MEMBERS, LEVELS)
    for extent, count in DOMAINS[:1] if phase.tenth else DOMAINS:
        seeds = range(10_000, 10_000 + count)
        truths = recipe.with_forcing(flows(phase, recipe, extent, seeds, states, compiled=False))
        for model in (prior, sdaxr.open_prior(floor)):
            for number, seed in enumerate(seeds):
                truth = truths.isel(trajectory=number, drop=True)
                row = recipe.row(model, truth, seed, members=members, steps=levels, device=str(phase.device))
                memory = torch.cuda.max_memory_allocated() / 1e9 if phase.device.type == "cuda" else None
                phase.record("scores", **row, device_gb=memory)


def flows(
    phase: Phase, recipe: ModuleType, extent: int, seeds: range, steps: int, compiled: bool | None = None
) -> xr.Dataset:
    """Trajectories on a domain of so many units, with their labels; in a rehearsal on the grid of the states."""
    system = recipe.flow(extent)
    if phase.tenth:
        system = replace(system, resolution=system.cells, coarsen=1)
    fields = torch.cat(
        [
            part.cpu().float()
            for part in turbulence.trajectories(
                phase.device, seeds, system=system, steps=steps, spin_up=2 if phase.tenth else 64, batch=64,
                compiled=compiled, out=torch.float16,
            )
        ]
    )  # fmt: skip
    return labelled(fields.numpy(), tests=0, system=system)
