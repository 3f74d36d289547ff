r"""What an evaluation of the network buys: denoisers, samplers, methods of guidance, and compositions of windows.

    python recipes/kolmogorov/cost.py samplers --store kolmogorov.zarr
    python recipes/kolmogorov/cost.py methods --store kolmogorov.zarr
    python recipes/kolmogorov/run.py train --configuration windows --minutes 7 --prior windows.safetensors
    python recipes/kolmogorov/run.py train --minutes 7 --prior space-time.safetensors
    python recipes/kolmogorov/run.py train --configuration paper --minutes 7 --prior paper.safetensors
    python recipes/kolmogorov/run.py train --configuration edm --minutes 7 --prior edm.safetensors
    python recipes/kolmogorov/cost.py denoisers kolmogorov space-time.safetensors edm.safetensors \
           windows.safetensors paper.safetensors
    python recipes/kolmogorov/cost.py compositions --windows windows.safetensors --space-time space-time.safetensors

The assimilation scenario of the paper with 32 states, on validation trajectories; rows that are in the table are not
computed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from merits import bands, inside_90, of_split, open_trajectories, residual, scores, spectrum

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
# Changes of what the prior's file asks for: 16 steps of sde-dpm++, three corrections of tau = 0.7 above r = 0.1.
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"{steps} steps": {"steps": steps} for steps in (10, 32, 64)},
    **{f"C = {c}": {"corrections": c} for c in (0, 1, 2, 5)},
    **{f"tau = {tau}": {"tau": tau} for tau in (0.2, 0.35, 0.5, 1.0, 1.5)},
    **{f"above {r}": {"above": r} for r in (0.05, 0.3, 0.5)},
    **{f"below {r}": {"below": r} for r in (1.0, 3.0, 10.0)},
    **{f"eta = {eta}": {"eta": eta} for eta in (0.0, 0.5, 1.5)},
    **{f"{steps} steps, C = {c}": {"steps": steps, "corrections": c} for steps, c in ((32, 0), (32, 1), (64, 0))},
    "64 steps, C = 6, tau = 0.35": {"steps": 64, "corrections": 6, "tau": 0.35},
    "above 0.3, C = 5": {"above": 0.3, "corrections": 5},
    "smallest 0.03": {"smallest": 0.03},
    "dpm++": {"name": "dpm++"},
    "dpm++, C = 0": {"name": "dpm++", "corrections": 0},
    "ancestral, Karras grid, C = 0": {"name": "ancestral", "grid": "karras", "corrections": 0},
    "ancestral, Karras grid, 32 steps, C = 1": {
        "name": "ancestral", "grid": "karras", "steps": 32, "corrections": 1, "tau": 1.0
    },
}  # fmt: skip
METHODS: dict[str, Any] = {
    "bounded": sdaxr.methods.SDA(variance=sdaxr.methods.Bounded()),
    "jacobian_free": "jacobian_free",
    "mmps": "mmps",
}
STRIDES = (1, 2, 3, 5)
_SCORES = ("rmse", "crps", "spread_skill")
_BANDS = ("k_1_4", "k_5_8", "k_9_12", "k_13_16", "k_17_20", "k_21_24")
# Columns of the file of each study.
COLUMNS: dict[str, tuple[str, ...]] = {
    "samplers": ("case", "trajectory", "members", "evaluations", *_SCORES, "inside_90", "residual", *_BANDS),
    "methods": ("case", "trajectory", "members", "evaluations", *_SCORES, "inside_90", "residual", *_BANDS),
    "compositions": (
        "case", "trajectory", "members", "seconds_per_member", "evaluations", *_SCORES, "residual",
        "spectrum_low", "spectrum_high",
    ),
}  # fmt: skip
LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@click.group()
def main() -> None:
    """Studies of cost and quality."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def options(command: Any) -> Any:
    """Options that the studies share."""
    for decorate in (
        click.option("--store", default="kolmogorov.zarr", show_default=True),
        click.option("--count", default=2, show_default=True, help="Validation trajectories."),
        click.option("--members", default=16, show_default=True),
        click.option("--device", default="auto", show_default=True),
        click.option("--output", type=Path, default=HERE),
    ):
        command = decorate(command)
    return command


