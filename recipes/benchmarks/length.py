"""Seconds and memory by the length of the trajectory: of one guided evaluation, and of a whole assimilation.

python recipes/benchmarks/length.py

The shipped prior of Lorenz 1963, its first variable observed every 8th state. Memory is the most that tensors hold at
once, the gradient included, and beside it what the states alone take.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
import xarray as xr
from report import report

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.guidance import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.memory import peak_bytes

LENGTHS = (64, 256, 1024, 4096)
# An assimilation with few levels: what it takes beside the evaluations shows in its memory, not in its quality.
SAMPLING = {"steps": 16, "corrections": 0}


@click.command()
@click.option("--prior", default="lorenz63", help="Name or path, of a vector system.")
@click.option("--members", default=8)
def main(prior: str, members: int) -> None:
    """Time an evaluation with its gradient and an assimilation, and follow their tensors."""
    load = os.getloadavg()[0]
    model = sdaxr.open_prior(prior)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.zarr"
        sdaxr.generate("lorenz63", path, trajectories=1, steps=max(LENGTHS), seed=1, split=(0, 0, 1), progress=False)
        truth = sdaxr.open_archive(path).isel(trajectory=0, drop=True).load()
    rows = [evaluation(model, members, n) | assimilation(model, members, truth.isel(time=slice(n))) for n in LENGTHS]
    report("length", rows, load)


def evaluation(model: sdaxr.Prior, members: int, length: int) -> dict[str, float]:
    """The network on all states with the gradient of the likelihood."""
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


def assimilation(model: sdaxr.Prior, members: int, truth: xr.Dataset) -> dict[str, float]:
    """`sdaxr.assimilate`, the measurement of the likelihood's variance included."""
    seen = sdaxr.observe(truth, op.select("a"), every=8, error=0.4, seed=1)

    def run() -> None:
        sdaxr.assimilate(seen, model, members=members, seed=1, device="cpu", progress=False, **SAMPLING)

    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {"assimilation (s)": seconds, "its peak memory (MB)": peak_bytes(run) / 1e6}


if __name__ == "__main__":
    main()
