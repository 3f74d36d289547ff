"""A prior of patches of Kolmogorov flow assimilates domains of any size.

    python recipes/large_domains/run.py generate
    python recipes/large_domains/run.py train
    python recipes/large_domains/run.py assimilate --extent 1 --count 3
    python recipes/large_domains/run.py assimilate --extent 4
    python recipes/large_domains/run.py assimilate --extent 8
    python recipes/large_domains/run.py report

Every step can be killed and run again. A domain of ``--extent n`` has 64 n x 64 n points.
"""

from __future__ import annotations

import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.systems.kolmogorov import Kolmogorov

HERE = Path(__file__).parent
STATES = 8
# The flow is the same after them; the shape of the forcing has to be, too.
SYMMETRIES = [
    {"flip": ["x", "y"], "negate": ["u", "v", "forcing"]},
    {"flip": ["x"], "shift": {"y": 8}, "negate": ["u", "forcing"]},
]
OPTIMISATION = sdaxr.Optimisation(weighting="relative", levels=(0.005, 60.0), batch=16, validate_every=200)
# By points of a patch to a side: one for ten minutes of a core, one for four minutes of a GPU.
NETWORKS = {
    32: sdaxr.networks.SpaceTimeUNet(widths=(48, 64, 96), patch=4),
    64: sdaxr.networks.SpaceTimeUNet(widths=(64, 96, 128), patch=4),
}
SAMPLER: dict[str, Any] = {"name": "sde-dpm++", "corrections": 1, "tau": 0.7, "above": 0.1, "below": 100.0}


