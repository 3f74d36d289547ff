"""The shipped prior `kolmogorov`: data, training, and its test on held-out trajectories.

    python recipes/kolmogorov/run.py generate --store kolmogorov.zarr
    python recipes/kolmogorov/run.py train    --store kolmogorov.zarr --prior kolmogorov.safetensors
    python recipes/kolmogorov/run.py evaluate --store kolmogorov.zarr --prior kolmogorov.safetensors

Every step can be killed and run again.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from merits import of_split, open_trajectories, residual, scores

import sdaxr
from sdaxr import operators as op
from sdaxr.verification import baselines

HERE = Path(__file__).parent
# A half turn, and a reflection beside a shift by half a wave of the forcing; the forcing is the same after them.
SYMMETRIES = [
    {"flip": ["x", "y"], "negate": ["u", "v", "forcing"]},
    {"flip": ["x"], "shift": {"y": 8}, "negate": ["u", "forcing"]},
]
OURS = sdaxr.Optimisation(weighting="relative", levels=(0.005, 60.0), compile=True, validate_every=200)
NETWORK = sdaxr.networks.SpaceTimeUNet(widths=(64, 96, 128), patch=4)
# Options of `sdaxr.train`: ours, the same without spectral preconditioning, the network of Rozet & Louppe (2023), and
# one that works like it at the size of ours.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sdaxr": {"window": 8, "network": NETWORK, "optimisation": OURS},
    "edm": {"window": 8, "network": NETWORK, "optimisation": OURS, "parameterisation": "edm"},
    "paper": {
        "window": 5,
        "network": "unet",
        "optimisation": sdaxr.Optimisation(learning_rate=2e-4, compile=True, validate_every=200),
        "parameterisation": "epsilon",
    },
    "windows": {
        "window": 5,
        "network": sdaxr.networks.WindowUNet(widths=(64, 96, 128), patch=4, blocks=2),
        "optimisation": OURS,
    },
}

# What `sdaxr.assimilate` takes where nothing else is asked for. Corrections at every level above 0.1: where little is
# observed, it is decided at large r which of several trajectories a sample follows.
SAMPLER: dict[str, Any] = {
    "name": "sde-dpm++", "steps": 16, "corrections": 3, "tau": 0.7, "above": 0.1, "below": 100.0,
}  # fmt: skip


@click.group()
def main() -> None:
    """Make and test the shipped prior of Kolmogorov flow."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@main.command()
@click.option("--store", default="kolmogorov.zarr")
@click.option("--trajectories", default=96, help="The paper has 1024.")
@click.option("--batch", default=1, help="Trajectories side by side; some tens on a GPU.")
@click.option("--workers", default=0, help="Worker processes; on CPUs one a core is best.")
def generate(store: str, trajectories: int, batch: int, workers: int) -> None:
    """Simulate, and say how fast it went."""
    start = time.perf_counter()
    with ExitStack() as stack:
        if workers:
            from distributed import Client, LocalCluster

            cluster = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1))
            stack.enter_context(Client(cluster))
        sdaxr.generate("kolmogorov", store, trajectories=trajectories, steps=64, seed=0, batch=batch)
    seconds = time.perf_counter() - start
    logging.info("%.1f s, %.3f trajectories/s", seconds, trajectories / seconds)


@main.command()
@click.option("--store", default="kolmogorov.zarr")
@click.option("--prior", default="kolmogorov.safetensors")
@click.option("--configuration", default="sdaxr", type=click.Choice(list(CONFIGURATIONS)), show_default=True)
@click.option("--minutes", default=75.0, show_default=True)
@click.option("--batch", default=4, show_default=True, help="Windows a step; the paper has 32, on a GPU.")
def train(store: str, prior: str, configuration: str, minutes: float, batch: int) -> None:
    """Train on two cores, or on a GPU where there is one; a killed training goes on."""
    options = dict(CONFIGURATIONS[configuration])
    trained = sdaxr.train(
        open_trajectories(store),
        prior,
        variables=["u", "v"],
        context=["forcing"],
        statistics=sdaxr.Statistics(homogeneous=["x"], symmetries=SYMMETRIES),
        optimisation=replace(options.pop("optimisation"), batch=batch),
        minutes=minutes,
        name="kolmogorov" if configuration == "sdaxr" else f"kolmogorov-{configuration}",
        progress=False,
        seed=0,
        **options,
    )
    trained.with_sampling(sampler=SAMPLER).save(prior, dtype=torch.float16)


@main.command()
@click.option("--store", default="kolmogorov.zarr")
@click.option("--prior", default="kolmogorov")
@click.option("--members", default=8)
@click.option("--length", default=32)
@click.option("--count", default=4, help="Number of test trajectories.")
@click.option("--method", default="sda")
@click.option("--output", default=str(HERE / "results.csv"))
def evaluate(store: str, prior: str, members: int, length: int, count: int, method: str, output: str) -> None:
    """The paper's assimilation scenario: 8 x 8 means of the velocity every 4 states, sd 0.1."""
    trajectories = open_trajectories(store)
    training = trajectories.isel(trajectory=trajectories.split.values == "train")
    model = sdaxr.open_prior(prior)
    rows = []
    for index in of_split(trajectories, "test", count):
        truth = trajectories.sel(trajectory=index).isel(time=slice(length)).load()
        observations = sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=index)
        start = time.perf_counter()
        posterior = sdaxr.assimilate(observations, model, members=members, method=method, seed=index)
        seconds = (time.perf_counter() - start) / members
        fit = residual(posterior, observations)
        for name, estimate in {
            "posterior": posterior,
            "interpolation": baselines.interpolate(observations, truth),
            "climatology": baselines.climatology(training, truth),
        }.items():
            row = {"trajectory": index, "estimate": name, **scores(estimate, truth)}
            own = {"residual": fit, "seconds_per_member": seconds} if name == "posterior" else {}
            rows.append(row | own)
            logging.info("%s", rows[-1])
    table = pd.DataFrame(rows)
    table.to_csv(output, index=False, float_format="%.4f")
    print(table.drop(columns="trajectory").groupby("estimate", sort=False).agg(["mean", "sem"]).round(4).T.to_string())


@main.command()
@click.option("--prior", default="kolmogorov.safetensors")
@click.option("--results", type=Path, default=HERE / "results.csv", help="What `evaluate` wrote of it.")
@click.option("--output", default=str(Path(sdaxr.__file__).parent / "prior" / "shipped" / "kolmogorov.safetensors"))
def ship(prior: str, results: Path, output: str) -> None:
    """Write the prior in half precision, with what was measured of it."""
    model = sdaxr.open_prior(prior)
    table = pd.read_csv(results)
    found = table[table.estimate == "posterior"].drop(columns=["estimate", "trajectory"]).mean().round(4).to_dict()
    about = {"scenario": "assimilation, 32 states", "test_trajectories": int(table.trajectory.nunique())}
    replace(model, metadata=model.metadata | {"measurements": about | found}).save(output, dtype=torch.float16)


if __name__ == "__main__":
    main()
