"""What a forecast ensemble of the model adds to a prior as background, and what its correlations add to its variances.

A window of nine states is assimilated with sixteen members, the model forecasts them by one step, and the next window
has these forecasts as background: not at all, with a variance for each band of scales, and with the hybrid covariance
that `assimilate` chooses by likelihood (`sdaxr.posterior.hybrid`). Observed are 8 x 8 means of the velocity at every
fourth state, with errors of 0.1; in the second window those of the whole domain, or of a quarter of it.

    python recipes/kolmogorov/backgrounds.py --truths 2      # eight minutes a truth and core; no data
    python recipes/kolmogorov/backgrounds.py --truths 1 --observed quarter

backgrounds.csv has a row for each truth, observed part and background. A row that is there is not computed again.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from merits import VELOCITY, scores

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior import modulation
from sdaxr.systems.kolmogorov import Kolmogorov

HERE = Path(__file__).parent
WINDOW, EVERY = 9, 4
OBSERVED = {"whole": op.coarsen(8), "quarter": op.coarsen(8) >> op.region(x=(0, np.pi), y=(0, np.pi))}
# Shares of the ensemble's covariance among which likelihood chooses.
BACKGROUNDS = {"none": None, "variances": (0.0,), "hybrid": modulation.SHARES}


@click.command()
@click.option("--truths", default=2, show_default=True)
@click.option("--observed", type=click.Choice(list(OBSERVED)), default="whole", show_default=True)
@click.option("--members", default=16, show_default=True, help="Of both windows.")
@click.option("--prior", default="kolmogorov", show_default=True)
@click.option("--output", type=Path, default=HERE / "backgrounds.csv", show_default=True)
def main(truths: int, observed: str, members: int, prior: str, output: Path) -> None:
    """Assimilate two windows of each truth, and print means over truths with their standard errors."""
    torch.set_num_threads(1)
    rows = pd.read_csv(output).to_dict("records") if output.exists() else []
    done = {(row["truth"], row["observed"], row["background"]) for row in rows}
    for seed in range(truths):
        missing = [name for name in BACKGROUNDS if (seed, observed, name) not in done]
        if not missing:
            continue
        truth = trajectory(seed)
        first, second = truth.time[:WINDOW], truth.time[WINDOW:]
        seen, later = (
            sdaxr.observe(truth, OBSERVED[part], every=EVERY, error=0.1, seed=seed).sel(time=slice(*at.values[[0, -1]]))
            for part, at in (("whole", first), (observed, second))
        )
        before = sdaxr.assimilate(seen, prior, times=first, members=members, seed=seed, progress=False)
        ahead = forecast(before, second[:1])
        about = {f"background_{k}": v for k, v in scores(ahead, truth.sel(time=ahead.time)).items()}
        for name in missing:
            begun = time.process_time()
            with mock.patch.object(modulation, "SHARES", BACKGROUNDS[name] or modulation.SHARES):
                posterior = sdaxr.assimilate(
                    later, prior, times=second, members=members, seed=100 + seed, progress=False,
                    background=None if BACKGROUNDS[name] is None else ahead,
                )  # fmt: skip
            seconds = time.process_time() - begun
            start = scores(posterior.isel(time=[0]), truth.sel(time=second[:1]))
            row = {"truth": seed, "observed": observed, "background": name, "members": members, "seconds": seconds}
            row |= {f"first_{k}": v for k, v in start.items()} | scores(posterior, truth.sel(time=second))
            rows.append(row | about)
            pd.DataFrame(rows).to_csv(output, index=False, float_format="%.4f")
    table = pd.DataFrame(rows).drop(columns=["truth", "members"])
    print(table.groupby(["observed", "background"], sort=False).agg(["mean", "sem"]).T.round(3).to_string())


def trajectory(seed: int) -> xr.Dataset:
    """States of two windows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.zarr"
        sdaxr.generate(Kolmogorov(), path, trajectories=1, steps=2 * WINDOW, seed=500 + seed, progress=False)
        return sdaxr.open_archive(path).isel(trajectory=0, drop=True).load()


def forecast(posterior: xr.Dataset, time_after: xr.DataArray) -> xr.Dataset:
    """The members, one step of the model later."""
    ahead = sdaxr.forecast(posterior, Kolmogorov(), steps=1, seed=0, progress=False)
    ahead = ahead[list(VELOCITY)].isel(lead_time=0, drop=True).drop_vars(["init_time", "valid_time"], errors="ignore")
    return ahead.expand_dims(time=time_after).transpose("member", "time", ...)


if __name__ == "__main__":
    main()
