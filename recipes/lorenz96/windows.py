"""Smoothing of windows whose past is unknown: a prior without the model beside ensembles of the model.

    python recipes/lorenz96/windows.py                                                      # everything
    python recipes/lorenz96/windows.py --scenario sakov2008 --method sda --windows 4 --members 8
    python recipes/lorenz96/windows.py --take recipes/gpu/h200/smoothing.jsonl              # from a GPU

Each window is a series of its own, whose first state is a draw from the climate. windows.csv has a row for each window
and method; a row that is computed again replaces the old one. What a method does in a window takes its seconds, on the
device that is named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from rows import save
from run import HALF, score

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.enks import EnKS
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.ienks import IEnKS
from sdaxr.filters.letkf import LETKF
from sdaxr.systems.lorenz96 import Lorenz96

HERE = Path(__file__).parent
# Factors of the ensembles of the smoothers; a wrong model needs more.
INFLATIONS = (1.0, 1.05, 1.1, 1.2)
# The defaults of the package, a third of the evaluations of what the file of the prior records.
QUICK = {"mixing": False, "name": "sde-dpm++", "steps": 32, "corrections": 3, "above": 0.1, "below": 3.0}
# The covariance of the network's Jacobian, but where the mode is chosen.
MOMENTS = sdaxr.methods.MMPS(iterations=2, below=1.0)
KEYS = ["scenario", "method", "members", "window"]


@dataclass(frozen=True)
class Scenario:
    """What is observed of how many states; ``every`` states are a cycle. The forcing is that of the truth."""

    operator: op.Operator
    error: float
    states: int = 64
    every: int = 1
    forcing: float = 8.0

    def truth(self, number: int) -> xr.Dataset:
        """The states of a window, (time, site)."""
        system = Lorenz96(forcing=self.forcing)
        template = system.template()
        x = system.trajectory(self.states, 10_000 + number)["x"]
        axis = ("time", system.step * np.arange(self.states), system.time_attrs)
        return xr.Dataset({"x": (("time", "site"), x, template.x.attrs)}, dict(template.coords) | {"time": axis})

    def observe(self, truth: xr.Dataset, number: int) -> xr.Dataset:
        """Observations of every ``every``-th state."""
        found: xr.Dataset = truth.sda.observe(self.operator, every=self.every, error=self.error, seed=number)
        return found


SCENARIOS = {
    "sakov2008": Scenario(op.identity(), 1.0),
    "bocquet2010": Scenario(op.subsample(2), 1.5),
    "spantini2019": Scenario(op.subsample(2), 0.5**0.5, states=97, every=8),
    "forcing": Scenario(op.identity(), 1.0, forcing=8.5),
    "sparse-forcing": Scenario(op.subsample(2), 0.5**0.5, states=97, every=8, forcing=8.5),
}


def with_prior(prior: str | sdaxr.Prior, **options: Any) -> Callable[..., xr.Dataset]:
    """Posterior members of a prior; the model is not needed."""

    def draw(observations: xr.Dataset, truth: xr.Dataset, members: int, seed: int, device: str) -> xr.Dataset:
        return sdaxr.assimilate(
            observations, prior, times=truth.time, members=members, seed=seed, device=device, progress=False, **options
        )

    return draw


def with_model(method: Any) -> Callable[..., xr.Dataset]:
    """Members of an ensemble smoother whose model has the forcing 8, and whose first ensemble is of the climate."""

    def draw(observations: xr.Dataset, truth: xr.Dataset, members: int, seed: int, device: str) -> xr.Dataset:
        del device
        return sdaxr.assimilate(
            observations, system=Lorenz96(), method=method, times=truth.time, members=members, seed=seed,
            progress=False,
        )  # fmt: skip

    return draw


def methods(prior: str, unknown: str) -> dict[str, tuple[Callable[..., xr.Dataset], int]]:
    """Each method with its number of members; ``unknown`` is the prior whose forcing is unknown."""
    found = {
        "sda": (with_prior(prior, method="sda", sampler={"mixing": False}), 16),
        "sda, 32 levels": (with_prior(prior, method="sda", sampler=QUICK), 16),
        "mmps below 1": (with_prior(prior, method=MOMENTS, sampler={"mixing": False}), 16),
        "mmps below 1, 32 levels": (with_prior(prior, method=MOMENTS, sampler=QUICK), 16),
        "sda, unknown forcing": (with_prior(unknown, method="sda", sampler=QUICK), 16),
        "mmps, unknown forcing": (with_prior(unknown, method="mmps", sampler=QUICK), 16),
    }
    for factor in INFLATIONS:
        local = LETKF(inflation=factor, localisation=HALF, rotation=True)
        found[f"enks, inflation {factor:g}"] = with_model(EnKS(ETKF(inflation=factor, rotation=True))), 200
        found[f"enks of letkf, inflation {factor:g}"] = with_model(EnKS(local)), 100
        found[f"ienks, inflation {factor:g}"] = with_model(IEnKS(lag=8, inflation=factor, rotation=True)), 60
    return found


def row(scenario: str, number: int, draw: Callable[..., xr.Dataset], members: int, device: str) -> dict[str, Any]:
    """Scores of one window: at its observed times, at its last one, and seconds."""
    task = SCENARIOS[scenario]
    truth = task.truth(number)
    observations = task.observe(truth, number)
    begun = time.perf_counter()
    posterior = draw(observations, truth, members, number, device)
    seconds = time.perf_counter() - begun
    at = slice(None, None, task.every)
    found = score(posterior.x.transpose("time", "member", "site").values[at].astype(float), truth.x.values[at])
    means = {key.removesuffix("_filter"): float(values.mean()) for key, values in found.items()}
    last = {"rmse_last": float(found["rmse_filter"][-1]), "rmse_median": float(np.median(found["rmse_filter"]))}
    if "forcing" in posterior:
        values = posterior.forcing.mean([d for d in posterior.forcing.dims if d != "member"]).values
        last |= {"forcing": float(values.mean()), "forcing_spread": float(values.std(ddof=1))}
    return means | last | {"cycles": len(truth.time[at]), "seconds": seconds, "device": device}


@click.command()
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(list(SCENARIOS)), help="Default: all.")
@click.option("--method", "chosen", multiple=True, help="Names of methods. Default: all.")
@click.option("--prior", default="lorenz96", show_default=True)
@click.option("--unknown", default="lorenz96-forcing", show_default=True, help="The prior with an unknown forcing.")
@click.option("--windows", default=16, show_default=True)
@click.option("--members", type=int, help="Default: those of the method.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--take", type=Path, help="Measure nothing; take the rows of a GPU run, smoothing.jsonl.")
@click.option("--output", type=Path, default=HERE / "windows.csv", show_default=True)
def main(
    scenarios: tuple[str, ...], chosen: tuple[str, ...], prior: str, unknown: str, windows: int, members: int | None,
    device: str, take: Path | None, output: Path,
) -> None:  # fmt: skip
    """Measure, and print the means with their standard errors."""
    for line in map(json.loads, take.read_text().splitlines()) if take else ():
        if line.pop("what") == "window" and line["scenario"] in SCENARIOS:
            save({key: value for key, value in line.items() if key != "at"}, KEYS, output)
    torch.set_num_threads(1)
    for scenario in scenarios or SCENARIOS:
        for name, (draw, count) in methods(prior, unknown).items():
            if take or (chosen and name not in chosen):
                continue
            for number in range(windows):
                key = {"scenario": scenario, "method": name, "members": members or count, "window": number}
                save(key | row(scenario, number, draw, members or count, device), KEYS, output)
    print(summary(pd.read_csv(output)).to_string())


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the windows, and their standard errors."""
    groups = rows.drop(columns=["window", "device"]).groupby(KEYS[:3], sort=False)
    means, errors = groups.mean(), groups.sem()
    means.insert(1, "rmse_se", errors["rmse"])
    return means.assign(windows=groups.size()).round(3).sort_index(level="scenario", sort_remaining=False)


if __name__ == "__main__":
    main()
