"""Seconds and memory by the length of the trajectory: of one guided evaluation, and of a whole assimilation.

python recipes/benchmarks/length.py
python recipes/benchmarks/length.py --prior kolmogorov --members 1

Lorenz 1963 with its first variable observed every 8th state, or fields with their 8 x 8 means. The truth is made of the
held-out states that the prior carries, one after the other. Memory is the most that tensors hold at once, the gradient
included, and beside it what the states alone take.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click
import numpy as np
import torch
import xarray as xr
from report import report

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.prior.memory import peak_bytes

LENGTHS = {"vectors": (64, 256, 1024, 4096), "fields": (32, 128, 1024)}
# An assimilation with few levels: what it takes beside the evaluations shows in its memory, not in its quality.
SAMPLERS: dict[str, dict[str, Any]] = {
    "vectors": {"steps": 16, "corrections": 0},
    "fields": {"steps": 4, "corrections": 0, "attempts": 1},
}


@click.command()
@click.option("--prior", default="lorenz63", show_default=True, help="Name or path.")
@click.option("--members", default=8, show_default=True)
def main(prior: str, members: int) -> None:
    """Time an evaluation with its gradient and an assimilation, and follow their tensors."""
    load = os.getloadavg()[0]
    model = sdaxr.open_prior(prior)
    kind = "fields" if model.layout.space else "vectors"
    rows = []
    for length in LENGTHS[kind]:
        truth = states(model, length)
        rows.append(evaluation(model, members, truth) | assimilation(model, members, truth, SAMPLERS[kind]))
        click.echo(rows[-1], err=True)
    report("length" if kind == "vectors" else "length-fields", rows, load)


def states(model: sdaxr.Prior, length: int) -> xr.Dataset:
    """So many states with the labels of the prior."""
    layout, held = model.layout, model.reference[0]
    held = held.reshape(-1, *held.shape[2:])
    template, fields = (
        layout.template(layout.times(0.0, length)),
        layout.to_physical(held[np.arange(length) % len(held)]),
    )
    return template.assign({v: (template[v].dims, fields[v], template[v].attrs) for v in layout.variables})


def evaluation(model: sdaxr.Prior, members: int, truth: xr.Dataset) -> dict[str, float]:
    """The network on all states with the gradient of the likelihood."""
    length = truth.sizes["time"]
    ones = torch.ones(len(range(0, length, 8)))
    observed = GaussianObservation(lambda x: x[:, ::8].flatten(2)[..., 0], 0 * ones, 0.05 * ones, ones)
    guided = sdaxr.methods.SDA(variance=0.03).guide(model.denoiser(truth.time), [observed])
    shape = (members, length, model.layout.channels, *model.layout.shape)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    guided(z, 1.0)
    start, repeats = time.perf_counter(), 5
    for _ in range(repeats):
        guided(z, 1.0)
    seconds = (time.perf_counter() - start) / repeats
    return {
        "length": length,
        "members": members,
        "seconds": seconds,
        "milliseconds a state": 1e3 * seconds / length,
        "peak memory (MB)": peak_bytes(lambda: guided(z, 1.0)) / 1e6,
        "states (MB)": z.nbytes / 1e6,
    }


def assimilation(model: sdaxr.Prior, members: int, truth: xr.Dataset, sampler: dict[str, Any]) -> dict[str, float]:
    """`sdaxr.assimilate`, the measurement of the likelihood's variance included."""
    operator = op.coarsen(8) if model.layout.space else op.select(model.layout.variables[0])
    seen = sdaxr.observe(truth, operator, every=8, error=0.4, seed=1)

    def run() -> None:
        sdaxr.assimilate(seen, model, sampler=sampler, members=members, seed=1, device="cpu", progress=False)

    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {"assimilation (s)": seconds, "its peak memory (MB)": peak_bytes(run) / 1e6}


if __name__ == "__main__":
    main()
