"""Priors without the model beside filters and smoothers with it, on two turbulent flows, at equal seconds of one core.

    python recipes/ensemble_filters/flows.py generate --store flows             # truths and states of the climates
    python recipes/ensemble_filters/flows.py compare  --store flows
    python recipes/ensemble_filters/flows.py tables
    python recipes/ensemble_filters/flows.py draw     --store flows

A row of flows.csv is a part of the window of one truth, as one method has it; rows that are there are not computed
again. The first truth is for trying options (`--truth 0`), and is not in the table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr
from climates import KOLMOGOROV, QUASIGEOSTROPHIC, Climate, means, read
from climates import generate as simulate

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.enks import EnKS
from sdaxr.filters.ensf import EnSF
from sdaxr.filters.latent import Latent
from sdaxr.filters.letkf import LETKF
from sdaxr.posterior.methods import Method
from sdaxr.systems.base import System

HERE = Path(__file__).parent
KEYS = ["flow", "method", "model", "members", "truth"]
# Points of a prior's state along each side.
CELLS = 64
# States of the climate, shifted at random, of which the patterns of latent assimilation are; and their seed.
LIBRARY, LIBRARY_SEED = 400, 77
# Parts of a window: quarters, and the last observed state.
PARTS = {"1": "first quarter", "2": "second", "3": "third", "4": "fourth", "last": "last observed"}


@dataclass(frozen=True)
class Run:
    """A method and its number of members, and the model that a filter knows; a prior knows none."""

    name: str
    members: int
    method: Method | None = None
    model: str = ""


@dataclass(frozen=True)
class Flow:
    """How a flow is observed, on the grid of its prior, and which models the filters have."""

    prior: str
    operator: op.Operator
    every: int
    coverage: float | None
    models: dict[str, System]
    runs: tuple[Run, ...]

    def observe(self, truth: xr.Dataset, seed: int) -> xr.Dataset:
        """Observations of the means on the grid of the prior, with errors of 0.1."""
        where = None if self.coverage is None else {"coverage": self.coverage}
        return sdaxr.observe(truth, self.operator, every=self.every, error=0.1, seed=seed, where=where)


def runs(letkf: LETKF, lag: int, ensf: Method, members: dict[str, int]) -> tuple[Run, ...]:
    """The prior, and the filters with the model of the truth; the best of them with a wrong one, too."""
    return (
        Run("sda", members["sda"]),
        Run("letkf", members["letkf"], letkf, "the truth's"),
        Run("letkf", members["letkf"], letkf, "wrong"),
        Run("enks", members["enks"], EnKS(filter=letkf, lag=lag), "the truth's"),
        Run("ensf", members["ensf"], ensf, "the truth's"),
    )


# The score filter of the patterns of the climate, best of three tries on the first truth.
PATTERNS = Latent(filter=EnSF(scale=1.0, steps=20, epsilon_beta=0.3))
# States of the filters are those of the prior: an analysis of 64 x 64 points takes a quarter of the seconds.
BLOCKS = replace(QUASIGEOSTROPHIC, coarsen=2)

FLOWS = {
    "kolmogorov": Flow(
        prior="kolmogorov",
        operator=op.coarsen(8),
        every=4,
        coverage=None,
        models={
            "the truth's": KOLMOGOROV,
            "wrong": replace(KOLMOGOROV, reynolds=200.0),
        },
        runs=(
            *runs(
                LETKF(localisation=0.8, inflation=1.1),
                8,
                EnSF(scale=0.1, steps=50),
                {"sda": 4, "letkf": 24, "enks": 22, "ensf": 16},
            ),
            Run("ensf of patterns", 8, PATTERNS, "the truth's"),
        ),
    ),
    "quasigeostrophic": Flow(
        prior="quasigeostrophic",
        operator=op.pv_inversion("u", "v") >> op.standardise({"u": [0.049, 0.0086], "v": [0.050, 0.0088]}),
        every=2,
        coverage=1 / 32,
        models={"the truth's": BLOCKS, "wrong": replace(BLOCKS, rek=2 * BLOCKS.rek)},
        runs=runs(
            LETKF(localisation=5e4, rtpp=0.5),
            16,
            EnSF(steps=50),
            {"sda": 4, "letkf": 76, "enks": 112, "ensf": 10},
        ),
    ),
}


# What the picture says of the model of a run.
TITLES = {"": "", "the truth's": ", right model", "wrong": ", wrong model"}


@click.group()
def main() -> None:
    """Compare priors and ensemble filters on turbulent flows."""
    torch.set_num_threads(1)


@main.command()
@click.option("--store", type=Path, default="flows", show_default=True, help="A directory.")
@click.option("--truths", default=4, show_default=True)
def generate(store: Path, truths: int) -> None:
    """Simulate truths, and states from which ensembles start."""
    simulate(store, truths)


@main.command()
@click.option("--store", type=Path, default="flows", show_default=True)
@click.option("--flow", "names", multiple=True, type=click.Choice(list(FLOWS)), help="Default: both.")
@click.option("--method", "methods", multiple=True, help="Names of methods. Default: all.")
@click.option("--truth", "numbers", multiple=True, type=int, help="Default: all but the first.")
@click.option("--output", type=Path, default=HERE / "flows.csv", show_default=True)
def compare(
    store: Path, names: tuple[str, ...], methods: tuple[str, ...], numbers: tuple[int, ...], output: Path
) -> None:
    """Measure what is not in the table yet."""
    for name in names or FLOWS:
        climate = read(store, name)
        for number in numbers or range(1, climate.truths.sizes["truth"]):
            for run in FLOWS[name].runs:
                key = dict(zip(KEYS, (name, run.name, run.model, run.members, number), strict=True))
                if (methods and run.name not in methods) or _there(key, output):
                    continue
                members, seconds = draw_members(FLOWS[name], run, climate, number)
                members.mean("member").to_netcdf(_file(store, name, run, number))
                parts = measure(FLOWS[name], members, climate, number)
                save([key | part | {"seconds": seconds} for part in parts], output)


@main.command()
@click.option("--results", type=Path, default=HERE / "flows.csv", show_default=True)
def tables(results: Path) -> None:
    """Write means over the truths with their standard errors as flows.md, beside the results."""
    table, lines = pd.read_csv(results, keep_default_na=False), ["# RMSE of the mean (spread, CRPS)"]
    for flow, rows in table.groupby("flow", sort=False):
        heads = " | ".join(("method", "model", "members", "CPU s", "truths", *PARTS.values()))
        lines += ["", f"## {flow}", "", f"| {heads} |"]
        lines.append("|---" * (5 + len(PARTS)) + "|")
        for (method, model, members), found in rows.groupby(KEYS[1:4], sort=False):
            cells = [_cell(found[found.part == part]) for part in PARTS]
            about = (method, model or "-", members, f"{found.seconds.mean():.0f}", found.truth.nunique())
            lines.append("| " + " | ".join(map(str, (*about, *cells))) + " |")
    results.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _cell(rows: pd.DataFrame) -> str:
    """RMSE with its standard error, spread and CRPS."""
    error = f" ± {rows.rmse.sem():.3f}" if len(rows) > 1 else ""
    return f"{rows.rmse.mean():.3f}{error} ({rows.spread.mean():.3f}, {rows.crps.mean():.3f})"


@main.command()
@click.option("--store", type=Path, default="flows", show_default=True)
@click.option("--flow", "names", multiple=True, type=click.Choice(list(FLOWS)), help="Default: both.")
@click.option("--truth", "number", default=1, show_default=True)
@click.option("--output", type=Path, default=HERE / "flows.png", show_default=True)
def draw(store: Path, names: tuple[str, ...], number: int, output: Path) -> None:
    """One truth and the means of the ensembles that were drawn of it, at the last observed state."""
    flows = {name: FLOWS[name] for name in names or FLOWS}
    shape = len(flows), 1 + max(len(flow.runs) for flow in flows.values())
    figure, grid = plt.subplots(*shape, figsize=(15, 2.8 * len(flows)), layout="constrained", squeeze=False)
    for axes, (name, flow) in zip(grid, flows.items(), strict=True):
        truth = means(read(store, name).truths.isel(truth=number), CELLS)
        last = (truth.sizes["time"] - 1) // flow.every * flow.every
        fields = {"truth": _picture(truth.isel(time=last))}
        for run in flow.runs:
            if (file := _file(store, name, run, number)).exists():
                label = run.name + TITLES[run.model]
                fields[label] = _picture(xr.load_dataset(file).isel(time=last))
        limit = float(abs(fields["truth"]).max())
        for axis in axes:
            axis.set_axis_off()
        for axis, (label, field) in zip(axes, fields.items(), strict=False):
            axis.imshow(field, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set_title(label)
    figure.savefig(output, dpi=70)


def _picture(state: xr.Dataset) -> np.ndarray:
    """Vorticity, or the potential vorticity of the upper layer."""
    if "q" in state:
        upper: np.ndarray = state.q.isel(layer=0).values
        return upper
    found: np.ndarray = sdaxr.operators.vorticity().apply(state)["vorticity"].values
    return found


def _file(store: Path, flow: str, run: Run, number: int) -> Path:
    """Where the mean of an ensemble is kept."""
    return store / f"{flow}-{run.name}-{run.model.replace(' ', '-') or 'prior'}-{run.members}-{number}.nc"


def measure(flow: Flow, members: xr.Dataset, climate: Climate, number: int) -> list[dict[str, Any]]:
    """Scores of each quarter of the window, and of the last observed state, until which a filter knows all."""
    truth = means(climate.truths.isel(truth=number), CELLS)
    by_time = scores(members, truth, spreads(climate))
    quarters = [str(i + 1) for i in np.arange(truth.sizes["time"]) * 4 // truth.sizes["time"]]
    last = (truth.sizes["time"] - 1) // flow.every * flow.every
    parts = {p: by_time[[q == p for q in quarters]] for p in sorted(set(quarters))} | {"last": by_time.iloc[[last]]}
    return [{"part": name, **rows.mean().to_dict()} for name, rows in parts.items()]


def draw_members(flow: Flow, run: Run, climate: Climate, number: int) -> tuple[xr.Dataset, float]:
    """An ensemble of the window on the grid of the prior, and its CPU seconds without the compilation of the model."""
    truth = means(climate.truths.isel(truth=number), CELLS)
    seen = flow.observe(truth, number)
    how: dict[str, Any] = {"times": truth.time, "members": run.members, "seed": number, "progress": False}
    if run.method is None:
        how["prior"] = sdaxr.open_prior(flow.prior)
    else:
        system, method = flow.models[run.model], run.method
        if isinstance(method, Latent):
            method = replace(method, trajectories=climate.ensemble(system, LIBRARY, LIBRARY_SEED))
        first = climate.ensemble(system, run.members, number)
        factor = system.template().sizes["x"] // CELLS
        seeing = flow.operator if factor == 1 else op.coarsen(factor, ("y", "x")) >> flow.operator
        how |= {"system": system, "method": method, "background": first, "operator": seeing}
        states = system.to_vectors({str(n): v.values for n, v in first.items()})
        system.advance_ensemble(states, 1, np.random.default_rng(0))
    begun = time.process_time()
    members = sdaxr.assimilate(seen, **how)
    seconds = time.process_time() - begun
    return means(members, CELLS), seconds


def spreads(climate: Climate) -> dict[str, xr.DataArray]:
    """Standard deviation of each variable, and layer, in the climate."""
    states = means(climate.states, CELLS)
    return {str(n): v.std(["state", "y", "x"]) for n, v in states.items()}


def scores(members: xr.Dataset, truth: xr.Dataset, sd: dict[str, xr.DataArray]) -> pd.DataFrame:
    """RMSE of the mean, spread and fair CRPS of each state, in standard deviations of the climate."""
    units = {n: members[n] / sd[n] for n in sd}, {n: truth[n] / sd[n] for n in sd}
    estimate, true = (xr.Dataset({n: v.assign_attrs(units="1") for n, v in u.items()}) for u in units)
    found = sdaxr.verify(estimate, true, metrics=["rmse", "spread", "crps"]).compute()

    def pooled(metric: str, power: int) -> np.ndarray:
        parts = [found[f"{metric}_{n}"] ** power for n in sd]
        over = [p.mean([d for d in p.dims if d != "time"]) for p in parts]
        mean: np.ndarray = (sum(over) / len(over)).values ** (1 / power)
        return mean

    return pd.DataFrame({"rmse": pooled("rmse", 2), "spread": pooled("spread", 2), "crps": pooled("crps", 1)})


def save(rows: list[dict[str, Any]], output: Path) -> None:
    """Write rows at the end of the table."""
    new = pd.DataFrame(rows)
    new.to_csv(output, mode="a", header=not output.exists(), index=False, float_format="%.4g")
    print(new.to_string(header=False, index=False), flush=True)


def _there(key: dict[str, Any], output: Path) -> bool:
    if not output.exists():
        return False
    table = pd.read_csv(output, keep_default_na=False)
    return bool(np.logical_and.reduce([table[n] == value for n, value in key.items()]).any())


if __name__ == "__main__":
    main()
