"""The scenarios of Rozet & Louppe (2023) on Kolmogorov flow, with figures of merit beside the pictures.

    python recipes/kolmogorov/run.py generate --store kolmogorov.zarr
    python recipes/kolmogorov/scenarios.py sample --store kolmogorov.zarr
    python recipes/kolmogorov/scenarios.py report

Each scenario is sampled with the default, the paper's setting (256 steps, one correction) and DPS with these steps, all
with the same prior, for some test trajectories. Rows that are in scenarios.csv already are not computed again. A
sample's physical consistency is seen by its first state, pushed through the solver: the distance to the sample over
time, beside the solver's own growth of an error that is as large after one step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from merits import VELOCITY, of_split, open_trajectories, residual, scores, spectrum

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
QUARTER = np.pi / 4
# Cells 64 / 4 = 16 to a side; the paper's instruments see the middle 8 or 12 of them.
MIDDLE_8 = {"x": (2 * QUARTER, 6 * QUARTER), "y": (2 * QUARTER, 6 * QUARTER)}
MIDDLE_12 = {"x": (QUARTER, 7 * QUARTER), "y": (QUARTER, 7 * QUARTER)}


@dataclass(frozen=True)
class Scenario:
    """What is observed, and whether there is a truth to compare with."""

    length: int
    observe: Callable[[xr.Dataset, int], xr.Dataset]
    imagined: bool = False


def seen(operator: Any, every: int, error: float) -> Callable[[xr.Dataset, int], xr.Dataset]:
    """Synthetic observations of a truth."""
    return lambda truth, seed: sdaxr.observe(truth, operator, every=every, error=error, seed=seed)


def circle(truth: xr.Dataset, seed: int) -> xr.Dataset:
    """Vorticity 0.6 on a ring at the last state, nowhere else."""
    last = sdaxr.observe(truth, op.vorticity(), start=truth.sizes["time"] - 1, error=0.2, seed=seed)
    distance = sum(((last[d] - np.pi) / np.pi) ** 2 for d in ("x", "y"))
    ring = (distance > 0.4) & (distance < 0.6)
    return last.assign(vorticity=xr.where(ring, 0.6 * xr.ones_like(last.vorticity), np.nan, keep_attrs=True))


def loop(truth: xr.Dataset, seed: int) -> xr.Dataset:
    """The last state is the first one."""
    closed = sdaxr.observe(truth, op.time_difference(), error=0.01, seed=seed)
    return closed.assign({v: xr.zeros_like(closed[v]) for v in VELOCITY})


SCENARIOS = {
    "assimilation": Scenario(32, seen(op.coarsen(8), 4, 0.1)),
    "extrapolation": Scenario(8, seen(op.coarsen(4) >> op.region(**MIDDLE_8), 3, 0.01)),
    "saturation": Scenario(
        8, seen(op.coarsen(4) >> op.vorticity() >> op.region(**MIDDLE_12) >> op.saturate(), 3, 0.05)
    ),
    **{f"subsampling by {n}": Scenario(8, seen(op.subsample(n), 1, 0.1)) for n in (2, 4, 8, 16)},
    "circle": Scenario(8, circle, imagined=True),
    "loop": Scenario(127, loop, imagined=True),
}
# Options of `sdaxr.assimilate`.
METHODS: dict[str, dict[str, Any]] = {
    "sdaxr": {},
    "paper": {"method": sdaxr.methods.SDA(variance=sdaxr.methods.Scalar(0.01)), "sampler": sdaxr.samplers.PAPER},
    "dps": {"method": "dps", "sampler": sdaxr.samplers.PAPER},
}


@click.group()
def main() -> None:
    """Sample the scenarios of the paper and score them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


@main.command()
@click.option("--store", default="kolmogorov.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="kolmogorov", help="Name or file.")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only these.")
@click.option("--method", "methods", multiple=True, type=click.Choice(list(METHODS)), default=("sdaxr",))
@click.option("--members", default=8, show_default=True)
@click.option("--count", default=4, show_default=True, help="Test trajectories; the loop and the circle take one.")
@click.option("--device", default="auto")
@click.option("--output", type=Path, default=HERE)
def sample(
    store: str,
    prior: str,
    scenarios: tuple[str, ...],
    methods: tuple[str, ...],
    members: int,
    count: int,
    device: str,
    output: Path,
) -> None:
    """Draw posteriors, and write one row for each to scenarios.csv."""
    trajectories = open_trajectories(store)
    tests = of_split(trajectories, "test", count)
    model = sdaxr.open_prior(prior)
    path, curves = output / "scenarios.csv", output / "consistency.csv"
    rows, growth = (pd.read_csv(p).to_dict("records") if p.exists() else [] for p in (path, curves))
    done = {(row["scenario"], row["method"], row["trajectory"]) for row in rows}
    for name in scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        for index in tests[:1] if scenario.imagined else tests:
            truth = window(trajectories, index, scenario.length)
            observations = scenario.observe(truth, index)
            for method in methods:
                if (name, method, index) in done:
                    continue
                start = time.perf_counter()
                row: dict[str, Any] = {"scenario": name, "method": method, "trajectory": index, "members": members}
                try:
                    posterior = sdaxr.assimilate(
                        observations, model, times=truth.time, members=members, seed=index, device=device,
                        progress=False, **METHODS[method],
                    )  # fmt: skip
                except sdaxr.schema.DivergenceError as error:
                    logging.info("%s, %s, %d: %s", name, method, index, error)
                    rows.append(row | {"diverged": 1})
                else:
                    row |= {"diverged": 0, "seconds_per_member": (time.perf_counter() - start) / members}
                    row["evaluations"] = posterior.attrs["evaluations_per_member"]
                    found, over_time = score(posterior, truth, observations, scenario)
                    rows.append(row | found)
                    growth += [{"scenario": name, "method": method, "trajectory": index} | r for r in over_time]
                    if index == tests[0]:
                        shown = {} if scenario.imagined else {"truth": truth}
                        figure = sdaxr.plot(posterior, observations=observations, members=3, **shown)
                        figure.savefig(output / f"{name.replace(' ', '-')}-{method}.png", dpi=60)
                pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
                pd.DataFrame(growth).to_csv(curves, index=False, float_format="%.4f")
                logging.info("%s", rows[-1])


