"""A prior that is cycled: each window has a forecast by the model as background, and knows all the past.

    python recipes/lorenz96/forecasts.py --scenario sakov2008 --windows 6       # ten minutes of one core
    python recipes/lorenz96/forecasts.py --scenario sakov2008 --method enks     # a smoother with the same model

Observations and scores are those of windows.py, of one long series. With a lag, each state also knows what is observed
so many states after its window; smoothers have this lag, too, and know all the past. forecasts.csv has a row for each
window; the first one has no past.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from rows import save
from run import HALF, batch_means, score
from windows import MOMENTS, SCENARIOS

import sdaxr
from sdaxr.filters.enks import EnKS
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.ienks import IEnKS
from sdaxr.filters.letkf import LETKF
from sdaxr.systems.lorenz96 import Lorenz96

HERE = Path(__file__).parent
# States of a window, and states after it whose observations it knows. A window holds whole cycles of observations.
LENGTHS = {"sakov2008": (32, 24), "bocquet2010": (32, 24), "spantini2019": (96, 0)}
# A background that knows some directions much better than others needs corrections down to small noise levels.
SAMPLER = {"steps": 64, "corrections": 6, "above": 0.1, "below": 3.0}
METHODS = {"sda": "sda", "mmps": MOMENTS}
# Smoothers with the model, and their numbers of members.
SMOOTHERS = {
    "enks": (EnKS(filter=ETKF(inflation=1.01, rotation=True), lag=24), 800),
    "enks of letkf": (EnKS(filter=LETKF(inflation=1.02, localisation=HALF, rotation=True), lag=24), 100),
    "ienks": (IEnKS(lag=8, inflation=1.02, rotation=True), 60),
}


@click.command()
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(list(LENGTHS)), default=["sakov2008"])
@click.option("--method", type=click.Choice([*METHODS, *SMOOTHERS]), default="sda", show_default=True)
@click.option("--prior", default="lorenz96", show_default=True)
@click.option("--windows", default=6, show_default=True)
@click.option("--members", type=int, help="Default: 8, or those of the smoother.")
@click.option("--seed", default=0, show_default=True, help="Of truth, observations and samples.")
@click.option("--output", type=Path, default=HERE / "forecasts.csv", show_default=True)
def main(
    scenarios: tuple[str, ...], method: str, prior: str, windows: int, members: int | None, seed: int, output: Path
) -> None:
    """Cycle, and print means over all windows but the first."""
    torch.set_num_threads(1)
    for scenario in scenarios:
        width, lag = LENGTHS[scenario]
        task = replace(SCENARIOS[scenario], states=windows * width)
        truth = task.truth(500 + seed)
        observations = task.observe(truth, 500 + seed)
        begun = time.process_time()
        smoother, count = SMOOTHERS.get(method, (None, 8))
        how = {"members": members or count, "seed": seed, "times": truth.time, "progress": False}
        if smoother is not None:
            posterior = sdaxr.assimilate(observations, system=Lorenz96(), method=smoother, **how)
        else:
            posterior = sdaxr.cycle(
                observations, prior, method=METHODS[method], window=width, lag=lag, carry=Lorenz96(), sampler=SAMPLER,
                **how,
            )  # fmt: skip
        seconds = (time.process_time() - begun) / windows
        at = slice(None, None, task.every)
        found = score(posterior.x.transpose("time", "member", "site").values[at].astype(float), truth.x.values[at])
        per_window = {key.removesuffix("_filter"): values.reshape(windows, -1) for key, values in found.items()}
        for number in range(windows):
            scores = {key: float(values[number].mean()) for key, values in per_window.items()}
            key = {"scenario": scenario, "method": method, "seed": seed, "members": members or count, "window": number}
            save(key | scores | {"cycles": per_window["rmse"].shape[1], "seconds": seconds}, list(key), output)
        for key, values in per_window.items():
            mean, error = batch_means([np.ravel(values[1:])])
            print(f"{scenario}, {method}: {key} {mean:.3f} ± {error:.3f}, {seconds:.0f} s a window", flush=True)


if __name__ == "__main__":
    main()
