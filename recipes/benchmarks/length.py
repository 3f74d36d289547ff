"""Seconds and memory of one guided evaluation by the length of the trajectory.

python recipes/benchmarks/length.py

The shipped prior of Lorenz 1963, its first variable observed every 8th state. Memory is the most that tensors hold at
once, the gradient included, and beside it what the states alone take.
"""

from __future__ import annotations

import os
import time

import click
import numpy as np
import torch
import xarray as xr
from report import report

import sdaxr
from sdaxr.posterior.guidance import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.memory import peak_bytes

LENGTHS = (64, 256, 1024, 4096)


@click.command()
@click.option("--prior", default="lorenz63", help="Name or path, of a vector system.")
@click.option("--members", default=8)
def main(prior: str, members: int) -> None:
    """Time one evaluation with its gradient, and follow its tensors."""
    load = os.getloadavg()[0]
    report("length", [measure(prior, members, length) for length in LENGTHS], load)


def measure(prior: str, members: int, length: int) -> dict[str, float]:
    """One row."""
    model = sdaxr.open_prior(prior)
    times = xr.DataArray(model.layout.time.step * np.arange(length), dims="time", name="time")
    ones = torch.ones(len(range(0, length, 8)))
    observed = GaussianObservation(lambda x: x[:, ::8, 0], 0 * ones, 0.05 * ones, ones)
    guided = SDA(model.denoiser(times), [observed], 0.03)
    z = torch.randn(members, length, model.layout.channels, generator=torch.Generator().manual_seed(0))
    guided(z, 1.0)
    start = time.perf_counter()
    for _ in range(5):
        guided(z, 1.0)
    seconds = (time.perf_counter() - start) / 5
    return {
        "length": length,
        "members": members,
        "seconds": seconds,
        "milliseconds a state": 1e3 * seconds / length,
        "peak memory (MB)": peak_bytes(lambda: guided(z, 1.0)) / 1e6,
        "states (MB)": z.nbytes / 1e6,
    }


if __name__ == "__main__":
    main()
