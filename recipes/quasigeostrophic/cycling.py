"""Window after window: does an ensemble that is carried on drift away from the truth, or lose its spread?

python recipes/quasigeostrophic/run.py generate --store qg.zarr
python recipes/quasigeostrophic/cycling.py --store qg.zarr

Velocities at 1 of 16 places every second day. The ensemble is carried from window to window by the prior, by the model,
or not at all; one row of cycling.csv is a window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import pandas as pd
from comparison import ERROR, merits
from setting import OPERATORS, windows

import sdaxr

HERE = Path(__file__).parent
CARRIED: dict[str, Any] = {"by the prior": {}, "by the model": {"carry": "quasigeostrophic"}}


@click.command()
@click.option("--store", default="qg.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="quasigeostrophic", help="Name or file.")
@click.option("--count", default=10, show_default=True, help="Windows.")
@click.option("--states", default=9, show_default=True, help="States a window.")
@click.option("--members", default=6, show_default=True)
@click.option("--coverage", default=0.0625, show_default=True)
@click.option("--inflation", default=1.3, show_default=True, help="Factor on the deviations of a forecast.")
@click.option("--output", type=Path, default=HERE / "cycling.csv", show_default=True)
def main(
    store: str, prior: str, count: int, states: int, members: int, coverage: float, inflation: float, output: Path
) -> None:
    """Cycle, and write the scores of each window and a picture of them."""
    truth = windows(sdaxr.open_archive(store), 1, states=count * states)[0].load()
    seen = sdaxr.observe(truth, OPERATORS["velocity"], every=2, error=ERROR, seed=0, where={"coverage": coverage})
    parts = [truth.isel(time=slice(first, first + states)) for first in range(0, count * states, states)]
    rows = []
    for name, how in CARRIED.items():
        how = {"window": states, "members": members, "seed": 0, "inflation": inflation, "progress": False} | how
        analysis = sdaxr.cycle(seen, prior, **how)
        rows += [
            {"carried": name, "window": number} | merits(analysis.sel(time=part.time), part)
            for number, part in enumerate(parts)
        ]
    for number, part in enumerate(parts):
        alone = sdaxr.assimilate(
            seen,
            prior,
            times=part.time,
            outside="drop",
            members=members,
            seed=number,
            progress=False,
        )
        rows.append({"carried": "not at all", "window": number} | merits(alone, part))
    table = pd.DataFrame(rows)
    table.to_csv(output, index=False, float_format="%.4f")
    draw(table, output.with_suffix(".png"))
    for name, group in table.groupby("carried", sort=False):
        early, late = (half[["rmse", "crps", "spread_skill"]].mean().round(3).to_dict() for half in halves(group))
        print(f"{name}: {early} in the first half after the first window, {late} in the second")


def halves(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The windows after the first one, in two halves."""
    middle = (len(table) + 1) // 2
    return table[1:middle], table[middle:]


def draw(table: pd.DataFrame, path: Path) -> None:
    """RMSE and spread-skill by window."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, score, title in zip(
        axes, ("rmse", "spread_skill"), ("RMSE of the mean, in standard deviations", "spread-skill ratio"), strict=True
    ):
        for name, group in table.groupby("carried", sort=False):
            axis.plot(group.window, group[score], marker="o", markersize=3, label=name)
        axis.set(xlabel="window of nine days", title=title, ylim=(0, None))
    axes[0].legend(title="ensemble carried", frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
