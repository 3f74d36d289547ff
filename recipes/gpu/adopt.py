"""Bring a prior that was trained on a GPU into the package, if it is better than the shipped one.

    python recipes/gpu/adopt.py --results DIR

Each prior in the folder is compared with the shipped prior of its name on test trajectories that neither has seen, on
the CPU: JAX-CFD or PyQG-JAX simulates them, from seeds of their own. Where its CRPS is lower by more than the standard
error of the difference, it takes the place of the shipped prior, and its file records what was measured.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from priors import neighbour

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
SHIPPED = Path(sdaxr.__file__).parent / "prior" / "shipped"
# No training has this seed; `sdaxr demo` has 2023.
SEED = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Test:
    """How priors of one system are compared.

    Attributes
    ----------
    system, options
        The system and its options.
    states
        States of a trajectory.
    observe
        Observations of a truth, from a seed.
    merits
        Scores of a posterior, from posterior, truth and observations; ``crps`` decides.
    """

    system: str
    options: dict[str, Any]
    states: int
    observe: Callable[[xr.Dataset, int], xr.Dataset]
    merits: Callable[[xr.Dataset, xr.Dataset, xr.Dataset], dict[str, float]]


def tests() -> dict[str, Test]:
    """The scenarios of the phases `flow` and `geostrophic`."""
    flow, setting = neighbour("kolmogorov", "merits"), neighbour("quasigeostrophic", "setting")
    comparison = neighbour("quasigeostrophic", "comparison")
    velocity = setting.OPERATORS["velocity"]
    return {
        "kolmogorov": Test(
            "kolmogorov", {}, 32,
            lambda truth, seed: sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=seed),
            lambda post, truth, obs: flow.scores(post, truth) | {"residual": flow.residual(post, obs)},
        ),
        "quasigeostrophic": Test(
            "quasigeostrophic", {}, 9,
            lambda truth, seed: sdaxr.observe(truth, velocity, error=0.1, where={"coverage": 0.25}, seed=seed),
            lambda post, truth, _: comparison.merits(post, truth),
        ),
    }  # fmt: skip


@click.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--count", default=6, show_default=True, help="Test trajectories.")
@click.option("--members", default=8, show_default=True)
@click.option("--scratch", type=Path, default=Path("gpu-results"), show_default=True, help="Where the truths are kept.")
@click.option("--output", type=Path, default=SHIPPED, help="Folder of the shipped priors.")
@click.option("--dry-run", is_flag=True, help="Compare, and write the table only.")
def main(results: Path, count: int, members: int, scratch: Path, output: Path, dry_run: bool) -> None:
    """Compare the priors in the folder of results with the shipped ones, and ship what is better."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = tests()
    found = sorted(results.glob("*.safetensors"))
    known = [path for path in found if path.stem.split("-")[0] in chosen]
    if not known:
        raise click.ClickException(f"found {[p.name for p in found]} in {results}, expected priors of {list(chosen)}")
    rows: list[dict[str, Any]] = []
    for system in dict.fromkeys(path.stem.split("-")[0] for path in known):
        candidates = [path for path in known if path.stem.split("-")[0] == system]
        rows += compared(chosen[system], candidates, count, members, scratch)
        table = pd.DataFrame(rows)
        table.to_csv(HERE / "adopted.csv", index=False, float_format="%.4f")
        best = better(table[table.system == system])
        if best is None:
            _log.info("%s: the shipped prior stays", system)
        elif not dry_run:
            ship(next(p for p in candidates if p.stem == best), system, table[table.prior == best], output)
    print(pd.DataFrame(rows).groupby(["system", "prior"]).mean(numeric_only=True).round(4).to_string())


def compared(test: Test, candidates: list[Path], count: int, members: int, scratch: Path) -> list[dict[str, Any]]:
    """Scores of the shipped prior and of the candidates on the same observations, one row for each and truth."""
    truths = sdaxr.generate(
        test.system, scratch / f"{test.system}-truths.zarr", trajectories=count, steps=test.states, seed=SEED,
        split=(0, 0, 1), **test.options,
    )  # fmt: skip
    rows = []
    for number in range(count):
        truth = truths.isel(trajectory=number, drop=True).load()
        observations = test.observe(truth, number)
        for name, prior in {"shipped": test.system, **{path.stem: str(path) for path in candidates}}.items():
            posterior = sdaxr.assimilate(
                observations, prior, times=truth.time, members=members, seed=number, device="cpu", progress=False
            )
            rows.append({"system": test.system, "prior": name, "truth": number, "members": members})
            rows[-1] |= test.merits(posterior, truth, observations)
            _log.info("%s", rows[-1])
    return rows


def better(table: pd.DataFrame) -> str | None:
    """The prior with the lowest mean CRPS, if it is below the shipped one's by more than the standard error."""
    crps = table.pivot(index="truth", columns="prior", values="crps")
    gain = crps.rsub(crps["shipped"], axis=0).drop(columns="shipped")
    best = str(gain.mean().idxmax())
    error = float(gain[best].std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else np.inf
    _log.info("%s: CRPS lower by %.4f, standard error %.4f", best, gain[best].mean(), error)
    return best if gain[best].mean() > error else None


def ship(path: Path, name: str, scores: pd.DataFrame, output: Path) -> Path:
    """Write the prior under the name of the shipped one, in half precision, with what was measured of it."""
    prior = sdaxr.open_prior(path)
    measured = scores.drop(columns=["system", "prior", "truth"]).mean(numeric_only=True).round(4).to_dict()
    about = {"scenario": f"recipes/gpu/adopt.py, {name}", "test_trajectories": len(scores)}
    metadata = prior.metadata | {"name": name, "measurements": json.loads(json.dumps(about | measured))}
    return replace(prior, metadata=metadata).save(output / f"{name}.safetensors", dtype=torch.float16)


if __name__ == "__main__":
    main()
