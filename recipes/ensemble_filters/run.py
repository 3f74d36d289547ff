"""Ensemble filters where observations saturate: Lorenz 1996 and Kolmogorov flow through the arctangent.

    python recipes/ensemble_filters/run.py                                    # every setting and method
    python recipes/ensemble_filters/run.py --setting lorenz96-40 --method ensf

The settings are those of the papers on the ensemble score filter and the ensemble flow filter, at sizes for one core:
all elements are observed, and the first ensemble knows nothing (Lorenz) or little (flow) of the truth. Each row of
results.csv is one method in one setting; a row that is computed again replaces the old one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

from sdaxr import operators as op
from sdaxr.filters.ensemble import EnsembleMethod
from sdaxr.filters.smoothing import smooth
from sdaxr.posterior.methods import METHODS
from sdaxr.schema import DivergenceError
from sdaxr.systems.base import System
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.lorenz96 import Lorenz96

HERE = Path(__file__).parent
KEYS = ["setting", "method", "options"]
MEMBERS = 20
# States of a free run of which the patterns of latent assimilation are.
LIBRARY = 2000


@dataclass(frozen=True)
class Setting:
    """A system, one state of which is a cycle, and how it is observed.

    ``spread`` is the standard deviation of the first ensemble, about the truth where it ``knows`` it, else about 0.
    Errors are those of the cycles after the ``burn_in``.
    """

    system: System
    operator: op.Operator
    error: float
    spread: float
    knows: bool
    cycles: int
    burn_in: int
    truths: int
    runs: tuple[dict[str, Any], ...]


RING = (
    {"name": "etkf", "inflation": 1.1},
    {"name": "letkf", "localisation": 4.0, "inflation": 1.1},
    {"name": "pff", "localisation": 4.0},
    {"name": "ensf", "scale": 1.0},
    {"name": "ensf", "scale": 1.0, "batch": 1},
    {"name": "enff", "scale": 1.0, "guidance": 0.02},
    {"name": "enff", "scale": 1.0, "guidance": 0.1, "flow": "ot"},
    {"name": "latent", "filter": {"name": "ensf", "scale": 0.3, "steps": 50}},
)
FLOW = (
    {"name": "letkf", "localisation": 0.6, "inflation": 1.1},
    {"name": "ensf", "scale": 1.0},
    {"name": "ensf", "scale": 0.3},
    {"name": "enff", "scale": 1.0, "guidance": 0.005},
    {"name": "enff", "scale": 1.0, "guidance": 0.001},
)


def ring(sites: int, truths: int, runs: tuple[dict[str, Any], ...]) -> Setting:
    """Lorenz 1996 with 10 steps of 0.01 between observations (Bao, Zhang & Zhang 2024; Transue et al. 2025)."""
    return Setting(Lorenz96(sites=sites, step=0.1, substeps=10), op.arctan(), 0.05, 1.0, False, 80, 40, truths, runs)


SETTINGS = {
    "lorenz96-40": ring(40, 3, RING),
    "kolmogorov-32": Setting(
        Kolmogorov(resolution=32, coarsen=1, spin_up=40), op.arctan(), 0.1, 1.0, True, 40, 20, 3, FLOW
    ),
}


@click.command()
@click.option("--setting", "names", multiple=True, type=click.Choice(list(SETTINGS)), help="Default: all.")
@click.option("--method", "methods", multiple=True, help="Names of methods. Default: all.")
@click.option("--truths", type=int, help="Independent truths. Default: 3.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first truth.")
@click.option("--options", help="One method in place of those of the setting: its name and options as JSON.")
@click.option("--output", type=Path, default=HERE / "results.csv", show_default=True)
def main(
    names: tuple[str, ...], methods: tuple[str, ...], truths: int | None, seed: int, options: str | None, output: Path
) -> None:
    """Measure, and write a row for each method."""
    for name in names or SETTINGS:
        setting = SETTINGS[name]
        runs = [json.loads(options)] if options else [r for r in setting.runs if not methods or r["name"] in methods]
        series = [experiment(setting, seed + number) for number in range(truths or setting.truths)]
        for run in runs:
            given = {key: value for key, value in run.items() if key != "name"}
            row = {"setting": name, "method": run["name"], "options": json.dumps(given, sort_keys=True)}
            save(row | {"members": MEMBERS} | measure(setting, run, series), output)


def experiment(setting: Setting, seed: int) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """A truth, observations of it, and a first ensemble."""
    system, template = setting.system, setting.system.template()
    fields = system.trajectory(setting.cycles + 1, seed)
    times = xr.DataArray(np.arange(setting.cycles + 1) * system.step, dims="time", attrs=system.time_attrs)
    data = {n: (("time", *v.dims), fields[n], v.attrs) for n, v in template.data_vars.items()}
    truth = xr.Dataset(data, dict(template.coords) | {"time": times})
    seen = truth.sda.observe(setting.operator, start=1, error=setting.error, seed=seed)
    states = setting.spread * np.random.default_rng([seed, 9]).normal(size=(MEMBERS, system.size))
    if setting.knows:
        states += system.to_vectors(fields)[0]
    first = {n: (("member", *v.dims), system.from_vectors(states)[str(n)], v.attrs) for n, v in template.items()}
    return truth, seen, xr.Dataset(first, template.coords)


def measure(
    setting: Setting, run: dict[str, Any], series: list[tuple[xr.Dataset, xr.Dataset, xr.Dataset]]
) -> dict[str, float]:
    """Means over truths of the error of the ensemble mean and the spread, each a root mean square over the elements."""
    method, found = build(setting, run), []
    for seed, (truth, seen, first) in enumerate(series):
        begun = time.process_time()
        try:
            members = smooth(
                seen, setting.system, method=method, members=MEMBERS, seed=seed, background=first,
                times=truth.time.values, progress=False,
            )  # fmt: skip
        except DivergenceError as error:
            print(f"{method.name}: {error}")
            found.append((np.nan, np.nan, np.nan))
            continue
        spent = (time.process_time() - begun) / setting.cycles
        late = {"time": slice(setting.burn_in + 1, None)}
        error = (members.mean("member") - truth).isel(late).to_dataarray()
        spread = members.var("member", ddof=1).isel(late).to_dataarray()
        space = [d for d in error.dims if d != "time"]
        values = float(((error**2).mean(space) ** 0.5).mean()), float((spread.mean(space) ** 0.5).mean())
        found.append((*values, spent))
    names, scores = ("rmse", "spread", "seconds"), np.array(found)
    errors = scores.std(0, ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else np.full(3, np.nan)
    means = dict(zip(names, scores.mean(0).tolist(), strict=True))
    return {"truths": len(series)} | means | {"rmse_se": float(errors[0])}


def build(setting: Setting, run: dict[str, Any]) -> EnsembleMethod:
    """The method; that of latent assimilation with the patterns of a free run."""
    if run["name"] == "latent":
        system, template = setting.system, setting.system.template()
        fields = system.trajectory(LIBRARY, 1000)
        times = xr.DataArray(np.arange(LIBRARY) * system.step, dims="time", attrs=system.time_attrs)
        data = {n: (("time", *v.dims), fields[n], v.attrs) for n, v in template.data_vars.items()}
        run = run | {"trajectories": xr.Dataset(data, dict(template.coords) | {"time": times})}
    method = METHODS.build(run)
    assert isinstance(method, EnsembleMethod)
    return method


def save(row: dict[str, Any], output: Path) -> None:
    """Write a row in the place of the one with the same keys, or at the end."""
    new = pd.DataFrame([row])
    if output.exists():
        old = pd.read_csv(output)
        same = (old[KEYS].astype(str) == new[KEYS].astype(str).iloc[0]).all(axis=1)
        new = pd.concat([old[~same], new], ignore_index=True)
    new.to_csv(output, index=False, float_format="%.4g")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
