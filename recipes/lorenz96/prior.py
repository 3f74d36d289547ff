"""The shipped prior `lorenz96`, and the same with an unknown forcing: data and training.

    python recipes/lorenz96/prior.py --prior lorenz96.safetensors                   # F = 8
    python recipes/lorenz96/prior.py --prior lorenz96-forcing.safetensors --forcing 5 11
    python recipes/lorenz96/prior.py --prior small.safetensors --width 32 --minutes 20  # what a CPU can do

The first two need a GPU for some minutes. How far the network reaches in time is what limits it: see README.md.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch
import xarray as xr

import sdaxr
from sdaxr.systems.lorenz96 import Lorenz96

# Trajectories of the training, and those of the validation; states of each.
TRAJECTORIES, VALIDATION, STATES = 2048, 64, 384
LEVELS = (5e-3, 30.0)
# Corrections up to ten standard deviations: there samples of sparse observations choose their mode (README.md).
SAMPLER = {"name": "sde-dpm++", "steps": 64, "corrections": 6, "above": 0.3, "below": 10.0}


def design(
    width: int = 96, blocks: int = 10, temporal: int = 7, window: int = 96, batch: int = 64, *, unknown: bool = False
) -> dict[str, Any]:
    """Options of `sdaxr.train`, with an ``unknown`` forcing or not.

    The network reaches ``blocks * (temporal // 2)`` states to each side.
    """
    return {
        "variables": ["x", "forcing"] if unknown else ["x"],
        "window": window,
        "network": sdaxr.networks.SpaceTimeUNet(widths=(width,), blocks=blocks, temporal=temporal, patch=1),
        # A parameter is one number of the diffusion without modes only.
        "parameterisation": "edm" if unknown else "spectral",
        "statistics": sdaxr.Statistics(homogeneous=("site",)),
        "optimisation": sdaxr.Optimisation(
            batch=batch,
            learning_rate=1.5e-3,
            levels=LEVELS,
            weighting="relative",
            validate_every=200,
            compile=True,
            # The estimate of a parameter is a mean over the window: it is to be right in windows of any length.
            shortest=24 if unknown else None,
        ),
    }


def trajectories(
    forcing: tuple[float, float], *, count: int = TRAJECTORIES, validation: int = VALIDATION, states: int = STATES,
    seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """Trajectories of Lorenz 1996 with forcings drawn uniformly from an interval, side by side.

    Where the interval is one number, the forcing is no variable.
    """
    random, system = np.random.default_rng(seed), Lorenz96()
    each = random.uniform(*forcing, size=(count + validation, 1))
    side_by_side = replace(system, forcing=each)  # type: ignore[arg-type]
    x = np.empty((len(each), states, system.sites), np.float32)
    now = side_by_side.initial(len(each), seed)
    for step in range(states):
        x[:, step] = now
        now = side_by_side.advance_ensemble(now, 1, random)[0]
    template = system.template()
    found = xr.Dataset(
        {"x": (("trajectory", "time", "site"), x, template.x.attrs)},
        dict(template.coords)
        | {
            "time": ("time", system.step * np.arange(states), system.time_attrs),
            "split": ("trajectory", np.array(["train"] * count + ["valid"] * validation)),
        },
    )
    if forcing[0] < forcing[1]:
        attrs = {"units": "1", "long_name": "forcing"}
        found["forcing"] = ("trajectory", each[:, 0].astype(np.float32), attrs)
    return found


@click.command()
@click.option("--prior", required=True, help="The .safetensors file.")
@click.option("--forcing", nargs=2, type=float, default=(8.0, 8.0), show_default=True, help="Interval of the forcing.")
@click.option("--minutes", default=6.0, show_default=True)
@click.option("--width", default=96, show_default=True, help="Channels of the network.")
@click.option("--batch", default=64, show_default=True, help="Windows of a step.")
@click.option("--device", default="auto", show_default=True)
def main(prior: str, forcing: tuple[float, float], minutes: float, width: int, batch: int, device: str) -> None:
    """Simulate and train."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    trained = sdaxr.train(
        trajectories(forcing), prior, **design(width, batch=batch, unknown=forcing[0] < forcing[1]), minutes=minutes,
        device=device, progress=False, overwrite=True,
    )  # fmt: skip
    trained.with_sampling(sampler=SAMPLER).save(prior, dtype=torch.float16)


if __name__ == "__main__":
    main()
