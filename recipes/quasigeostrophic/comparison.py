"""Which method recovers two-layer turbulence best: score-based data assimilation, SOAD and baselines.

    python recipes/quasigeostrophic/run.py generate --store qg.zarr
    python recipes/quasigeostrophic/comparison.py --store qg.zarr
    python recipes/quasigeostrophic/tables.py

One row of comparison.csv is a case (operator, mask, interval, background, noise), a test window and a method; all
methods of a case see the same observations, and use priors of the same network and training. Rows that are there are
not computed again. It takes a part of the cases of Li, Dong & Zhang (2024), with `--full` all of them.
"""

from __future__ import annotations

import functools
import logging
import os
import time
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
from sdaxr.prior.files import Prior
from sdaxr.schema import DivergenceError

HERE = Path(__file__).parent
LEAD = 8  # days before the window from which a background is a forecast
ERROR = 0.1
PLAIN, AUGMENTED = "quasigeostrophic", "quasigeostrophic-augmented"
SDA, SOAD = sdaxr.methods.SDA, sdaxr.methods.SOAD
# The sampler of the papers, without which their likelihoods do not stay stable, with a quarter of their steps.
PAPERS = sdaxr.samplers.Exponential(steps=64, corrections=1)
# A prior, and options of `sdaxr.assimilate`.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": (PLAIN, {}),
    "sda": (PLAIN, {"method": SDA(variance=sdaxr.methods.Scalar(0.03)), "sampler": PAPERS}),
    "soad": (AUGMENTED, {"method": "soad"}),
    "mmps": (PLAIN, {"method": "mmps"}),
    "soad, no corrector": (AUGMENTED, {"method": SOAD(corrector=False)}),
    "soad, bounded": (AUGMENTED, {"method": SOAD(variance=sdaxr.methods.Bounded()), "sampler": PAPERS}),
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


@click.command()
@click.option("--store", default="qg.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", "files", nargs=2, default=(PLAIN, AUGMENTED), help="Names or files: plain, augmented.")
@click.option("--full", is_flag=True, help="All cases.")
@click.option("--count", default=5, show_default=True, help="Test windows, each with a seed of its own.")
@click.option("--members", default=4, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes of one thread each; 1 on a GPU.")
@click.option("--only", type=click.Choice(list(METHODS)), multiple=True, help="Only these methods, and no baselines.")
@click.option("--output", type=Path, default=HERE / "comparison.csv", show_default=True)
def main(
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


if __name__ == "__main__":
    main()
