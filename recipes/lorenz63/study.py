"""Posteriors of the noisy Lorenz chain against the true ones: Figure 2 of Rozet & Louppe (2023), and calibration.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/run.py train    --store lorenz63.zarr --network k4 --prior k4.safetensors
    python recipes/lorenz63/study.py sample --store lorenz63.zarr --scenario low --paper-prior k4.safetensors
    python recipes/lorenz63/study.py report

Scenarios: low and high frequency as in the paper, and nonlinear observations. The truth are draws of the exact
posterior by forward filtering and backward simulation (2^16 particles). Rows that are in study-<scenario>.csv already
are not computed again, so a killed run goes on; two scenarios may run side by side, a core each.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.verification import densities

HERE = Path(__file__).parent
LENGTH = 65
NAMES = ("a", "b", "c")
# The first component, in the paper's two ways (errors of 0.05 and 0.25 of its normalisation, which is 8), and through
# functions of it: one that is nearly linear where the attractor is, and one that many values share.
SCENARIOS: dict[str, tuple[Any, dict[str, float]]] = {
    "low": (op.select("a"), {"every": 8, "error": 0.05 * 8}),
    "high": (op.select("a"), {"every": 1, "error": 0.25 * 8}),
    "mild": (op.select("a") >> op.arctan(1 / 8), {"every": 4, "error": 0.05}),
    "strong": (op.select("a") >> op.sin(1 / 4), {"every": 4, "error": 0.1}),
}
# Options of `sdaxr.assimilate`; those of the sampler are on top of what the prior's file records.
# "assimilate" is what happens without options; members of the others are never drawn together.
CASES: dict[str, dict[str, Any]] = {
    "assimilate": {},
    "sdaxr, 64": {"sampler": {"steps": 28, "corrections": 3, "mixing": False}},
    "sdaxr, 128": {"sampler": {"steps": 40, "corrections": 5, "mixing": False}},
    "sdaxr, 256": {"sampler": {"steps": 64, "corrections": 7, "mixing": False}},
    "no corrections": {"sampler": {"steps": 128, "corrections": 0, "mixing": False}},
    "bounded": {
        "method": sdaxr.methods.SDA(variance=sdaxr.methods.Bounded(0.03)),
        "sampler": {"steps": 40, "corrections": 5, "mixing": False},
    },
    "mmps": {"method": sdaxr.methods.MMPS(iterations=2), "sampler": {"steps": 32, "corrections": 4}},
    "jacobian_free": {"method": "jacobian_free", "sampler": {"steps": 40, "corrections": 5}},
    "dps": {"method": "dps", "sampler": {"steps": 40, "corrections": 5}},
}
# W1 for 1, 2, 4, 8, 16 corrections, read off the paper's Figure 2 (to 0.4); its floor is 5.05 and 6.53.
PUBLISHED = {
    ("low", "k4"): [13.8, 10.4, 8.6, 7.8],
    ("low", "k8"): [9.0, 7.1, 6.0, 5.6, 5.6],
    ("high", "k4"): [12.5, 10.8, 9.7],
    ("high", "k8"): [9.0, 8.2, 7.5, 7.5, 7.1],
}


@click.group()
def main() -> None:
    """Compare samplers and guidances with the exact posterior."""


@main.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), required=True)
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--paper-prior", "papers", type=Path, multiple=True, help="File of `run.py train --network k4`.")
@click.option("--corrections", type=int, multiple=True, default=(1, 4), help="Of the paper's setting; it has 1 to 16.")
@click.option("--observations", default=4, help="The paper has 64.")
@click.option("--members", default=256, help="The paper has 1024.")
@click.option("--case", "chosen", multiple=True, help="Only these.")
@click.option("--output", type=Path, default=HERE)
def sample(
    store: str,
    scenario: str,
    prior: str,
    papers: tuple[Path, ...],
    corrections: tuple[int, ...],
    observations: int,
    members: int,
    chosen: tuple[str, ...],
    output: Path,
) -> None:
    """Draw posteriors and write one row for each to study-<scenario>.csv."""
    trajectories = sdaxr.open_archive(store)
    tests = np.flatnonzero(trajectories.split.values == "test")[:observations]
    cases: dict[str, tuple[str | Path, dict[str, Any]]] = {name: (prior, how) for name, how in CASES.items()}
    for paper in papers:
        for count in corrections:
            cases[f"{sdaxr.open_prior(paper).name}, C = {count}"] = paper, of_the_paper(count)
    path = output / f"study-{scenario}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["trajectory"], row["case"], row["members"]) for row in rows}
    operator, how_seen = SCENARIOS[scenario]
    for index in map(int, tests):
        waiting = [c for c in cases if (index, c, members) not in done and (not chosen or c in chosen)]
        if not waiting:
            continue
        truth = trajectories.isel(trajectory=index, time=slice(LENGTH)).load()
        seen = sdaxr.observe(truth, operator, seed=index, **how_seen)
        exact = [
            seen.sda.assimilate(system="lorenz63", method="ffbs", members=members, seed=s, progress=False)
            for s in (0, 1)
        ]
        floor = distance(exact[0], exact[1])
        for case in waiting:
            which, how = cases[case]
            row = {"scenario": scenario, "trajectory": index, "case": case, "members": members, "floor": floor}
            start = time.perf_counter()
            try:
                posterior = seen.sda.assimilate(which, members=members, seed=index, progress=False, **how)
            except sdaxr.schema.DivergenceError as error:
                print(f"{scenario} {index} {case}: {error}", flush=True)
                rows.append(row | {"diverged": 1})
            else:
                row |= {"diverged": 0, "seconds": time.perf_counter() - start}
                row |= {"evaluations": posterior.attrs["evaluations_per_member"]}
                row |= {"effective": posterior.attrs.get("effective_members", np.nan)}
                rows.append(row | compare(posterior, exact, seen))
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)


def of_the_paper(corrections: int) -> dict[str, Any]:
    """The paper's sampling, for its networks and parameterisation (`run.py train --network k4`, or another)."""
    variance, sampler = sdaxr.methods.Scalar(0.03), sdaxr.samplers.Exponential(tau=0.25, corrections=corrections)
    return {"method": sdaxr.methods.SDA(variance=variance), "sampler": sampler}


