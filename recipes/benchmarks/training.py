"""Training steps per second of the default networks.

python recipes/benchmarks/training.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
from report import report

import sdaxr

FLOW = {"resolution": 64, "coarsen": 1, "spin_up": 4}
CASES = {
    "lorenz63": {"batch": 32, "trajectories": 16, "steps": 65, "options": {}},
    "lorenz96": {"batch": 32, "trajectories": 16, "steps": 65, "options": {}},
    "kolmogorov": {"batch": 8, "trajectories": 4, "steps": 16, "options": FLOW},
}


@click.command()
@click.option("--minutes", default=0.5, help="Length of each run.")
@click.option("--device", default="auto")
def main(minutes: float, device: str) -> None:
    """Train each network for a fixed time and count the steps; no compilation, no validation in between."""
    load = os.getloadavg()[0]
    report("training", [measure(system, minutes, device, **case) for system, case in CASES.items()], load)


def measure(
    system: str, minutes: float, device: str, *, batch: int, trajectories: int, steps: int, options: dict
) -> dict:
    """One row: what was trained, and how fast."""
    with tempfile.TemporaryDirectory() as folder:
        data = sdaxr.generate(
            system, Path(folder) / "data.zarr", trajectories=trajectories, steps=steps, progress=False, **options
        )
        prior = data.sda.train(
            Path(folder) / "prior.safetensors",
            minutes=minutes,
            optimisation=sdaxr.Optimisation(batch=batch, validate_every=10**9),
            device=device,
            progress=False,
        )
    done = prior.metadata["training"]
    rate = done["steps"] / (60 * done["minutes"])
    return {
        "system": system,
        "state": "x".join(map(str, (len(prior.layout.variables), *prior.layout.shape))),
        "network": prior.metadata["network"]["name"],
        "parameters": sum(p.numel() for p in prior.network.parameters()),
        "window": prior.window,
        "batch": batch,
        "steps/s": rate,
        "windows/s": rate * batch,
        "device": done["device"],
    }


if __name__ == "__main__":
    main()
