"""Seconds of one posterior sample of the paper's assimilation scenario on Kolmogorov flow: the default against theirs.

python recipes/kolmogorov/run.py generate --store kolmogorov.zarr
python recipes/kolmogorov/run.py train --configuration windows --minutes 7 --prior windows.safetensors
python recipes/benchmarks/kolmogorov.py --store kolmogorov.zarr --windows windows.safetensors

The paper's setting has windows of five states at every state, 256 steps with one correction each, and single precision.
It runs with a window network as large as ours, and with our network, to the end. With the paper's own network (23
million parameters, not trained here) a few evaluations are timed, and its seconds are these times 512. The window
network also runs our way (disjoint windows, 16 steps with one correction, the precision that suits the machine): what
is gained without another network.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import xarray as xr
from report import report

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.prior.assembly import assemble
from sdaxr.prior.files import Prior

sys.path.insert(0, str(Path(__file__).parents[1] / "kolmogorov"))
from merits import of_split, open_trajectories, residual, scores
from run import SAMPLER

GUIDANCE = sdaxr.methods.SDA(variance=sdaxr.methods.Scalar(0.01))
PAPER: dict[str, Any] = {"method": GUIDANCE, "sampler": sdaxr.samplers.PAPER, "precision": "float32"}
QUICK: dict[str, Any] = {"corrections": 1, "tau": 1.0}
NETWORK = {
    "network": {"name": "unet"},
    "window": 5,
    "parameterisation": "epsilon",
    "optimisation": {"levels": (5e-3, 100.0)},
}


@click.command()
@click.option("--store", default="kolmogorov.zarr")
@click.option("--prior", default="kolmogorov", help="Name or file.")
@click.option("--windows", required=True, help="File of `run.py train --configuration windows`.")
@click.option("--members", default=1, show_default=True, help="Samples of the paper's setting; the default draws 8.")
@click.option("--evaluations", default=2, show_default=True, help="Of the paper's own network.")
def main(store: str, prior: str, windows: str, members: int, evaluations: int) -> None:
    """Time samples of each setting on the first test trajectory."""
    load = os.getloadavg()[0]
    trajectories = open_trajectories(store)
    index = of_split(trajectories, "test", 1)[0]
    truth = trajectories.sel(trajectory=index).isel(time=slice(32)).load()
    seen = sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=index)
    rows = []
    for name, model, count, how in (
        ("sdaxr", prior, 8, {}),
        ("sdaxr, one correction", prior, 8, {"sampler": QUICK}),
        ("sdaxr, windows, one correction", windows, 8, {"sampler": QUICK | {"stride": 5}}),
        ("paper's setting, our network", prior, members, PAPER),
        ("paper's setting, windows", windows, members, PAPER),
    ):
        start = time.perf_counter()
        opened = sdaxr.open_prior(model).with_sampling(sampler=SAMPLER)
        posterior = sdaxr.assimilate(seen, opened, members=count, seed=0, progress=False, **how)
        seconds = (time.perf_counter() - start) / count
        row = {"setting": name, "evaluations": posterior.attrs["evaluations_per_member"], "seconds": seconds}
        # The error of one sample is larger than that of a mean of eight, whichever setting it is from.
        pair = posterior.isel(member=slice(members))
        rows.append(row | scores(pair, truth) | {"residual": residual(posterior, seen)})
        click.echo(rows[-1], err=True)
    seconds = 512 * evaluation(prior, truth, evaluations)
    rows.append({"setting": "paper's setting, its own network", "evaluations": 512, "seconds": seconds})
    for row in rows:
        row["times"] = row["seconds"] / rows[0]["seconds"]
    report("kolmogorov", rows, load)


def evaluation(prior: str, truth: xr.Dataset, count: int) -> float:
    """Seconds of one guided evaluation of the paper's network on 32 states."""
    layout = sdaxr.open_prior(prior).layout
    network = assemble(layout, NETWORK).requires_grad_(False)
    model = Prior(layout, network, (np.zeros(0), np.zeros(0)), NETWORK)
    ones = torch.ones(8 * 2 * 8 * 8)

    def observe(x: torch.Tensor) -> torch.Tensor:
        return x[:, ::4].unflatten(-1, (8, 8)).mean(-1).unflatten(-2, (8, 8)).mean(-2).flatten(1)

    observed = GaussianObservation(observe, 0 * ones, 0.1 * ones, ones)
    guided = GUIDANCE.guide(model.denoiser(truth.time, precision="float32"), [observed])
    z = torch.randn(1, *layout.to_array(truth).shape, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    for _ in range(count):
        guided(z, 1.0)
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