def window(trajectories: xr.Dataset, index: int, length: int) -> xr.Dataset:
    """The first states of a trajectory; longer windows than the archive has get times only."""
    truth = trajectories.sel(trajectory=index).isel(time=slice(length)).load()
    if truth.sizes["time"] == length:
        return truth
    step = float(truth.time[1] - truth.time[0])
    times = float(truth.time[0]) + step * np.arange(length)
    return truth.reindex(time=xr.DataArray(times, dims="time", attrs=truth.time.attrs), method="nearest")


def score(
    posterior: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset, scenario: Scenario
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Figures of merit, and distances over time."""
    row = {"residual": residual(posterior, observations)}
    if not scenario.imagined:
        row |= scores(posterior, truth)
        row["spectrum_worst"] = float(abs(spectrum(posterior, truth) - 1).max())
    # The solver takes longer than the sampler; four members are enough for a mean.
    posterior = posterior.isel(member=slice(4))
    again = rerun(posterior.isel(time=0), posterior)
    # The same error as the sample makes in its first step, and what the solver makes of it.
    twin = rerun(posterior.isel(time=1), posterior.isel(time=slice(1, None)))
    apart = distance(again, posterior)
    grown = distance(twin, again.isel(time=slice(1, None)))
    climate = float(np.sqrt(sum(truth[v].var() for v in VELOCITY) * 2))
    curve = [
        {"time": float(t), "rerun": float(a), "growth": float(g), "climatology": climate}
        for t, a, g in zip(apart.time[1:], apart[1:], grown, strict=True)
    ]
    return row | {"rerun_last": curve[-1]["rerun"] / climate, "growth_last": curve[-1]["growth"] / climate}, curve


def rerun(first: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """The states of ``like``, by the solver from ``first``."""
    steps = like.sizes["time"] - 1
    later = sdaxr.forecast(first.expand_dims("time"), "kolmogorov", steps=steps, progress=False)
    states = later[list(VELOCITY)].drop_vars(["init_time", "valid_time"]).rename(lead_time="time")
    whole = xr.concat([first[list(VELOCITY)].expand_dims("time"), states.assign_coords(time=like.time[1:])], "time")
    return whole.load()


def distance(one: xr.Dataset, other: xr.Dataset) -> xr.DataArray:
    """Root mean square difference of the velocity, over space and members; (time)."""
    square = sum((one[v] - other[v]) ** 2 for v in VELOCITY)
    return np.sqrt(square.mean(["member", "y", "x"]))


@main.command()
@click.option("--output", type=Path, default=HERE)
def report(output: Path) -> None:
    """Print means and standard errors over the trajectories, and draw consistency.png."""
    import matplotlib.pyplot as plt

    table = pd.read_csv(output / "scenarios.csv")
    columns = ["evaluations", "seconds_per_member", "residual", "rmse", "crps", "spread_skill", "spectrum_worst"]
    columns += ["rerun_last", "growth_last"]
    found = table.groupby(["scenario", "method"], sort=False)
    lines = [f"| scenario | method | n | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 3)]
    for (scenario, method), rows in found:
        cells = [number(rows[c].mean(), rows[c].sem()) for c in columns]
        gone = f", {rows.diverged.sum()} diverged" if rows.diverged.any() else ""
        lines.append(f"| {scenario} | {method} | {len(rows)}{gone} | {' | '.join(cells)} |")
    print("\n".join(lines))
    curves = pd.read_csv(output / "consistency.csv")
    names = list(curves.scenario.unique())
    figure, axes = plt.subplots(
        -(-len(names) // 3), 3, figsize=(11, 3 * -(-len(names) // 3)), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for color, (method, rows) in zip(
            ("C0", "C1", "C2"), curves[curves.scenario == name].groupby("method"), strict=False
        ):
            mean = rows.groupby("time").mean(numeric_only=True)
            axis.plot(mean.index, mean.rerun / mean.climatology, color=color, label=f"{method}: sample - solver")
            axis.plot(mean.index, mean.growth / mean.climatology, ":", color=color, label=f"{method}: solver's growth")
        axis.set(title=name, yscale="log")
        axis.axhline(1.0, color="0.5", linewidth=0.8)
    axes[0, 0].legend(fontsize="x-small")
    figure.supylabel("distance / climatology")
    figure.supxlabel("time")
    figure.savefig(output / "consistency.png", dpi=90)


def number(mean: float, error: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{mean:.3g}" if np.isnan(error) or error == 0 else f"{mean:.3g} ± {error:.1g}"


if __name__ == "__main__":
    main()
