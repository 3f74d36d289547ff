"""Phase `lorenz96`: the prior of Lorenz 1996 with F = 8.

Trajectories and network are those of `recipes/lorenz96/prior.py`. What is recorded of a denoiser is its error on
trajectories that it has not seen, by noise level; `recipes/lorenz96/denoiser.py` has the smallest possible ones.
"""

from __future__ import annotations

import time

import torch
import xarray as xr
from phase import Phase
from priors import Design, neighbour, trained

import sdaxr

# In standard deviations of a site; an error of 1 is 0.275.
LEVELS = (0.01, 0.03, 0.1, 0.275, 1.0, 3.0)


def run(phase: Phase) -> None:
    """Simulate, train, and look at the denoiser."""
    trained_with(phase, "lorenz96", (8.0, 8.0))


def trained_with(phase: Phase, name: str, forcing: tuple[float, float]) -> None:
    """A prior of trajectories whose forcings are drawn from an interval."""
    recipe = neighbour("lorenz96", "prior")
    options = recipe.design(width=16 if phase.tenth else 96, unknown=forcing[0] < forcing[1])
    optimisation = options.pop("optimisation")
    sizes = {"count": 64, "validation": 8, "states": 96} if phase.tenth else {}
    begin = time.monotonic()
    data = recipe.trajectories(forcing, **sizes)
    phase.record("trajectories", prior=name, sizes=dict(data.sizes), seconds=round(time.monotonic() - begin, 1))
    design = Design(name, options, optimisation, recipe.SAMPLER, batch=optimisation.batch)
    prior = trained(phase, data, design, phase.left - 10)
    test = recipe.trajectories(forcing, count=0, validation=32, states=options["window"], seed=1)
    denoised(phase, prior, test)


def denoised(phase: Phase, prior: sdaxr.Prior, test: xr.Dataset) -> None:
    """Root mean square error of x by noise level, over all states and in the middle quarter of the windows."""
    states = prior.layout.to_array(test)
    x = torch.as_tensor(states, dtype=torch.float32, device=phase.device)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(phase.device)
    denoiser = prior.denoiser(test.time, phase.device, precision="float32")
    for r in LEVELS:
        with torch.no_grad():
            error = (denoiser(x + r * noise, r) - x)[:, :, 0] * float(prior.layout.std.ravel()[0])
        length = error.shape[1]
        middle = error[:, 3 * length // 8 : 5 * length // 8]
        phase.record(
            "denoiser", prior=prior.name, r=r, rmse=float(error.square().mean().sqrt()),
            middle=float(middle.square().mean().sqrt()), finite=bool(error.isfinite().all()),
        )  # fmt: skip
