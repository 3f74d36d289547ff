"""Seconds of a posterior sample of quasi-geostrophic flow: the default against the setting of Li, Dong & Zhang (2024).

python recipes/quasigeostrophic/run.py generate --store qg.zarr
python recipes/benchmarks/quasigeostrophic.py --store qg.zarr

Theirs is an augmented prior, 256 steps with the forward-diffusion corrector and five Langevin corrections each, and
single precision; our priors of the same size serve both. Their variance may diverge with a prior that knows the large
scales: "paper's steps" is theirs in all but that.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
from report import report

import sdaxr
from sdaxr.prior.hardware import choose_device
from sdaxr.schema import DivergenceError

sys.path.insert(0, str(Path(__file__).parents[1] / "quasigeostrophic"))
from comparison import AUGMENTED, PLAIN, Case, background, merits, observations
from setting import windows

PAPER: dict[str, Any] = {"sampler": sdaxr.samplers.Exponential(corrections=5), "precision": "float32"}
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "default": (0, {}),
    "soad": (1, {"method": "soad"}),
    "paper's setting, soad": (1, PAPER | {"method": sdaxr.methods.SOAD(variance=sdaxr.methods.Bounded())}),
    "paper's steps, soad": (1, PAPER | {"method": "soad"}),
    "paper's setting, sda": (0, PAPER | {"method": sdaxr.methods.SDA(variance=sdaxr.methods.Scalar(0.01))}),
}
CASES = [Case("velocity", "random 0.25", 1, "none"), Case("arctan", "random 0.25", 1, "known")]


@click.command()
@click.option("--store", default="qg.zarr")
@click.option("--prior", "files", nargs=2, default=(PLAIN, AUGMENTED), help="Names or files: plain, augmented.")
@click.option("--members", default=1, show_default=True)
def main(store: str, files: tuple[str, str], members: int) -> None:
    """Time samples of each setting on the first test window."""
    load = os.getloadavg()[0]
    truth = windows(sdaxr.open_archive(store), 1)[0].load()
    priors = [sdaxr.open_prior(file) for file in files]
    for prior in priors:
        prior.held_out(choose_device("auto"))  # what is measured of a prior is measured once
    rows = []
    for case in CASES:
        first = None if case.background == "none" else background(case.background, truth, 0)
        networks = observations(case, truth, 0)
        for name, (which, how) in SETTINGS.items():
            start = time.perf_counter()
            row = {"observed": f"{case.operator}, {case.mask}, background {case.background}", "setting": name}
            how = {"background": first, "times": truth.time, "members": members, "progress": False} | how
            try:
                posterior = sdaxr.assimilate(networks, priors[which], **how)
            except DivergenceError as error:
                rows.append(row)
                click.echo(f"{row}: {error}", err=True)
                continue
            seconds = (time.perf_counter() - start) / members
            row |= {"evaluations": posterior.attrs["evaluations_per_member"], "seconds": seconds}
            rows.append(row | {k: v for k, v in merits(posterior, truth).items() if k in ("rmse", "rmse_sample")})
            rows[-1]["times"] = seconds / next(r for r in rows if r["observed"] == row["observed"])["seconds"]
            click.echo(rows[-1], err=True)
    report("quasigeostrophic", rows, load)


if __name__ == "__main__":
    main()
