"""Posteriors of the noisy Lorenz chain against the true ones: Figure 2 of Rozet & Louppe (2023), and calibration.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/study.py sample --store lorenz63.zarr --frequency low
    python recipes/lorenz63/study.py sample --store lorenz63.zarr --frequency high
    python recipes/lorenz63/study.py report

The truth are draws of the exact posterior by forward filtering and backward simulation (2^16 particles). Rows that are
in study.csv already are not computed again, so a killed run goes on; the two frequencies may run side by side.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import ot  # POT
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import densities
from sdaxr import operators as op

HERE = Path(__file__).parent
LENGTH = 65
NAMES = ("a", "b", "c")
MEAN, SCALE = np.array([0.0, 0.0, 25.0]), np.array([8.0, 9.0, 8.6])  # the paper's normalisation
FREQUENCIES = {"low": {"every": 8, "error": 0.05 * 8}, "high": {"every": 1, "error": 0.25 * 8}}
PAPER = {"sampler": "exponential", "tau": 0.25, "gamma": 0.03}
CASES: dict[str, dict[str, Any]] = {
    "sdaxr, 64": {"steps": 29, "corrections": 3},
    "sdaxr, 128": {"steps": 40, "corrections": 5},
    "sdaxr, 256": {"steps": 64, "corrections": 7},
    "no corrections, 128": {"steps": 128, "corrections": 0},
    "bounded, 128": {"method": "bounded", "gamma": 0.03, "steps": 40, "corrections": 5},
    "mmps, 128": {"method": "mmps", "iterations": 2, "steps": 32, "corrections": 4},
    "jacobian_free, 128": {"method": "jacobian_free", "steps": 40, "corrections": 5},
    "dps, 128": {"method": "dps", "steps": 40, "corrections": 5},
}
# With the paper's network and parameterisation (`run.py train --network paper`): its setting, and more corrections.
PAPERS: dict[str, dict[str, Any]] = {
    "paper, C = 1": PAPER | {"corrections": 1},
    "paper, C = 4": PAPER | {"corrections": 4},
}


@click.group()
def main() -> None:
    """Compare samplers and guidances with the exact posterior."""


@main.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--paper-prior", help="File of `run.py train --network paper`; without it those cases are left out.")
@click.option("--frequency", type=click.Choice(list(FREQUENCIES)), required=True)
@click.option("--observations", default=4, help="The paper has 64.")
@click.option("--members", default=256, help="The paper has 1024.")
@click.option("--case", "chosen", multiple=True, help="Only these.")
@click.option("--output", type=Path, default=HERE)
def sample(
    store: str,
    prior: str,
    paper_prior: str | None,
    frequency: str,
    observations: int,
    members: int,
    chosen: tuple[str, ...],
    output: Path,
) -> None:
    """Draw posteriors and write one row for each to study.csv."""
    trajectories = sdaxr.open_archive(store)
    tests = np.flatnonzero(trajectories.split.values == "test")[:observations]
    cases = {name: (prior, how) for name, how in CASES.items()}
    if paper_prior is not None:
        cases |= {name: (paper_prior, how) for name, how in PAPERS.items()}
    path = output / f"study-{frequency}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["trajectory"], row["case"]) for row in rows}
    for index in map(int, tests):
        waiting = [c for c in cases if (index, c) not in done and (not chosen or c in chosen)]
        if not waiting:
            continue
        truth = trajectories.isel(trajectory=index, time=slice(LENGTH)).load()
        seen = sdaxr.observe(truth, op.select("a"), seed=index, **FREQUENCIES[frequency])
        exact = [
            seen.sda.assimilate(system="lorenz63", method="ffbs", members=members, seed=s, progress=False)
            for s in (0, 1)
        ]
        floor = distance(exact[0], exact[1])
        for case in waiting:
            which, how = cases[case]
            row = {"frequency": frequency, "trajectory": index, "case": case, "members": members, "floor": floor}
            start = time.perf_counter()
            try:
                posterior = seen.sda.assimilate(which, members=members, seed=index, progress=False, **how)
            except sdaxr.schema.DivergenceError as error:
                print(f"{frequency} {index} {case}: {error}", flush=True)
                rows.append(row | {"diverged": 1})
            else:
                row |= {"diverged": 0, "seconds": time.perf_counter() - start}
                rows.append(row | {"evaluations": posterior.attrs["evaluations_per_member"]})
                rows[-1] |= compare(posterior, exact, seen)
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)


@main.command()
@click.option("--output", type=Path, default=HERE)
def report(output: Path) -> None:
    """Tables of all rows, and study.png."""
    table = pd.concat([pd.read_csv(path) for path in sorted(output.glob("study-*.csv"))])
    means = ["evaluations", "seconds", "ratio", "log_prior", "log_likelihood", "crps", "cover_50", "cover_90"]
    found = table.groupby(["frequency", "case"], sort=False)
    summary = (
        found[means]
        .mean()
        .assign(ratio_se=found["ratio"].sem(), diverged=found["diverged"].sum(), observations=found.size())
    )
    print(summary.round(3).to_string())
    picture(table, output / "study.png")


def vectors(states: xr.Dataset) -> np.ndarray:
    """Normalised trajectories, (member, time * component)."""
    stacked = np.stack([states[n].transpose("member", "time").values for n in NAMES], axis=-1)
    return ((stacked - MEAN) / SCALE).reshape(len(stacked), -1)


def distance(one: xr.Dataset, other: xr.Dataset) -> float:
    """Wasserstein-1 distance between two sets of trajectories, with the Euclidean distance of normalised states."""
    a, b = vectors(one), vectors(other)
    return float(ot.emd2(ot.unif(len(a)), ot.unif(len(b)), ot.dist(a, b, "euclidean"), numItermax=10**7))


def compare(posterior: xr.Dataset, exact: list[xr.Dataset], seen: xr.Dataset) -> dict[str, float]:
    """How far a posterior is from the exact one.

    ``ratio``: W1 over its floor; ``log_prior`` and ``log_likelihood``: difference of the means; ``cover``: share of
    the exact draws inside the central intervals of the posterior; ``crps``: of the exact draws, over that of a second
    set of exact draws; ``rank_*``: histogram of the ranks of exact draws among the members, one where it is flat.
    """
    floor = distance(*exact)
    w1 = np.mean([distance(posterior, e) for e in exact])
    truth, members, again = vectors(exact[0]), vectors(posterior), vectors(exact[1])
    row = {"w1": w1, "ratio": w1 / floor}
    for key, density in (
        ("log_prior", lambda s: densities.log_prior(s, "lorenz63")),
        ("log_likelihood", lambda s: densities.log_likelihood(s, seen)),
    ):
        row[key] = float(density(posterior).mean() - np.mean([density(e).mean() for e in exact]))
    for share in (50, 90):
        low, high = np.percentile(members, [50 - share / 2, 50 + share / 2], axis=0)
        row[f"cover_{share}"] = float(((truth >= low) & (truth <= high)).mean())
    row["crps"] = crps(members, truth) / crps(again, truth)
    ranks = np.array([np.searchsorted(np.sort(m), t) / len(m) for m, t in zip(members.T, truth.T, strict=True)])
    counts = np.histogram(ranks, 10, (0, 1))[0] / ranks.size * 10
    return row | {f"rank_{i}": float(c) for i, c in enumerate(counts)}


def crps(members: np.ndarray, truth: np.ndarray) -> float:
    """Mean fair CRPS of draws of the truth, (draw, n), under an ensemble (member, n)."""
    count, total = len(members), 0.0
    for m, t in zip(np.sort(members.T, axis=1), truth.T, strict=True):
        # Mean distance to the members from their sums below and above each draw.
        place, sums = np.searchsorted(m, t), np.concatenate([[0.0], np.cumsum(m)])
        near = (t * (2 * place - count) - 2 * sums[place] + sums[-1]).mean() / count
        spread = ((2 * np.arange(1, count + 1) - count - 1) * m).sum() / (count * (count - 1))
        total += near - spread
    return total / members.shape[1]


def picture(table: pd.DataFrame, path: Path) -> None:
    """W1 over its floor against evaluations, and rank histograms of our cases."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for column, frequency in enumerate(FREQUENCIES):
        chosen = table[(table.frequency == frequency) & (table.diverged == 0)]
        for number, (case, rows) in enumerate(chosen.groupby("case", sort=False)):
            marker = "so^v<>DP*"[number % 9]
            axes[0, column].errorbar(
                rows.evaluations.mean(), rows.ratio.mean(), rows.ratio.sem(), fmt=marker, capsize=3, label=case
            )
            if case.startswith("sdaxr"):
                heights = rows[[f"rank_{i}" for i in range(10)]].mean()
                axes[1, column].plot((np.arange(10) + 0.5) / 10, heights, marker + "-", label=case)
        axes[0, column].axhline(1.0, color="0.5", linewidth=0.8)
        axes[1, column].axhline(1.0, color="0.5", linewidth=0.8)
        axes[0, column].set(xscale="log", yscale="log", title=f"{frequency} frequency", xlabel="evaluations a sample")
        axes[1, column].set(xlabel="rank of exact draws among the members", ylim=(0, None))
    axes[0, 0].set_ylabel("W1 to the exact posterior / floor")
    axes[1, 0].set_ylabel("frequency, 1 if calibrated")
    axes[0, 1].legend(fontsize="small")
    axes[1, 1].legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
