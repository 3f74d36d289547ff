"""How far a denoiser of Lorenz 1996 is from the exact one, by noise level, and how many states it has to see.

    python recipes/lorenz96/denoiser.py                                   # 20 minutes of one core
    python recipes/lorenz96/denoiser.py --prior small.safetensors --name small

E[x | z] of a noised window z = x + r eps is what an ensemble Kalman smoother of the model gives that takes z for
observations; with many members its error is the smallest possible one. Of ever shorter windows it tells what a network
can know that reaches so far in time. Writes denoiser.csv, a row for each level and estimate; those of a prior that is
measured again are replaced. Of a prior it has the error that its Jacobian says, too (Tweedie's second-order formula).
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr
from windows import Scenario

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.enks import EnKS
from sdaxr.filters.etkf import ETKF
from sdaxr.systems.lorenz96 import Lorenz96

HERE = Path(__file__).parent
# In standard deviations of a site; 0.275 is an error of 1.
LEVELS = (0.01, 0.03, 0.1, 0.275, 1.0, 3.0)
DEVIATION = 3.64
STATES, SHORTER = 97, (9, 17, 33, 65)
MIDDLE = slice(3 * STATES // 8, STATES - 3 * STATES // 8)
# Random signs that estimate the trace of a Jacobian.
SIGNS = 8
MEMBERS = 200
SMOOTHER = EnKS(filter=ETKF(inflation=1.01, rotation=True))


@click.command()
@click.option("--prior", default="lorenz96", show_default=True, help="Name or file.")
@click.option("--name", help="Name of its rows. Default: that of the prior.")
@click.option("--exact/--no-exact", default=True, show_default=True, help="Measure the smallest possible errors, too.")
@click.option("--truths", default=8, show_default=True)
@click.option("--output", type=Path, default=HERE / "denoiser.csv", show_default=True)
def main(prior: str, name: str | None, exact: bool, truths: int, output: Path) -> None:
    """Measure, and print errors in units of the model."""
    torch.set_num_threads(1)
    opened, rows = sdaxr.open_prior(prior), []
    label = name or opened.name
    for r in LEVELS:
        squares: dict[str, list[np.ndarray]] = {}
        said: list[float] = []
        task = Scenario(op.identity(), r * DEVIATION, states=STATES)
        for number in range(truths):
            truth = task.truth(number)
            z = task.observe(truth, number)
            states, variance = denoised(opened, z, r)
            found = {label: states}
            said.append(variance)
            if exact:
                found |= {f"exact, {width} states": smoothed(z, width) for width in SHORTER}
                found["exact"] = smoothed(z, STATES)
            for key, states in found.items():
                middle = (STATES - len(states)) // 2
                error = states - truth.x.values[middle : middle + len(states)]
                squares.setdefault(key, []).append((error**2).mean(1))
        for key, found_squares in squares.items():
            mean = np.mean(found_squares, 0)
            whole = len(mean) == STATES
            quarter = mean[MIDDLE] if whole else mean[len(mean) // 2]
            row = {"r": r, "estimate": key, "middle": np.sqrt(np.mean(quarter)), "all": np.sqrt(mean.mean())}
            rows.append(row | ({"said": np.mean(said) ** 0.5} if key == label else {}))
        print(pd.DataFrame(rows[-len(squares) :]).round(4).to_string(header=r == LEVELS[0]), flush=True)
    new = pd.DataFrame(rows)
    if output.exists():
        old = pd.read_csv(output)
        new = pd.concat([old[~old.estimate.isin(new.estimate)], new])
    new.to_csv(output, index=False, float_format="%.4g")


def smoothed(z: xr.Dataset, width: int) -> np.ndarray:
    """Mean of the smoother that knows the ``width`` states in the middle, (width, site)."""
    first = (z.sizes["time"] - width) // 2
    known = z.isel(time=slice(first, first + width))
    found = sdaxr.assimilate(
        known, system=Lorenz96(), method=SMOOTHER, times=known.time, members=MEMBERS, seed=0, progress=False
    )
    return found.x.mean("member").transpose("time", "site").values


def denoised(prior: sdaxr.Prior, z: xr.Dataset, r: float) -> tuple[np.ndarray, float]:
    """The prior's E[x | z], (time, site), and the mean variance in the middle that its Jacobian says."""
    mean, std = float(prior.layout.mean.ravel()[0]), float(prior.layout.std.ravel()[0])
    normalised = torch.as_tensor((z.x.transpose("time", "site").values - mean) / std, dtype=torch.float32)
    noised, level = normalised[None, :, None].requires_grad_(), r * DEVIATION / std
    found, random = prior.denoiser(z.time, precision="float32")(noised, level), torch.Generator().manual_seed(0)
    traces = []
    for _ in range(SIGNS):
        signs = torch.zeros_like(found)
        signs[:, MIDDLE] = 2.0 * torch.randint(0, 2, found[:, MIDDLE].shape, generator=random) - 1
        (product,) = torch.autograd.grad(found, noised, signs, retain_graph=True)
        traces.append(float((product * signs).sum() / signs.abs().sum()))
    return found[0, :, 0].detach().numpy() * std + mean, np.mean(traces) * (level * std) ** 2


if __name__ == "__main__":
    main()
