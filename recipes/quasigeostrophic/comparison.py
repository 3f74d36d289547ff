"""Which method recovers two-layer turbulence best: score-based data assimilation, SOAD and baselines.

    python recipes/quasigeostrophic/run.py generate --store qg.zarr
    python recipes/quasigeostrophic/comparison.py sample --store qg.zarr
    python recipes/quasigeostrophic/comparison.py report

One row of comparison.csv is a case (operator, mask, interval, background, noise), a test window and a method; all
methods of a case see the same observations, and use priors of the same network and training. Rows that are there are
not computed again. `sample` takes a part of the cases of Li, Dong & Zhang (2024), `sample --full` all of them.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from baselines import interpolation
from setting import NORMALISED, OPERATORS, POTENTIAL_VORTICITY, windows

import sdaxr
from sdaxr.prior import Prior
from sdaxr.schema import DivergenceError

HERE = Path(__file__).parent
LEAD = 8  # days before the window from which a background is a forecast
ERROR = 0.1
PLAIN, AUGMENTED = "quasigeostrophic", "quasigeostrophic-augmented"
# The sampler of the papers, without which their likelihoods do not stay stable, with a quarter of their steps.
PAPERS: dict[str, Any] = {"sampler": "exponential", "steps": 64, "corrections": 1}
# A prior, and options of `sdaxr.assimilate`.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": (PLAIN, {}),
    "sda": (PLAIN, PAPERS | {"gamma": 0.03}),
    "soad": (AUGMENTED, {"method": "soad"}),
    "mmps": (PLAIN, {"method": "mmps"}),
    "soad, no corrector": (AUGMENTED, {"method": "soad", "corrector": False}),
    "soad, bounded": (AUGMENTED, PAPERS | {"method": "soad", "gamma": "bounded"}),
}
BASELINES = ("climatology", "background", "interpolation")
MAIN = ("default", "sda", "soad", *BASELINES)
SCORES = ["rmse", "rmse_sample", "crps", "spread_skill", "inside_90", "evaluations", "seconds"]
NETWORKS = {"arctan": ("random 0.0625", 2), "sin": ("random 0.25", 4), "velocity": ("random 0.01", 1)}


@dataclass(frozen=True)
class Case:
    """What is observed; ``operator="all"`` stands for three networks at once."""

    operator: str
    mask: str
    every: int
    background: str
    noise: str = "gaussian"


KEYS = list(Case.__annotations__)
COLUMNS = [*KEYS, "window", "method", *SCORES]


def cases(full: bool) -> list[Case]:
    """The cases of the comparison, all of them or those of some hours."""
    if full:
        masks = [*(f"random {c}" for c in ("1", "0.25", "0.0625", "0.01")), *(f"stride {n}" for n in (2, 4, 10))]
        where, backgrounds = list(product(masks, (1, 2, 4, 8))), ("none", "known", "unknown")
    else:
        where, backgrounds = (
            [("random 0.25", 1), ("random 0.01", 1), ("random 0.25", 8), ("random 1", 1)],
            ("none", "known"),
        )
    found = [Case(o, *place, b) for place, o, b in product(where, OPERATORS, backgrounds)]
    found += [Case("all", "several", 1, background) for background in backgrounds]
    if not full:
        found += [Case(operator, "random 0.25", 1, "unknown") for operator in OPERATORS]
        found += [Case(operator, "stride 4", 1, "none") for operator in ("arctan", "velocity")]
    for operator in OPERATORS if full else ("arctan",):
        found += [Case(operator, "random 0.25", 1, "none", n) for n in ("laplace", "uniform", "lognormal")]
    return found


def methods_of(case: Case) -> tuple[str, ...]:
    """Those that a case of the shorter comparison is for; variants in one case of each operator."""
    first = (case.mask, case.every) == ("random 0.25", 1)
    if first and case.background == "none" and case.noise == "gaussian":
        return (*METHODS, *BASELINES)
    # A scalar variance fails on sines and velocities at this coverage already.
    scalar = case.noise == "gaussian" and (first or case.operator == "arctan")
    return tuple(m for m in MAIN if scalar or m != "sda")


@click.group()
def main() -> None:
    """Sample the cases and compare the methods."""


@main.command()
@click.option("--store", default="qg.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", "files", nargs=2, default=(PLAIN, AUGMENTED), help="Names or files: plain, augmented.")
@click.option("--full", is_flag=True, help="All cases.")
@click.option("--count", default=5, show_default=True, help="Test windows, each with a seed of its own.")
@click.option("--members", default=4, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes of one thread each; 1 on a GPU.")
@click.option("--only", type=click.Choice(list(METHODS)), multiple=True, help="Only these methods, and no baselines.")
@click.option("--output", type=Path, default=HERE / "comparison.csv", show_default=True)
def sample(
    store: str,
    files: tuple[str, str],
    full: bool,
    count: int,
    members: int,
    workers: int,
    only: tuple[str, ...],
    output: Path,
) -> None:
    """Draw the posteriors of all cases that are not in the table yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    done = set()
    if output.exists():
        done = {tuple(row) for row in pd.read_csv(output)[[*KEYS, "window", "method"]].to_numpy()}
    work = []
    for number, case in product(range(count), cases(full)):
        here = only or ((*METHODS, *BASELINES) if full else methods_of(case))
        rest = [m for m in here if (*asdict(case).values(), number, m) not in done]
        if rest:
            work.append((store, dict(zip((PLAIN, AUGMENTED), files, strict=True)), case, number, rest, members))
    with ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
        for rows in pool.map(_rows, work):
            table = pd.DataFrame(rows, columns=COLUMNS)
            table.to_csv(output, mode="a", header=not output.exists(), index=False, float_format="%.4f")
            logging.info("%s: %s", list(table.iloc[0, :6]), dict(zip(table.method, table.rmse.round(3), strict=True)))


