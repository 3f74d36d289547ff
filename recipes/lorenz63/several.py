"""Posteriors with several modes: the default sampler and `twisted` against the exact posterior.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    pip install pot
    python recipes/lorenz63/several.py --store lorenz63.zarr

The third component is observed every 3rd to 8th state with errors of 0.1 to 0.3 of its normalisation; it is the same
after a change of the signs of the other two. Eight test trajectories, each with another interval and error. The exact
posterior is drawn by forward filtering and backward simulation. Modes are clusters of exact draws; a sample belongs to
the mode of the nearest exact draw. Rows that are in several.csv already are not computed again.
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

HERE = Path(__file__).parent
NAMES = ("a", "b", "c")
SCALE = 8.6
# Interval and error of each trajectory.
OBSERVED = [(6, 0.1), (3, 0.1), (4, 0.2), (5, 0.3), (6, 0.2), (8, 0.1), (3, 0.3), (4, 0.1)]
CASES: dict[str, Any] = {"twisted": "twisted", "default": None}
# Root mean square distance of a and b between draws of different modes, at least.
APART = 3.0


@click.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--members", default=512, show_default=True)
@click.option("--length", default=41, show_default=True, help="Number of states.")
@click.option("--truths", default=len(OBSERVED), show_default=True)
@click.option("--case", "chosen", multiple=True, type=click.Choice(list(CASES)), help="Only these.")
@click.option("--output", type=Path, default=HERE)
def main(store: str, prior: str, members: int, length: int, truths: int, chosen: tuple[str, ...], output: Path) -> None:
    """Draw the posteriors, and write one row for each to several.csv."""
    trajectories, path = sdaxr.open_archive(store), output / "several.csv"
    tests = np.flatnonzero(trajectories.split.values == "test")[:truths]
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for index, (every, error) in zip(map(int, tests), OBSERVED, strict=False):
        for case in chosen or CASES:
            row = {"trajectory": index, "every": every, "error": error, "members": members, "case": case}
            if any(all(r[k] == v for k, v in row.items()) for r in rows):
                continue
            truth = trajectories.isel(trajectory=index, time=slice(length)).load()
            seen = sdaxr.observe(truth, op.select("c"), every=every, error=error * SCALE, seed=index)
            exact = [
                seen.sda.assimilate(system="lorenz63", method="ffbs", members=members, seed=s, progress=False)
                for s in (0, 1)
            ]
            start = time.perf_counter()
            drawn = seen.sda.assimilate(prior, sampler=CASES[case], members=members, seed=1, progress=False)
            row |= {"seconds": time.perf_counter() - start, "evaluations": drawn.attrs["evaluations_per_member"]}
            row |= {"effective": drawn.attrs.get("effective_members", np.nan)}
            rows.append(row | compare(drawn, exact))
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows).groupby("case")[["evaluations", "effective", "ratio", "largest_difference"]]
    print(table.agg(["mean", "max"]).round(2).T.to_string())


def compare(drawn: xr.Dataset, exact: list[xr.Dataset]) -> dict[str, float]:
    """W1 over its floor, and the largest difference of the shares of a mode from those of the exact draws."""
    sample, first, second = (vectors(states) for states in (drawn, *exact))
    floor = distance(first, second)
    w1 = (distance(sample, first) + distance(sample, second)) / 2
    mode = modes(first)
    found = [shares(states, first, mode) for states in (sample, first, second)]
    truth = (found[1] + found[2]) / 2
    return {
        "floor": floor,
        "ratio": w1 / floor,
        "modes": float((truth > 0.02).sum()),
        "largest_difference": float(np.abs(found[0] - truth).max()),
    }


def vectors(states: xr.Dataset) -> np.ndarray:
    """Trajectories in the units of the system, (member, time * component)."""
    stacked = np.stack([states[n].transpose("member", "time").values for n in NAMES], axis=-1)
    return stacked.reshape(len(stacked), -1)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein-1 distance between two sets of trajectories, with their Euclidean distance."""
    import ot  # POT, which nothing else needs

    costs = ot.dist(one, other, "euclidean")
    return float(ot.emd2(ot.unif(len(one)), ot.unif(len(other)), costs, numItermax=10**7))


def modes(draws: np.ndarray) -> np.ndarray:
    """Number of the cluster of each draw, from 0; clusters of average linkage in a and b."""
    from scipy.cluster.hierarchy import fcluster, linkage

    hidden = draws.reshape(len(draws), -1, len(NAMES))[:, :, :2].reshape(len(draws), -1)
    tree = linkage(hidden / np.sqrt(hidden.shape[1]), "average")
    return np.asarray(fcluster(tree, APART, "distance")) - 1


def shares(draws: np.ndarray, exact: np.ndarray, mode: np.ndarray) -> np.ndarray:
    """Share of the draws in each mode, by the nearest exact draw."""
    square = (draws**2).sum(1)[:, None] - 2 * draws @ exact.T + (exact**2).sum(1)
    return np.bincount(mode[square.argmin(1)], minlength=mode.max() + 1) / len(draws)


if __name__ == "__main__":
    main()
