"""Simulation-based calibration of the methods on Lorenz 1963, with linear, nonlinear and dense observations.

    python recipes/calibration/run.py sample --folder calibration
    python recipes/calibration/run.py report --folder calibration

Truths are trajectories of the system, which are also what the shipped prior has learnt. Results of methods lie in the
folder and are not computed again, so a killed run goes on. `report` writes results.csv and two figures.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import t

import sdaxr
from sdaxr import operators as op
from sdaxr.verification.verdict import describe

HERE = Path(__file__).parent
STEPS, MEMBERS = 33, 19
# The scenarios low, high and mild of recipes/lorenz63.
SCENARIOS: dict[str, dict[str, Any]] = {
    "linear": {"operator": op.select("a"), "every": 8, "error": 0.4},
    "nonlinear": {"operator": op.select("a") >> op.arctan(1 / 8), "every": 4, "error": 0.05},
    "dense": {"operator": op.select("a"), "every": 1, "error": 2.0},
}
PRIOR, SYSTEM = {"prior": "lorenz63"}, {"system": "lorenz63"}
FAST = {"sampler": {"steps": 28, "corrections": 3}}
# What is calibrated, and with how many truths: more for the default and the covariance, fewer for what is slow.
CASES: dict[str, dict[str, Any]] = {
    "sda": PRIOR | FAST | {"truths": 96},
    "sda, covariance": PRIOR | FAST | {"method": {"name": "sda", "variance": "covariance"}, "truths": 96},
    "mmps": PRIOR | FAST | {"method": {"name": "mmps", "iterations": 2}, "truths": 48},
    "jacobian_free": PRIOR | FAST | {"method": "jacobian_free", "truths": 48},
    "ffbs": SYSTEM | {"method": {"name": "ffbs", "particles": 4096}, "truths": 64},
    "bpf": SYSTEM | {"method": {"name": "bpf", "particles": 4096}, "truths": 64},
    "4dvar": SYSTEM | {"method": "4dvar", "truths": 12},
    "dps": PRIOR | FAST | {"method": "dps", "truths": 48},
    "dmps": PRIOR | FAST | {"method": "dmps", "truths": 48},
}
LEFT_OUT = [("dmps", "nonlinear")] + [(name, "dense") for name in ("dps", "dmps", "bpf", "4dvar", "jacobian_free")]


@click.group()
def main() -> None:
    """Calibrate methods."""
    logging.basicConfig(level=logging.WARNING)


@main.command()
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--case", "chosen", type=click.Choice(list(CASES)), multiple=True, help="Only these. Default: all.")
@click.option("--truths", type=int, help="Number of truths of each case.")
def sample(folder: Path, chosen: tuple[str, ...], truths: int | None) -> None:
    """Draw, observe and assimilate the truths of each case."""
    for name in chosen or CASES:
        for scenario, how in SCENARIOS.items():
            if (name, scenario) in LEFT_OUT:
                continue
            case = CASES[name] | ({} if truths is None else {"truths": truths})
            start = time.process_time()
            result = sdaxr.calibrate(
                "lorenz63", steps=STEPS, members=MEMBERS, seed=1, store=path(folder, name, scenario), progress=False,
                **how, **case,
            )  # fmt: skip
            seconds = (time.process_time() - start) / result.sizes["truth"]
            print(f"\n{name}, {scenario} observations: {seconds:.1f} s a truth\n{describe(result)}", flush=True)


@main.command()
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--output", type=Path, default=HERE)
def report(folder: Path, output: Path) -> None:
    """Write results.csv and coverage.png from the results in the folder."""
    found = {
        (name, scenario): sdaxr.open_archive(path(folder, name, scenario)).load()
        for scenario in SCENARIOS
        for name in CASES
        if path(folder, name, scenario).exists()
    }
    for scenario in {key[1] for key in found}:
        if ("ffbs", scenario) not in found:
            raise click.ClickException(
                f"found no result of ffbs for {scenario!r}, expected one; run sample --case ffbs"
            )
    rows = []
    for (name, scenario), result in found.items():
        against = beside(result, found["ffbs", scenario])
        rows.append({"observed": scenario, "method": name} | row(result) | against)
    table = pd.DataFrame(rows)
    table.to_csv(output / "results.csv", index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3g"))
    picture(table, output / "coverage.png")
    figure = sdaxr.plot(found["sda, covariance", "linear"], path=output / "covariance.png")
    figure.clear()


def row(result: xr.Dataset) -> dict[str, Any]:
    """What the table says of one calibration; intervals are over truths."""
    good = result.isel(truth=result["diverged"].values == 0)
    each = good["covered"].mean("variable")
    half = t.ppf(0.975, each.sizes["truth"] - 1) * each.std("truth", ddof=1) / np.sqrt(each.sizes["truth"])
    values = {"truths": result.sizes["truth"], "diverged": result.attrs["diverged"]}
    for level in (0.5, 0.9):
        mean, error = (float(found.sel(level=level)) for found in (each.mean("truth"), half))
        values |= {f"in {level:.0%}": mean, f"in {level:.0%}, from": mean - error, f"in {level:.0%}, to": mean + error}
    values["spread/error"] = float((result["spread_error"] ** 2).mean() ** 0.5)
    values["p value of coverage"] = result.attrs["p_value_coverage"]
    values["p value of quantities"] = result.attrs["p_value_quantities"]
    values["p value of the log-likelihood"] = float(result["p_value"].sel(quantity="log-likelihood"))
    return values | {"verdict": result.attrs["verdict"]}


def beside(result: xr.Dataset, exact: xr.Dataset) -> dict[str, float]:
    """Coverage minus that of exact draws for the same truths, with its standard error."""
    count = min(result.sizes["truth"], exact.sizes["truth"])
    each = (result["covered"] - exact["covered"]).mean("variable").sel(level=0.9).isel(truth=slice(count))
    error = float(each.std(ddof=1)) / np.sqrt(count)
    return {"in 90%, minus ffbs": float(each.mean()), "standard error": error}


def picture(table: pd.DataFrame, file: Path) -> None:
    """Coverage of the intervals of 90 % by method."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(SCENARIOS), figsize=(12, 3.6), sharex=True, sharey=True, layout="constrained")
    names = [name for name in CASES if name in set(table.method)][::-1]
    for axes, scenario in zip(panels, SCENARIOS, strict=True):
        rows = table[table.observed == scenario]
        places = [names.index(name) for name in rows.method]
        bars = np.abs(rows[["in 90%, from", "in 90%, to"]].to_numpy().T - rows["in 90%"].to_numpy())
        axes.axvspan(0.87, 0.93, color="C0", alpha=0.2, lw=0)
        axes.axvline(0.9, color="black", lw=0.8)
        axes.errorbar(rows["in 90%"], places, xerr=bars, fmt="o", ms=4, color="0.2", capsize=2)
        axes.set(title=scenario, xlabel="coverage of intervals of 90 %", yticks=range(len(names)))
        axes.set(yticklabels=names, xticks=(0.8, 0.85, 0.9, 0.95, 1.0), ylim=(-0.5, len(names) - 0.5))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def path(folder: Path, name: str, scenario: str) -> Path:
    return folder / f"{name.replace(', ', '-')}-{scenario}.nc"


if __name__ == "__main__":
    main()