def _one_thread() -> None:
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    os.nice(5)


def _rows(work: tuple[str, dict[str, str], Case, int, list[str], int]) -> list[dict[str, Any]]:
    """One row a method."""
    store, files, case, number, wanted, members = work
    span = windows(sdaxr.open_archive(store), number + 1, before=LEAD)[number].load()
    truth = span.isel(time=slice(LEAD, None))
    first = None if case.background == "none" else background(case.background, span, number, LEAD)
    networks = observations(case, truth, number)
    rows = []
    for method in wanted:
        start = time.perf_counter()
        found: dict[str, float] = {}
        try:
            estimate, evaluations = _estimate(method, networks, first, truth, files, members, number)
            if estimate is not None:
                seconds = (time.perf_counter() - start) / members
                found = merits(estimate, truth) | {"evaluations": evaluations, "seconds": seconds}
        except DivergenceError as error:
            logging.warning("%s %s", method, error)
        rows.append(asdict(case) | {"window": number, "method": method} | found)
    return rows


def _estimate(
    method: str,
    networks: dict[str, xr.Dataset],
    first: xr.Dataset | None,
    truth: xr.Dataset,
    files: dict[str, str],
    members: int,
    seed: int,
) -> tuple[xr.Dataset | None, float]:
    if method == "climatology":
        return xr.zeros_like(truth), 0
    if method == "background":
        return (None if first is None else xr.zeros_like(truth) + first.q.squeeze("time", drop=True)), 0
    if method == "interpolation":
        return interpolation(networks, truth), 0
    prior, options = METHODS[method]
    posterior = sdaxr.assimilate(
        networks,
        _opened(files[prior]),
        background=first,
        times=truth.time,
        members=members,
        seed=seed,
        progress=False,
        **options,
    )
    return posterior, posterior.attrs["evaluations_per_member"]


@functools.cache
def _opened(file: str) -> Prior:
    # What is measured of a prior is measured once for each process.
    return sdaxr.open_prior(file)


def background(kind: str, span: xr.Dataset, seed: int, lead: int = 0) -> xr.Dataset:
    """An estimate of the state after ``lead`` days, said to be as good as the observations.

    ``"known"``: it is, its errors are independent and of that size. ``"unknown"``: the first state with such errors,
    carried on by the model.
    """
    std = xr.DataArray(POTENTIAL_VORTICITY["q"], dims="layer", coords={"layer": span.layer})
    start = span.isel(time=[lead if kind == "known" else 0])
    noise = start.q.copy(data=np.random.default_rng([seed, 1]).standard_normal(start.q.shape))
    found = start.assign(q=(start.q + ERROR * std * noise).astype("float32").assign_attrs(start.q.attrs))
    if kind == "unknown":
        ahead = sdaxr.forecast(found.expand_dims("member"), "quasigeostrophic", steps=lead, progress=False)
        found = found.assign(q=(start.q.dims, ahead.q.isel(member=0, lead_time=[-1]).values, start.q.attrs))
        found = found.assign_coords(time=span.time[lead : lead + 1])
    return found.assign(q_error=(ERROR * std).assign_attrs(units=start.q.attrs["units"]))


