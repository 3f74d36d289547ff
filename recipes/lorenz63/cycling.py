"""Is an ensemble that is carried from window to window as wide as the exact posterior?

    python recipes/lorenz63/cycling.py sample      # 40 minutes of a core
    python recipes/lorenz63/cycling.py report      # the table of the README

Observed is the first component of every eighth state, with an error of 1. Each window has 32 states, and the ensemble
of a window is what the prior makes of the one before. Exact draws know the observations of the window and of the 64
states before it; they are smoothed by a particle filter with the system itself. cycling.csv has a row for each window:
the mean square error of the ensemble mean and the variance of the ensemble, over the variances of the components.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
STATES, BEFORE, EVERY, ERROR = 32, 64, 8, 1.0
INFLATIONS: tuple[float | str, ...] = (1.0, "adaptive")
EXACT = {"name": "ffbs", "particles": 16_384}


@click.group()
def main() -> None:
    """Cycle, and compare with exact draws."""


@main.command()
@click.option("--windows", default=101, show_default=True, help="The first one has no past, and is not counted.")
@click.option("--members", default=16, show_default=True, help="Of an ensemble that is carried.")
@click.option("--exact", default=64, show_default=True, help="Exact draws of a window.")
@click.option("--seed", default=77, show_default=True, help="Of the truth.")
@click.option("--output", type=Path, default=HERE / "cycling.csv", show_default=True)
def sample(windows: int, members: int, exact: int, seed: int, output: Path) -> None:
    """Assimilate the series in all ways; ways that are in the table are left out."""
    done = pd.read_csv(output) if output.exists() else pd.DataFrame({"ensemble": []})
    truth = series(windows, seed)
    observations = sdaxr.observe(truth, op.select("a"), every=EVERY, error=ERROR, seed=1)
    ways = {f"prior, inflation={value}": value for value in INFLATIONS} | {"exact": None}
    for name, inflation in ways.items():
        if name in set(done.ensemble):
            continue
        if inflation is None:
            found = smoothed(truth, observations, exact)
        else:
            cycled = sdaxr.cycle(
                observations, "lorenz63", window=STATES, members=members, inflation=inflation, seed=0, progress=False
            )
            found = (cycled.isel(time=part) for part in parts(truth))
        rows = [{"ensemble": name, "window": n} | row for n, row in enumerate(compared(found, truth), 1)]
        done = pd.concat([done, pd.DataFrame(rows)])
        done.to_csv(output, index=False, float_format="%.6g")


@main.command()
@click.option("--output", type=Path, default=HERE / "cycling.csv")
def report(output: Path) -> None:
    """Spread over error of each ensemble, with intervals of 95 % from windows drawn again."""
    table = pd.read_csv(output).pivot(index="window", columns="ensemble")
    drawn = np.random.default_rng(0).integers(0, len(table), (2000, len(table)))
    errors, spreads = (table[kind] for kind in ("square_error", "variance"))
    exact = ratio(errors["exact"].to_numpy()[drawn], spreads["exact"].to_numpy()[drawn])
    print(
        "| ensemble | windows | RMSE | spread/error (95 %) | over that of exact draws (95 %) |\n|---|---|---|---|---|"
    )
    for name in errors:
        whole = ratio(errors[name].to_numpy(), spreads[name].to_numpy())
        against = ratio(errors["exact"].to_numpy(), spreads["exact"].to_numpy())
        again = ratio(errors[name].to_numpy()[drawn], spreads[name].to_numpy()[drawn])
        beside = "" if name == "exact" else f"{whole / against:.2f} ({interval(again / exact)})"
        print(
            f"| {name} | {len(table)} | {errors[name].mean() ** 0.5:.3f} | {whole:.2f} ({interval(again)}) | {beside} |"
        )


def series(windows: int, seed: int) -> xr.Dataset:
    """States of the system, with its labels."""
    system, layout = sdaxr.open_system("lorenz63"), sdaxr.open_prior("lorenz63").layout
    states = system.trajectory(windows * STATES, seed=seed)
    template = layout.template(layout.times(0.0, windows * STATES))
    return template.assign(
        {v: (template[v].dims, x.reshape(template[v].shape).astype("float32"), template[v].attrs)
         for v, x in states.items()}
    )  # fmt: skip


def parts(truth: xr.Dataset) -> Iterator[slice]:
    """The states of each window but the first."""
    for first in range(STATES, truth.sizes["time"], STATES):
        yield slice(first, first + STATES)


def smoothed(truth: xr.Dataset, observations: xr.Dataset, members: int) -> Iterator[xr.Dataset]:
    """Exact draws of each window, given the observations of it and of the states before."""
    half = float(truth.time[1] - truth.time[0]) / 2
    for part in parts(truth):
        span = truth.isel(time=slice(max(0, part.start - BEFORE), part.stop))
        seen = observations.sel(time=slice(float(span.time[0]) - half, float(span.time[-1]) + half))
        found = sdaxr.assimilate(
            seen, system="lorenz63", method=EXACT, members=members, seed=part.start, times=span.time, progress=False
        )
        yield found.isel(time=slice(-STATES, None))


def compared(ensembles: Iterator[xr.Dataset], truth: xr.Dataset) -> Iterator[dict[str, float]]:
    """Square error of the mean and variance of the ensemble in each window, over the variances of the components."""
    variances = truth.var()
    for part, ensemble in zip(parts(truth), ensembles, strict=True):
        states = truth.isel(time=part)
        members = ensemble.assign_coords(time=states.time)
        error = (members.mean("member") - states) ** 2 / variances
        # The mean of so many members has an error of its own.
        variance = members.var("member", ddof=1) * (1 + 1 / members.sizes["member"]) / variances
        yield {
            name: float(values.to_dataarray().mean())
            for name, values in (("square_error", error), ("variance", variance))
        }


def ratio(errors: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Spread over error, over the last axis."""
    return np.sqrt(variances.mean(-1) / errors.mean(-1))


def interval(values: np.ndarray) -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main()
