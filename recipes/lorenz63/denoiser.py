"""How far a prior's denoiser is from the exact one, by noise level.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/denoiser.py --store lorenz63.zarr --prior lorenz63 --prior another.safetensors

E[x | z] of a noised trajectory z = x + r eps is the mean of the posterior given z as observations, and so known from
forward filtering and backward simulation. Its distance to what the network says is given as a share of the posterior's
variance, and in the directions in which the posterior is widest, in standard deviations. Writes denoiser.csv.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
LENGTH = 65
NAMES = ["a", "b", "c"]
LEVELS = (0.1, 0.2, 0.3, 0.5, 1.0)
WIDEST = 10  # directions
DRAWS = 1024


@click.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", "priors", multiple=True, default=("lorenz63",), help="Name or file; repeat to compare.")
@click.option("--count", default=6, help="Number of test trajectories.")
@click.option("--output", type=Path, default=HERE)
def main(store: str, priors: tuple[str, ...], count: int, output: Path) -> None:
    """Compare denoisers with the exact one."""
    trajectories = sdaxr.open_archive(store)
    tests = np.flatnonzero(trajectories.split.values == "test")[:count]
    rows = []
    for index in map(int, tests):
        truth = trajectories.isel(trajectory=index, time=slice(LENGTH)).load()
        for r in LEVELS:
            for prior in priors:
                model = sdaxr.open_prior(prior)
                sd = dict(zip(NAMES, model.layout.std.ravel(), strict=True))
                noised = noise(truth, r, sd, index)
                if prior == priors[0]:
                    exact = vectors(draw(noised), model)
                rows.append({"prior": model.name, "trajectory": index, "r": r} | compare(noised, exact, model, r))
        print(pd.DataFrame(rows).groupby(["prior", "r"], sort=False).mean(numeric_only=True).round(3).to_string())
    pd.DataFrame(rows).to_csv(output / "denoiser.csv", index=False, float_format="%.4f")


def noise(truth: xr.Dataset, r: float, sd: dict[str, float], seed: int) -> dict[str, xr.Dataset]:
    """Every component at every time with an error of r standard deviations, as observations."""
    return {
        name: sdaxr.observe(truth, op.select(name), error=r * sd[name], seed=1000 * seed + place)
        for place, name in enumerate(NAMES)
    }


def draw(noised: dict[str, xr.Dataset]) -> xr.Dataset:
    """Exact draws of the trajectory given the noised one."""
    return sdaxr.assimilate(noised, system="lorenz63", method="ffbs", members=DRAWS, seed=0, progress=False)


def vectors(states: xr.Dataset, model: sdaxr.Prior) -> np.ndarray:
    """Normalised states, (..., time, component)."""
    stacked = np.stack([states[n].transpose(..., "time").values for n in NAMES], axis=-1)
    return (stacked - model.layout.mean.ravel()) / model.layout.std.ravel()


def compare(noised: dict[str, xr.Dataset], exact: np.ndarray, model: sdaxr.Prior, r: float) -> dict[str, float]:
    """Squared distance of the means over the posterior's variance, and their distance where that is large."""
    z = vectors(xr.merge([noised[n][[n]] for n in NAMES], compat="override"), model)
    with torch.no_grad():
        found = model.denoiser(noised["a"].time)(torch.as_tensor(z)[None].float(), r)[0].numpy()
    mean = exact.mean(0)
    centred = (exact - mean).reshape(DRAWS, -1)
    variances, directions = np.linalg.eigh(centred.T @ centred / (DRAWS - 1))
    # The exact mean is itself one of draws.
    square = (directions.T @ (found - mean).ravel()) ** 2 - variances / DRAWS
    wide = np.sqrt(max(0.0, (square[-WIDEST:] / variances[-WIDEST:]).mean()))
    return {"excess": square.sum() / variances.sum(), "widest": wide, "variance": variances.mean() / r**2}


if __name__ == "__main__":
    main()