@click.group()
def main() -> None:
    """Train a prior on patches, and assimilate domains of several sizes with it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@main.command()
@click.option("--store", default="patches.zarr", show_default=True)
@click.option("--trajectories", default=10, show_default=True)
def generate(store: str, trajectories: int) -> None:
    """Simulate flows on a domain of 128 x 128 points, from which the patches are cut."""
    sdaxr.generate(flow(2), store, trajectories=trajectories, steps=64, seed=0)


@main.command()
@click.option("--store", default="patches.zarr", show_default=True)
@click.option("--prior", default="patches.safetensors", show_default=True)
@click.option("--points", default=32, show_default=True, type=click.Choice(list(NETWORKS)), help="Side of a patch.")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--floor", is_flag=True, help="The Gaussian process of the patches, without a network.")
def train(store: str, prior: str, points: int, minutes: float, floor: bool) -> None:
    """Train on patches at random places."""
    length: dict[str, Any] = {"steps": 0} if floor else {"minutes": minutes}
    data = with_forcing(sdaxr.open_archive(store))
    sdaxr.train(data, prior, **design(points), optimisation=OPTIMISATION, progress=False, **length)


@main.command()
@click.option("--prior", default="patches.safetensors", show_default=True)
@click.option("--extent", default=1, show_default=True, help="Side of the domain in units of 64 points.")
@click.option("--states", default=STATES, show_default=True)
@click.option("--members", default=2, show_default=True)
@click.option("--count", default=1, show_default=True, help="Truths, one after another.")
@click.option("--steps", default=8, show_default=True, help="Noise levels.")
@click.option("--results", default=str(HERE / "results"), show_default=True)
def assimilate(prior: str, extent: int, states: int, members: int, count: int, steps: int, results: str) -> None:
    """Assimilate 8 x 8 means of the velocity every 4 states, errors of 0.1; one row of the table for each truth."""
    model, folder = sdaxr.open_prior(prior), Path(results)
    for seed in range(100, 100 + count):
        found = row(model, true_states(extent, states, seed), seed, members=members, steps=steps)
        logging.info("%s", found)
        folder.mkdir(exist_ok=True)
        name = f"{model.name}-{extent}-{states}-{members}-{steps}-{seed}.json"
        (folder / name).write_text(json.dumps({k: v if v == v else None for k, v in found.items()}, indent=1) + "\n")


@main.command()
@click.option("--results", default=str(HERE / "results"), show_default=True)
@click.option("--output", default=str(HERE / "results.csv"), show_default=True)
def report(results: str, output: str) -> None:
    """Put all rows into one table."""
    rows = [json.loads(path.read_text()) for path in sorted(Path(results).glob("*.json"))]
    table = pd.DataFrame(rows).astype({"spread": float})
    table.to_csv(output, index=False, float_format="%.4g")
    numbers = (
        table.drop(columns="seed")
        .groupby(["prior", "points", "states", "members", "steps", "device"], sort=False)
        .mean()
    )
    print(numbers.round(3).to_string())


def design(points: int) -> dict[str, Any]:
    """Options of `sdaxr.train` for patches of so many points to a side."""
    statistics = sdaxr.Statistics(patches={"y": points, "x": points}, symmetries=SYMMETRIES)
    return {
        "window": STATES, "variables": ["u", "v"], "context": ["forcing"], "statistics": statistics,
        "network": NETWORKS[points],
    }  # fmt: skip


def row(
    model: Prior, truth: xr.Dataset, seed: int, *, members: int, steps: int, device: str = "auto"
) -> dict[str, Any]:
    """Observe a truth, assimilate the observations, and compare."""
    sampler = SAMPLER | {"steps": steps}
    observations = sdaxr.observe(truth[["u", "v"]], op.coarsen(8), every=4, error=0.1, seed=seed)
    domain, start = model.on(truth), time.perf_counter()
    posterior = sdaxr.assimilate(
        observations, domain, members=members, sampler=sampler, seed=seed, times=truth.time, device=device,
        progress=False,
    )  # fmt: skip
    seconds = (time.perf_counter() - start) / members
    mean = posterior.mean("member")
    error = np.sqrt(np.mean([float(((mean[v] - truth[v]) ** 2).mean()) for v in ("u", "v")]))
    size = np.sqrt(np.mean([float(truth[v].var()) for v in ("u", "v")]))
    spread = (
        np.sqrt(np.mean([float(posterior[v].var("member", ddof=1).mean()) for v in ("u", "v")]))
        if members > 1
        else np.nan
    )
    return {
        "prior": model.name, "points": f"{truth.sizes['y']} x {truth.sizes['x']}", "states": truth.sizes["time"],
        "seed": seed, "members": members, "steps": steps, "rmse": float(error), "rmse_over_sd": float(error / size),
        "spread": float(spread), "residual": residual(posterior, observations),
        "seams": seams(domain, posterior, sampler), "seams_of_truth": seams(domain, truth, sampler),
        "seconds_per_member": seconds, "device": choose_device(device).type,
        # Of the whole process, the truth and the observations included.
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }  # fmt: skip


def flow(extent: int) -> Kolmogorov:
    """Kolmogorov flow on 64 x 64 points for each unit of the domain, the solver twice as fine."""
    return Kolmogorov(extent=extent, resolution=128 * extent, coarsen=2)


def with_forcing(data: xr.Dataset) -> xr.Dataset:
    """The states with the shape of the forcing, which the network sees of each patch."""
    shape = np.sin(4 * data["y"]) * xr.ones_like(data["x"])
    return data.assign_coords(forcing=shape.transpose("y", "x").assign_attrs(units="1"))


def true_states(extent: int, states: int, seed: int) -> xr.Dataset:
    """States of the flow that no prior was trained on; they are kept in a file."""
    system, store = flow(extent), Path(f"truth-{extent}-{states}-{seed}.zarr")
    sdaxr.generate(system, store, trajectories=1, steps=states, seed=seed, overwrite=False)
    return with_forcing(sdaxr.open_archive(store).isel(trajectory=0, drop=True).load())


def residual(posterior: xr.Dataset, observations: xr.Dataset) -> float:
    """Root mean square of the members' innovations, in standard deviations of the errors."""
    found = sdaxr.innovations(posterior, observations)
    return float(np.mean([float(found[f"{v}_normalised_rms"].mean()) for v in ("u", "v")]))


def seams(prior: Prior, states: xr.Dataset, sampler: dict[str, Any]) -> float:
    """Mean square step of the vorticity where tiles of the last noise level overlap, over that elsewhere; else NaN."""
    denoiser = prior.denoiser(states.time)
    # The last level is zero: the state is the estimate at the one before.
    last = resolve_sampler(prior, sampler).build(**prior.noise_levels(states.sizes["time"])).levels[-2]
    spacing = float(states.x.diff("x")[0])
    u, v = (states[name].transpose(..., "y", "x").values for name in ("u", "v"))
    vorticity = (np.roll(v, -1, -1) - np.roll(v, 1, -1) - np.roll(u, -1, -2) + np.roll(u, 1, -2)) / (2 * spacing)
    parts = []
    for axis, tiled in denoiser.axes.items():
        others = tuple(i for i in range(u.ndim) if i != u.ndim + axis)
        steps = ((np.roll(vorticity, -1, axis) - vorticity) ** 2).mean(others)
        tiles = np.zeros(tiled.size, int)
        for start in denoiser.starts(last)[axis]:
            tiles[tiled.points(start)] += 1
        both = (tiles > 1) | (np.roll(tiles, -1) > 1)
        if both.any() and not both.all():
            parts.append(steps[both].mean() / steps[~both].mean())
    return float(np.mean(parts)) if parts else np.nan


if __name__ == "__main__":
    main()