@main.command()
@click.option("--prior", default="kolmogorov")
@options
def samplers(prior: str, **about: Any) -> None:
    """Levels, corrections and samplers; a sampler is given by what differs from the record of the prior."""
    record = sdaxr.open_prior(prior).metadata["sampling"]["sampler"]
    study("samplers", {name: (prior, {"sampler": record | change}) for name, change in CHANGES.items()}, **about)


@main.command()
@click.option("--prior", default="kolmogorov")
@options
def methods(prior: str, **about: Any) -> None:
    """Methods of guidance, each with the default sampler."""
    study("methods", {name: (prior, {"method": method}) for name, method in METHODS.items()}, **about)


@main.command()
@click.option("--windows", required=True, help="Prior on windows of five states.")
@click.option("--space-time", required=True, help="Prior with temporal convolutions, trained as long.")
@options
def compositions(windows: str, space_time: str, **about: Any) -> None:
    """Windows at every state (the paper's), fewer of them, and temporal convolutions in their place."""
    sampler = {"steps": 16, "corrections": 1, "tau": 1.0}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        f"stride {n}": (windows, {"sampler": sampler | {"stride": n}}) for n in STRIDES
    }
    study("compositions", cases | {"space-time": (space_time, {"sampler": sampler})}, **about)


@main.command()
@click.argument("priors", nargs=-1, required=True)
@click.option("--store", default="kolmogorov.zarr", show_default=True)
@click.option("--count", default=2, show_default=True, help="Validation trajectories.")
@click.option("--output", type=Path, default=HERE)
def denoisers(priors: tuple[str, ...], store: str, count: int, output: Path) -> None:
    """Mean square error of each prior's denoiser on 16 states, over what is left without a network, r^2 / (1 + r^2)."""
    trajectories, rows = open_trajectories(store), []
    for name in priors:
        prior = sdaxr.open_prior(name)
        about = {"prior": Path(name).stem, "parameters": sum(p.numel() for p in prior.network.parameters())}
        about |= {k: prior.metadata["training"][k] for k in ("minutes", "steps")}
        for r in LEVELS:
            errors = []
            for index in of_split(trajectories, "valid", count):
                states = trajectories.sel(trajectory=index).isel(time=slice(16)).load()
                x = torch.as_tensor(prior.layout.to_array(states))[None]
                z = x + r * torch.randn(x.shape, generator=torch.Generator().manual_seed(index))
                with torch.no_grad():
                    errors.append(float((prior.denoiser(states.time)(z, r) - x).square().mean()) * (1 + r**2) / r**2)
            rows.append(about | {"r": r, "error": float(np.mean(errors))})
        logging.info("%s", rows[-1])
    table = pd.DataFrame(rows)
    table.to_csv(output / "denoisers.csv", index=False, float_format="%.4f")
    print(table.pivot_table(index=["prior", "parameters", "minutes", "steps"], columns="r", values="error", sort=False))


def study(
    name: str,
    cases: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    store: str,
    count: int,
    members: int,
    device: str,
    output: Path,
) -> None:
    """One row a case and trajectory, and the means over the trajectories on the screen."""
    trajectories, path = open_trajectories(store), output / f"{name}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["case"], row["trajectory"]) for row in rows}
    for index in of_split(trajectories, "valid", count):
        truth = trajectories.sel(trajectory=index).isel(time=slice(32)).load()
        observations = sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=index)
        for case, (prior, how) in cases.items():
            if (case, index) in done:
                continue
            start = time.perf_counter()
            try:
                posterior = sdaxr.assimilate(
                    observations, prior, members=members, seed=index, device=device, progress=False, **how
                )
            except sdaxr.schema.DivergenceError as error:
                logging.info("%s: %s", case, error)
                continue
            seconds = (time.perf_counter() - start) / members
            row = {"case": case, "trajectory": index, "members": members, "seconds_per_member": seconds}
            row["evaluations"] = posterior.attrs["evaluations_per_member"]
            row |= scores(posterior, truth) | {"inside_90": inside_90(posterior, truth)}
            row |= {"residual": residual(posterior, observations)} | bands(posterior, truth)
            ratio = spectrum(posterior, truth)
            row |= {"spectrum_low": float(ratio.min()), "spectrum_high": float(ratio.max())}
            rows.append({column: row[column] for column in COLUMNS[name]})
            logging.info("%s", row)
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
    table = pd.DataFrame(rows).drop(columns="trajectory").groupby("case", sort=False).mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