def observations(case: Case, truth: xr.Dataset, seed: int) -> dict[str, xr.Dataset]:
    """The networks of a case, with errors of a tenth of the standard deviation of what is observed."""
    several = NETWORKS if case.operator == "all" else {case.operator: (case.mask, case.every)}
    how = {"error": ERROR, "noise": case.noise, "seed": seed}
    return {
        name: sdaxr.observe(truth, OPERATORS[name], every=every, where=_places(mask), **how)
        for name, (mask, every) in several.items()
    }


def _places(mask: str) -> dict[str, float] | None:
    """Random places are others at each time; those of a stride are the same."""
    kind, number = mask.split()
    if kind == "stride":
        return {"stride": int(number)}
    return None if float(number) == 1 else {"coverage": float(number)}


def merits(estimate: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Of normalised potential vorticity, over both layers, all times and places; see the page for what they are."""
    found, true = NORMALISED.apply(estimate[["q"]]), NORMALISED.apply(truth)
    scores = sdaxr.verify(found, true)

    def pooled(metric: str) -> float:
        return float(np.sqrt((scores[f"{metric}_q"] ** 2).mean()))

    count = found.sizes.get("member", 1)
    if count == 1:
        return {"rmse": pooled("rmse")}
    error, spread = found.q.mean("member") - true.q, found.q.std("member", ddof=1) * np.sqrt(1 + 1 / count)
    return {
        "rmse": pooled("rmse"),
        "rmse_sample": float(np.sqrt(((found.q - true.q) ** 2).mean())),
        "crps": float(scores.crps_q.mean()),
        "spread_skill": float(pooled("spread") * np.sqrt(1 + 1 / count) / pooled("rmse")),
        "inside_90": float((abs(error) < _student(count) * spread).mean()),
    }


def _student(count: int) -> float:
    """Half the width of a 90 % interval around the mean of so many members, in units of their corrected spread."""
    from scipy.stats import t

    return float(t.ppf(0.95, count - 1))


# RMSE of SOAD in the paper, read off its plots: with observations at each state and at every eighth.
PUBLISHED = {
    ("known", "random 1"): {"arctan": (0.084, 0.112), "sin": (0.064, 0.110), "velocity": (0.103, 0.128)},
    ("known", "random 0.25"): {"arctan": (0.110, 0.141), "sin": (0.107, 0.174), "velocity": (0.121, 0.147)},
    ("known", "random 0.01"): {"arctan": (0.208, 0.222), "sin": (0.326, 0.332), "velocity": (0.168, 0.185)},
    ("none", "random 1"): {"arctan": (0.138, 0.229), "sin": (0.110, 0.655), "velocity": (0.118, 0.181)},
    ("none", "random 0.25"): {"arctan": (0.228, 0.385), "sin": (0.528, 1.137), "velocity": (0.165, 0.253)},
    ("none", "random 0.01"): {"arctan": (0.891, 1.045), "sin": (1.44, 1.55), "velocity": (0.493, 0.685)},
}


@main.command()
@click.option("--table", type=Path, default=HERE / "comparison.csv", show_default=True)
def report(table: Path) -> None:
    """Write the tables as comparison.md and the heat maps as comparison.png, beside the results."""
    found = pd.read_csv(table)
    table.with_suffix(".md").write_text("\n\n".join(_pages(found)) + "\n")
    _heat_maps(found, table.with_suffix(".png"))


def _pages(found: pd.DataFrame) -> Iterator[str]:
    count = found.window.nunique()
    yield (
        f"RMSE of the ensemble mean, mean and standard error over test windows (at most {count}); the best method "
        "of a case in bold, with those within one standard error of the difference. Made by `comparison.py report`."
    )
    titles = {"all": "three networks at once"}
    methods = [*METHODS, "interpolation", "background", "climatology"]
    for operator, group in found[found.noise == "gaussian"].groupby("operator", sort=False):
        yield f"### {titles.get(operator, operator)}\n\n" + _table(group, methods, operator)
    others = found[found.noise != "gaussian"]
    if len(others):
        yield "### errors of other families\n\n" + _table(others, methods, None)
    yield "### how honest the ensembles are\n\n" + _honesty(found)
    yield "### all cases of a method, and what a sample costs\n\n" + _summary(found)


def _table(group: pd.DataFrame, methods: list[str], operator: str | None) -> str:
    methods = [m for m in methods if m in set(group.method)]
    lines = [["mask", "every", "background", "noise", *methods, "paper's SOAD"]]
    for key, rows in group.groupby(KEYS, sort=False):
        case = dict(zip(KEYS, key, strict=True))
        wide = rows.pivot(index="window", columns="method", values="rmse")
        best = wide[[m for m in METHODS if m in wide]].mean().idxmin()
        cells = []
        for method in methods:
            if method not in wide or wide[method].isna().all():
                cells.append("diverged" if method in wide and method in METHODS else "")
                continue
            text = f"{wide[method].mean():.3f}" + (f" ± {wide[method].sem():.3f}" if wide[method].count() > 1 else "")
            margin = wide[method] - wide[best]
            winner = method in METHODS and margin.mean() <= (margin.sem() if margin.count() > 1 else 0.0)
            cells.append(f"**{text}**" if winner else text)
        published = PUBLISHED.get((case["background"], case["mask"]), {}).get(str(operator))
        known = published is not None and case["every"] in (1, 8)
        cells.append(f"{published[case['every'] == 8]:.3f}" if known and published is not None else "")
        lines.append([case["mask"], str(case["every"]), case["background"], case["noise"], *cells])
    rule = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _honesty(found: pd.DataFrame) -> str:
    """Spread over error, and how often a 90 % interval has the truth, of the methods that sample every case."""
    methods, scores = ("default", "soad"), ("crps", "spread_skill", "inside_90")
    lines = [[*KEYS, *(f"{m}: {s}" for m in methods for s in scores)]]
    lines.append(["---"] * len(lines[0]))
    for key, rows in found.groupby(KEYS, sort=False):
        mean = rows.groupby("method")[list(scores)].mean()
        lines.append(
            [*map(str, key), *(f"{mean.loc[m, s]:.3f}" if m in mean.index else "" for m in methods for s in scores)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary(found: pd.DataFrame) -> str:
    mean = found[found.method.isin(METHODS)].groupby("method", sort=False)[SCORES].mean()
    lines = [["method", *SCORES], ["---"] * (1 + len(SCORES))]
    lines += [[str(name), *(f"{row[s]:.3g}" for s in SCORES)] for name, row in mean.iterrows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _density(mask: str) -> tuple[str, float]:
    """Random places before strides, each from the densest on."""
    kind, number = mask.split()
    return kind, float(number) if kind == "stride" else -float(number)


def _heat_maps(found: pd.DataFrame, path: Path) -> None:
    """RMSE by mask and interval: an operator and background a row, a method a column."""
    import matplotlib.pyplot as plt

    shown = found[(found.noise == "gaussian") & (found.operator != "all")]
    methods = [m for m in MAIN if m in METHODS] + ["interpolation"]
    rows = [(o, b) for o in OPERATORS for b in ("none", "known", "unknown")]
    rows = [r for r in rows if ((shown.operator == r[0]) & (shown.background == r[1])).any()]
    masks, every = sorted(set(shown["mask"]), key=_density), sorted(set(shown.every))
    size = (1.5 + 2.0 * len(methods), 1.2 + (0.6 + 0.25 * len(masks)) * len(rows))
    figure, axes = plt.subplots(len(rows), len(methods), figsize=size, layout="constrained", squeeze=False)
    for i, (operator, first) in enumerate(rows):
        for j, method in enumerate(methods):
            axis = axes[i, j]
            part = shown[(shown.operator == operator) & (shown.background == first) & (shown.method == method)]
            grid = part.pivot_table("rmse", "mask", "every").reindex(index=masks, columns=every)
            norm = plt.matplotlib.colors.LogNorm(0.05, 1.4)
            image = axis.imshow(grid.to_numpy(), cmap="viridis_r", norm=norm, aspect="auto")
            for (k, n), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    colour = "w" if value > 0.3 else "k"
                    axis.text(n, k, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
            axis.set_xticks(range(len(every)), every if i == len(rows) - 1 else [""] * len(every))
            axis.set_yticks(range(len(masks)), masks if j == 0 else [""] * len(masks))
            axis.set_title(method if i == 0 else "", fontsize=10)
        axes[i, 0].set_ylabel(f"{operator}\nbackground: {first}", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("observed every ... days", fontsize=8)
    figure.colorbar(image, ax=axes, label="RMSE of the mean, in standard deviations", shrink=0.6)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
