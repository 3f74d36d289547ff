"""The shipped prior `kolmogorov`: data, training, and its test on held-out trajectories.

    python recipes/kolmogorov/run.py generate --store kolmogorov.zarr
    python recipes/kolmogorov/run.py train    --store kolmogorov.zarr --prior kolmogorov.safetensors
    python recipes/kolmogorov/run.py evaluate --store kolmogorov.zarr --prior kolmogorov.safetensors

Every step can be killed and run again.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import baselines
from sdaxr import operators as op

HERE = Path(__file__).parent
NETWORK = {"widths": (32, 64, 128), "patch": 2}


def open_trajectories(store: str) -> xr.Dataset:
    """The archive, with the shape of the forcing as a static field that the network may see."""
    data = sdaxr.open_archive(store)
    shape = np.sin(4 * data["y"]) * xr.ones_like(data["x"])
    attrs = {"units": "1", "long_name": "shape of the forcing"}
    return data.assign_coords(forcing=shape.transpose("y", "x").assign_attrs(attrs))


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
@click.option("--minutes", default=27.0)
@click.option("--network", default=json.dumps(NETWORK), help="Options of the space-time U-Net, as JSON.")
def train(store: str, prior: str, minutes: float, network: str) -> None:
    """Train on two cores, or on a GPU where there is one."""
    trained = sdaxr.train(
        open_trajectories(store),
        prior,
        variables=["u", "v"],
        window=8,
        network_options=json.loads(network),
        context=["forcing"],
        homogeneous=["x"],
        minutes=minutes,
        batch=4,
        ema=0.999,
        levels=(0.03, 60.0),
        name="kolmogorov",
        compile=True,
        validate_every=200,
        progress=False,
        seed=0,
    )
    # On a validation trajectory 16 levels gave the scores of 24 and 32; see README.md for the other samplers.
    trained.with_sampling(sampler="ancestral", steps=16, corrections=1).save(prior)


@main.command()
@click.option("--store", default="kolmogorov.zarr")
@click.option("--prior", default="kolmogorov")
@click.option("--members", default=8)
@click.option("--length", default=17)
@click.option("--count", default=4, help="Number of test trajectories.")
@click.option("--method", default="sda")
@click.option("--output", default=str(HERE / "results.csv"))
def evaluate(store: str, prior: str, members: int, length: int, count: int, method: str, output: str) -> None:
    """The paper's assimilation scenario: 8 x 8 means of the velocity every 4 states, sd 0.1."""
    trajectories = open_trajectories(store)
    training = trajectories.isel(trajectory=trajectories.split.values == "train")
    tests = trajectories.isel(trajectory=np.flatnonzero(trajectories.split.values == "test")[:count])
    model = sdaxr.open_prior(prior)
    rows = []
    for index in tests.trajectory.values:
        truth = tests.sel(trajectory=index).isel(time=slice(length)).load()
        observations = sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=int(index))
        start = time.perf_counter()
        posterior = sdaxr.assimilate(observations, model, members=members, method=method, seed=int(index))
        seconds = (time.perf_counter() - start) / members
        residual = sdaxr.innovations(posterior, observations)
        fit = float(np.mean([residual[f"{v}_normalised_spread"].mean() for v in ("u", "v")]))
        for name, estimate in {
            "posterior": posterior,
            "interpolation": baselines.interpolate(observations, truth),
            "climatology": baselines.climatology(training, truth),
        }.items():
            row = {"trajectory": int(index), "estimate": name, **scores(estimate, truth)}
            own = {"residual": fit, "seconds_per_member": seconds} if name == "posterior" else {}
            rows.append(row | own)
            logging.info("%s", rows[-1])
    table = pd.DataFrame(rows)
    table.to_csv(output, index=False, float_format="%.4f")
    print(table.drop(columns="trajectory").groupby("estimate", sort=False).agg(["mean", "sem"]).round(4).T.to_string())


def scores(estimate: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Root mean square over both velocity components, in units of their standard deviation in this trajectory."""
    found = sdaxr.verify(estimate, truth).compute()
    sd = {v: float(truth[v].std()) for v in ("u", "v")}

    def pooled(metric: str) -> float:
        return float(np.sqrt(np.mean([(found[f"{metric}_{v}"] ** 2).mean() / sd[v] ** 2 for v in sd])))

    if "member" not in estimate.dims:
        return {"rmse": pooled("rmse")}
    spread_skill = pooled("spread") / pooled("rmse") * np.sqrt(1 + 1 / estimate.sizes["member"])
    crps = float(np.mean([found[f"crps_{v}"].mean() / sd[v] for v in sd]))
    return {"rmse": pooled("rmse"), "crps": crps, "spread_skill": float(spread_skill)}


if __name__ == "__main__":
    main()
