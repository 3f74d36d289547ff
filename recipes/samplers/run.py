"""How wrong the variance of each sampler is, where it is known: independent Gaussian numbers of many variances.

    python recipes/samplers/run.py

For x ~ N(0, c) the denoiser is c / (c + r^2) z. Each sampler draws 2^16 numbers for each variance c; the table holds
the variance of the samples over c. Half a minute on one core. Writes results.csv and results.png beside this file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch

import sdaxr

VARIANCES = torch.tensor([1e-3, 1e-2, 0.1, 1.0, 10.0])
SAMPLERS = {
    "exponential (the paper's steps)": sdaxr.samplers.Exponential(corrections=0),
    "ancestral": sdaxr.samplers.Ancestral(corrections=0),
    "ancestral, C = 1": sdaxr.samplers.Ancestral(corrections=1),
    "dpm++": sdaxr.samplers.DPMSolver(grid="karras", corrections=0),
    "sde-dpm++, eta 1": sdaxr.samplers.SDEDPMSolver(grid="karras", corrections=0),
    "sde-dpm++, eta 1.5": sdaxr.samplers.SDEDPMSolver(grid="karras", eta=1.5, corrections=0),
    "sde-dpm++, eta 1.5, log-snr": sdaxr.samplers.SDEDPMSolver(eta=1.5, corrections=0),
    "sde-dpm++, eta 1, log-snr, C = 3": sdaxr.samplers.SDEDPMSolver(corrections=3),
}
STEPS = (16, 32, 64, 128)
LEVELS = (0.01, 80.0)


@click.command()
@click.option("--output", type=Path, default=Path(__file__).parent)
def main(output: Path) -> None:
    """Draw, and write the table."""
    rows = []
    for name, sampler in SAMPLERS.items():
        for steps in STEPS:
            built = replace(sampler, steps=steps).build(LEVELS)
            generator = torch.Generator().manual_seed(0)
            samples = built(
                lambda z, r: VARIANCES / (VARIANCES + r**2) * z,
                lambda generator=generator: torch.randn(2**16, len(VARIANCES), generator=generator),
            )
            ratios = (samples.double().var(0) / VARIANCES).tolist()
            columns = {f"c = {c:g}": ratio for c, ratio in zip(VARIANCES.tolist(), ratios, strict=True)}
            rows.append({"sampler": name, "levels": steps, "evaluations": built.evaluations} | columns)
    table = pd.DataFrame(rows)
    columns = [c for c in table if c.startswith("c =")]
    table["worst"] = np.exp(np.log(table[columns]).abs().max(axis=1)) - 1
    table.to_csv(output / "results.csv", index=False, float_format="%.4f")
    print(table.round(3).to_string(index=False))
    picture(table, output / "results.png")


def picture(table: pd.DataFrame, path: Path) -> None:
    """The largest error of a variance against the evaluations."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in table.groupby("sampler", sort=False):
        axis.plot(rows.evaluations, rows.worst, "o-", label=name)
    axis.axhline(2 / 2**8, color="0.5", linestyle=":", label="error of the sampling itself")
    axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="largest relative error of a variance")
    axis.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