@main.command()
@click.option("--output", type=Path, default=HERE)
def report(output: Path) -> None:
    """Means over the observations (study.md), study.png and calibration.png."""
    table = pd.concat([pd.read_csv(path) for path in sorted(output.glob("study-*.csv"))])
    found = table.groupby(["scenario", "members", "case"], sort=False)
    columns = ["evaluations", "seconds", "w1", "ratio", "log_prior", "log_likelihood", "crps", "cover_50", "cover_90"]
    means = found[columns].mean().join(found["ratio"].sem().rename("error")).join(found.size().rename("observations"))
    means["diverged"] = found["diverged"].sum()
    heads = "observed, case, evaluations, seconds, W1, W1 / floor, log-prior, log-likelihood, CRPS, in 50 %, in 90 %, n"
    lines = [f"| {heads.replace(', ', ' | ')} |", "|" + "---|" * len(heads.split(", "))]
    for (scenario, members, case), row in means.iterrows():
        gone = f", {row.diverged:.0f} diverged" if row.diverged else ""
        size = "" if members == 256 else f", {members} members"
        error = f" ± {row.error:.2f}" if row.observations > 1 else ""
        seconds = "" if np.isnan(row.seconds) else f"{row.seconds:.0f}"
        numbers = f"{row.evaluations:.0f} | {seconds} | {row.w1:.2f} | {row.ratio:.2f}{error} "
        numbers += f"| {row.log_prior:+.1f} | {row.log_likelihood:+.1f} | {row.crps:.3f} "
        numbers += f"| {row.cover_50:.1%} | {row.cover_90:.1%} | {row.observations:.0f}{gone}"
        lines.append(f"| {scenario} | {case}{size} | {numbers} |")
    (output / "study.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    figure_2(table, output / "study.png")
    calibration(table, output / "calibration.png")


def vectors(states: xr.Dataset) -> np.ndarray:
    """Trajectories in the units of the system, (member, time * component)."""
    stacked = np.stack([states[n].transpose("member", "time").values for n in NAMES], axis=-1)
    return stacked.reshape(len(stacked), -1)


def distance(one: xr.Dataset, other: xr.Dataset) -> float:
    """Wasserstein-1 distance between two sets of trajectories, with their Euclidean distance."""
    import ot  # POT, which nothing else needs

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


def figure_2(table: pd.DataFrame, path: Path) -> None:
    """W1, log-prior and log-likelihood against evaluations: ours, the paper's setting, and what the paper shows."""
    import matplotlib.pyplot as plt

    rows = {"w1": "W1 to the exact posterior", "log_prior": "log-prior - exact", "log_likelihood": "log-lik. - exact"}
    figure, axes = plt.subplots(len(rows), 2, figsize=(10, 10), sharex=True, layout="constrained")
    for column, scenario in enumerate(("low", "high")):
        chosen = table[(table.scenario == scenario) & (table.diverged == 0) & (table.case != "dps")]
        # The number of members decides the floor of W1.
        chosen = chosen[chosen.members == chosen.members.min()]
        chosen = chosen.assign(family=chosen.case.str.split(",").str[0])
        for number, (family, cases) in enumerate(chosen.groupby("family", sort=False)):
            found = cases.groupby("case", sort=False)
            for axis, key in zip(axes[:, column], rows, strict=True):
                style = "so^v<>DP*"[number % 9] + "-"
                x, y, error = found.evaluations.mean(), found[key].mean(), found[key].sem()
                axis.errorbar(x, y, error, fmt=style, capsize=3, label=family)
        for number, name in enumerate(("k4", "k8")):
            curve = PUBLISHED[scenario, name]
            evaluations = 256 * (1 + 2 ** np.arange(len(curve)))
            axes[0, column].plot(evaluations, curve, ":", color=f"{number / 2}", label=f"{name}, paper's Figure 2")
        axes[0, column].axhline(chosen.floor.mean(), color="0.5", linewidth=0.8)
        for axis in axes[1:, column]:
            axis.axhline(0.0, color="0.5", linewidth=0.8)
        axes[1, column].set_yscale("symlog")
        axes[0, column].set(xscale="log", yscale="log", title=f"{scenario} frequency")
        axes[-1, column].set_xlabel("evaluations a sample")
    for axis, label in zip(axes[:, 0], rows.values(), strict=True):
        axis.set_ylabel(label)
    axes[0, 1].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def calibration(table: pd.DataFrame, path: Path) -> None:
    """Rank histograms of exact draws among the members, by scenario."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex=True, sharey=True, layout="constrained")
    for axis, scenario in zip(axes.flat, SCENARIOS, strict=True):
        chosen = table[(table.scenario == scenario) & (table.diverged == 0)]
        for case, rows in chosen[chosen.case.str.contains("assimilate|sdaxr|k8, C = 1$|mmps")].groupby(
            "case", sort=False
        ):
            heights = rows[[f"rank_{i}" for i in range(10)]].mean()
            axis.plot((np.arange(10) + 0.5) / 10, heights, "o-", label=case)
        axis.axhline(1.0, color="0.5", linewidth=0.8)
        axis.set(title=scenario, ylim=(0, 2))
        axis.legend(fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("rank of exact draws among the members")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency, 1 if calibrated")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
