"""Simulation-based calibration of the methods on Lorenz 1963, Lorenz 1996 and Kolmogorov flow.

    python recipes/calibration/run.py sample --folder calibration
    python recipes/calibration/run.py sample --folder calibration --observed flow --truths 24
    python recipes/calibration/run.py report --folder calibration

Truths are trajectories of the systems, which are also what the shipped priors have learnt. Results of methods lie in
the folder and are not computed again: a killed run goes on, and a run with more truths computes the others. `report`
replaces their rows in results.csv, and writes coverage.png and the table in README.md from it.
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
from sdaxr import methods
from sdaxr import operators as op
from sdaxr.verification.verdict import describe

HERE = Path(__file__).parent
# The scenarios low, mild and high of recipes/lorenz63; all sites of Lorenz 1996 (Sakov & Oke 2008); means over 8 x 8
# cells of the flow, as in recipes/kolmogorov.
SCENARIOS: dict[str, dict[str, Any]] = {
    "linear": {"truth": "lorenz63", "steps": 33, "operator": op.select("a"), "every": 8, "error": 0.4},
    "nonlinear": {
        "truth": "lorenz63", "steps": 33, "operator": op.select("a") >> op.arctan(1 / 8), "every": 4, "error": 0.05,
    },
    "dense": {"truth": "lorenz63", "steps": 33, "operator": op.select("a"), "every": 1, "error": 2.0},
    "sites": {"truth": "lorenz96", "steps": 16, "operator": op.identity(), "every": 1, "error": 1.0},
    "flow": {"truth": "kolmogorov", "steps": 9, "operator": op.coarsen(8), "every": 4, "error": 0.1},
}  # fmt: skip
# Few evaluations: 61, 56 and 26. Members of the larger systems are never drawn together.
SAMPLERS: dict[str, dict[str, Any]] = {
    "lorenz63": {"steps": 28, "corrections": 3},
    "lorenz96": {"steps": 32, "corrections": 2, "above": 0.1, "below": 3.0, "mixing": False},
    "kolmogorov": {"steps": 16, "corrections": 1, "mixing": False},
}
APART = {"sampler": SAMPLERS["lorenz63"] | {"mixing": False}}
# An evaluation of Lorenz 1996 costs some thirty times as much as one of Lorenz 1963.
MEMBERS = {"lorenz63": 19, "lorenz96": 9, "kolmogorov": 19}
# Ensembles of the model estimate their covariance from the members, so that they have more.
ENSEMBLE = {"members": 99}
LOCAL = methods.LETKF(localisation=1.82 * 4, rotation=True)
# The method of each case, how it is called, and its truths by scenario. Iterative smoothers are for systems without
# noise. 4D-Var moves each member to a mode: its members have no ranks.
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, int]]] = {
    "sda": ("sda", {}, {"linear": 96, "nonlinear": 96, "dense": 96, "sites": 6, "flow": 10}),
    "sda, apart": ("sda", APART, {"linear": 96, "dense": 96}),
    "sda, covariance": (methods.SDA(variance="covariance"), {}, {"linear": 48, "nonlinear": 48, "dense": 48}),
    "mmps": (
        methods.MMPS(iterations=2), {}, {"linear": 48, "nonlinear": 48, "dense": 48, "sites": 6, "flow": 10},
    ),
    "soad": (methods.SOAD(variance="bounded"), {}, {"linear": 48, "dense": 48}),
    "jacobian_free": ("jacobian_free", {}, {"linear": 48, "nonlinear": 48}),
    "dps": ("dps", {}, {"linear": 32, "nonlinear": 32}),
    "dmps": ("dmps", {}, {"linear": 48}),
    "ffbs": (methods.FFBS(particles=4096), {}, {"linear": 64, "nonlinear": 64, "dense": 64}),
    "bpf": (methods.BPF(particles=4096), {}, {"linear": 64, "nonlinear": 64}),
    "enkf": ("enkf", ENSEMBLE, {"linear": 48, "nonlinear": 48, "dense": 48}),
    "etkf": (methods.ETKF(rotation=True), ENSEMBLE, {"linear": 48, "nonlinear": 48, "dense": 48}),
    "enks": (
        methods.EnKS(filter=methods.ETKF(rotation=True)), ENSEMBLE,
        {"linear": 48, "nonlinear": 48, "dense": 48, "sites": 48},
    ),
    "pff": ("pff", ENSEMBLE, {"linear": 48, "nonlinear": 16, "dense": 16}),
    "ensf": ("ensf", ENSEMBLE, {"linear": 48, "nonlinear": 48, "dense": 48}),
    "enff": ("enff", ENSEMBLE, {"linear": 48, "nonlinear": 48, "dense": 48}),
    "letkf": (LOCAL, ENSEMBLE, {"sites": 48}),
    "enks of letkf": (methods.EnKS(filter=LOCAL), ENSEMBLE, {"sites": 48}),
    "ienks": (methods.IEnKS(lag=8, rotation=True), ENSEMBLE, {"sites": 48}),
}  # fmt: skip


@click.group()
def main() -> None:
    """Calibrate methods."""
    logging.basicConfig(level=logging.WARNING)


@main.command()
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--case", "chosen", type=click.Choice(list(CASES)), multiple=True, help="Only these. Default: all.")
@click.option("--observed", type=click.Choice(list(SCENARIOS)), multiple=True, help="Only these. Default: all.")
@click.option("--truths", type=int, help="Number of truths of each case; results of fewer are extended.")
@click.option("--progress/--no-progress", default=True)
def sample(
    folder: Path, chosen: tuple[str, ...], observed: tuple[str, ...], truths: int | None, progress: bool
) -> None:
    """Draw, observe and assimilate the truths of each case."""
    for name in chosen or CASES:
        method, how, counts = CASES[name]
        for scenario, count in counts.items():
            if observed and scenario not in observed:
                continue
            start = time.process_time()
            result = sdaxr.calibrate(
                **SCENARIOS[scenario] | {"method": method} | model_of(method, scenario) | how,
                truths=truths or count, seed=1, store=path(folder, name, scenario), progress=progress,
            )  # fmt: skip
            seconds = (time.process_time() - start) / result.sizes["truth"]
            print(f"\n{name}, {scenario}: {seconds:.1f} s a truth\n{describe(result)}", flush=True)


def model_of(method: Any, scenario: str) -> dict[str, Any]:
    """The prior with its sampler, or the system, that a method needs; and its members."""
    system = SCENARIOS[scenario]["truth"]
    if methods.build_method(method, "sda").needs == "system":
        return {"system": system, "members": MEMBERS[system]}
    return {"prior": system, "sampler": SAMPLERS[system], "members": MEMBERS[system]}


@main.command()
@click.option("--folder", type=Path, default=Path("calibration"))
@click.option("--output", type=Path, default=HERE)
def report(folder: Path, output: Path) -> None:
    """Put the results in the folder into results.csv; write the table of README.md and the figure from it."""
    found = {
        (name, scenario): sdaxr.open_archive(path(folder, name, scenario)).load()
        for scenario in SCENARIOS
        for name in CASES
        if path(folder, name, scenario).exists()
    }
    rows = []
    for (name, scenario), result in found.items():
        if scenario in CASES["ffbs"][2] and ("ffbs", scenario) not in found:
            raise click.ClickException(
                f"found no result of ffbs for {scenario!r}, expected one; run sample --case ffbs"
            )
        against = beside(result, found["ffbs", scenario]) if scenario in CASES["ffbs"][2] else {}
        rows.append({"observed": scenario, "method": name} | row(result) | against)
    table = beside_others(pd.DataFrame(rows), output / "results.csv")
    table.to_csv(output / "results.csv", index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3g"))
    fill(output / "README.md", markdown(table))
    picture(table, output / "coverage.png")


def beside_others(new: pd.DataFrame, file: Path) -> pd.DataFrame:
    """New rows in the place of those of the same case, and the other rows of the file, in the order of the cases."""
    table = pd.concat([pd.read_csv(file), new]) if file.exists() else new
    table = table.drop_duplicates(["observed", "method"], keep="last")
    orders = {"observed": list(SCENARIOS), "method": list(CASES)}
    return table.sort_values(list(orders), key=lambda column: column.map(orders[column.name].index))


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
    likelihood = result["p_value"].where(result["quantity"] == "log-likelihood", drop=True)
    values["p value of the log-likelihood"] = float(likelihood[0]) if likelihood.size else np.nan
    return values | {"verdict": result.attrs["verdict"]}


def beside(result: xr.Dataset, exact: xr.Dataset) -> dict[str, float]:
    """Coverage minus that of exact draws for the same truths, with its standard error."""
    count = min(result.sizes["truth"], exact.sizes["truth"])
    each = (result["covered"] - exact["covered"]).mean("variable").sel(level=0.9).isel(truth=slice(count))
    error = float(each.std(ddof=1)) / np.sqrt(count)
    return {"in 90%, minus ffbs": float(each.mean()), "standard error": error}


def markdown(table: pd.DataFrame) -> str:
    """The table of the page."""
    heads = "observed, method, truths, in 50 %, in 90 % (95 % interval), minus ffbs, spread/error, verdict"
    lines = [f"| {heads.replace(', ', ' | ')} |", "|" + "---|" * len(heads.split(", "))]
    for row in table.to_dict("records"):
        cover = f"{row['in 90%']:.1%} ({row['in 90%, from']:.0%} to {row['in 90%, to']:.0%})"
        difference, error = row["in 90%, minus ffbs"], row["standard error"]
        paired = "" if np.isnan(difference) or row["method"] == "ffbs" else f"{difference:+.1%} ± {error:.1%}"
        cells = [row["observed"], row["method"], str(row["truths"]), f"{row['in 50%']:.0%}", cover, paired]
        cells += [f"{row['spread/error']:.2f}", row["verdict"].split(" (")[0]]
        lines.append(f"| {' | '.join(cells)} |".replace("%", " %"))
    return "\n".join(lines)


def fill(page: Path, table: str) -> None:
    """Put the table between the marks of a page."""
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    if not page.exists():
        return
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}")


def picture(table: pd.DataFrame, file: Path) -> None:
    """Coverage of the intervals of 90 % by method."""
    import matplotlib.pyplot as plt

    shown = [scenario for scenario in SCENARIOS if scenario in set(table.observed)]
    names = [name for name in CASES if name in set(table.method)][::-1]
    size = 1.5 + 2.6 * len(shown), 1.2 + 0.22 * len(names)
    figure, panels = plt.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, scenario in zip(panels[0], shown, strict=True):
        rows = table[table.observed == scenario]
        places = [names.index(name) for name in rows.method]
        bars = np.abs(rows[["in 90%, from", "in 90%, to"]].to_numpy().T - rows["in 90%"].to_numpy())
        axes.axvspan(0.87, 0.93, color="C0", alpha=0.2, lw=0)
        axes.axvline(0.9, color="black", lw=0.8)
        axes.errorbar(rows["in 90%"], places, xerr=bars, fmt="o", ms=4, color="0.2", capsize=2)
        axes.set(title=scenario, xlabel="coverage of 90 %", yticks=range(len(names)))
        # Ensembles that have lost the truth are off the scale, at its edge.
        axes.plot(rows["in 90%"].clip(lower=0.7), places, "o", ms=4, color="0.2")
        axes.set(yticklabels=names, xlim=(0.69, 1.01), ylim=(-0.5, len(names) - 0.5))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def path(folder: Path, name: str, scenario: str) -> Path:
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}-{scenario}.nc"


if __name__ == "__main__":
    main()
