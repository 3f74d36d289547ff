"""The shipped prior `lorenz63`: data, training, and a first test on held-out trajectories.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/run.py train    --store lorenz63.zarr --prior lorenz63.safetensors
    python recipes/lorenz63/run.py evaluate --store lorenz63.zarr --prior lorenz63.safetensors

Every step can be killed and run again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent

# The first component every 8th state with a small error, or every state with a large one: the paper's two settings,
# whose errors are 0.05 and 0.25 of the normalisation of 8.
SETTINGS = {"low frequency": {"every": 8, "error": 0.05 * 8}, "high frequency": {"every": 1, "error": 0.25 * 8}}

# The default sees 127 states to either side, and learns trajectories of 32 to 256 states. The others are the paper's: k
# states to either side, and noise is what is predicted.
PAPER: dict[str, Any] = {
    "parameterisation": "epsilon",
    "optimisation": sdaxr.Optimisation(levels=(0.001, 1000.0), batch=64, compile=True),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {
        "window": 256,
        "network": sdaxr.networks.TemporalConvolution(blocks=6, kernel=3, dilation=2),
        "optimisation": sdaxr.Optimisation(
            shortest=32, levels=(0.002, 50.0), weighting="relative", batch=16, compile=True
        ),
    },
    "k8": PAPER | {"window": 33, "network": sdaxr.networks.TemporalConvolution(width=64, blocks=3, kernel=3)},
} | {f"k{k}": PAPER | {"window": 2 * k + 1, "network": "mlp"} for k in (1, 2, 3, 4)}


@click.group()
def main() -> None:
    """Make and test the shipped prior of the noisy Lorenz 1963 chain."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@main.command()
@click.option("--store", default="lorenz63.zarr")
def generate(store: str) -> None:
    """Simulate the paper's 1024 trajectories of 1024 states."""
    sdaxr.generate("lorenz63", store, trajectories=1024, steps=1024, seed=0)


@main.command()
@click.option("--store", default="lorenz63.zarr")
@click.option("--prior", default="lorenz63.safetensors")
@click.option("--network", type=click.Choice(list(NETWORKS)), default="default")
@click.option("--steps", default=38_000)
def train(store: str, prior: str, network: str, steps: int) -> None:
    """Train a network that is convolutional in time; one core is enough."""
    trained = sdaxr.train(
        sdaxr.open_archive(store), prior, variables=["a", "b", "c"], steps=steps, name=Path(prior).stem,
        progress=False, **NETWORKS[network],
    )  # fmt: skip
    if network == "default":
        # See README.md for other numbers of levels and corrections. Corrections reach up to where the modes part.
        levels = {"grid": "log-snr", "steps": 40, "largest": 10.0, "smallest": 0.003}
        corrections = {"corrections": 5, "above": 0.3, "below": 10.0}
        tuned = trained.with_sampling(sampler={"name": "sde-dpm++", "eta": 1.0} | levels | corrections)
        tuned.with_symmetries(*sdaxr.systems.open_system("lorenz63").symmetries).save(prior)


@main.command()
@click.option("--store", default="lorenz63.zarr")
@click.option("--prior", default="lorenz63")
@click.option("--members", default=64)
@click.option("--count", default=8, help="Number of test trajectories.")
@click.option("--output", default=str(HERE / "results.csv"))
def evaluate(store: str, prior: str, members: int, count: int, output: str) -> None:
    """65 states, the first component observed; scores against the truth."""
    trajectories = sdaxr.open_archive(store)
    tests = np.flatnonzero(trajectories.split.values == "test")[:count]
    model = sdaxr.open_prior(prior)
    rows = []
    for setting, how in SETTINGS.items():
        for index in tests:
            truth = trajectories.isel(trajectory=index, time=slice(65)).load()
            observations = sdaxr.observe(truth, op.select("a"), seed=int(index), **how)
            start = time.perf_counter()
            posterior = sdaxr.assimilate(observations, model, members=members, seed=int(index), progress=False)
            seconds = time.perf_counter() - start
            found = sdaxr.verify(posterior, truth).compute()
            fit = sdaxr.innovations(posterior, observations)["a_normalised_rms"].mean()
            row = {"setting": setting, "trajectory": int(index), "residual": float(fit), "seconds": seconds}
            for name in "abc":
                sd = float(trajectories[name].isel(trajectory=index).std())
                rmse, spread = (float(np.sqrt((found[f"{m}_{name}"] ** 2).mean())) for m in ("rmse", "spread"))
                row |= {f"rmse_{name}": rmse / sd, f"spread_skill_{name}": spread / rmse * np.sqrt(1 + 1 / members)}
            rows.append(row)
    table = pd.DataFrame(rows)
    table.to_csv(output, index=False, float_format="%.4f")
    print(table.drop(columns="trajectory").groupby("setting", sort=False).mean().round(3).T.to_string())


if __name__ == "__main__":
    main()
