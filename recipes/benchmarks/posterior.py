"""Seconds and evaluations for a given distance to the exact posterior: the default against the paper's setting.

python recipes/lorenz63/run.py generate --store lorenz63.zarr
python recipes/lorenz63/run.py train --store lorenz63.zarr --network k8 --prior k8.safetensors
python recipes/benchmarks/posterior.py --paper-prior k8.safetensors

The noisy Lorenz chain, 65 states, its first component observed every 8th state. The distance is W1 over that between
two sets of exact draws. The paper's setting has its own network and parameterisation (k ~ 8), and fewer steps, too, so
that both methods are seen at equal costs.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr
from report import report

import sdaxr
from sdaxr import operators as op

# Options of `sdaxr.assimilate` by the numbers of levels and of corrections.
OURS: dict[tuple[int, int], dict[str, Any]] = {
    (steps, count): {"sampler": {"steps": steps, "corrections": count}} for steps, count in ((28, 3), (40, 5), (64, 7))
}
PAPERS: dict[tuple[int, int], dict[str, Any]] = {
    (steps, count): {
        "method": sdaxr.methods.SDA(variance=sdaxr.methods.Scalar(0.03)),
        "sampler": sdaxr.samplers.Exponential(tau=0.25, steps=steps, corrections=count),
    }
    for steps, count in ((64, 1), (256, 1), (256, 4))
}


@click.command()
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--paper-prior", required=True, help="File of `run.py train --network k8`.")
@click.option("--members", default=256)
@click.option("--device", default="auto")
def main(prior: str, paper_prior: str, members: int, device: str) -> None:
    """Time posteriors and measure how far they are from the exact one."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.zarr"
        sdaxr.generate("lorenz63", path, trajectories=1, steps=65, seed=1, split=(0, 0, 1), progress=False)
        truth = sdaxr.open_archive(path).isel(trajectory=0).load()
    seen = sdaxr.observe(truth, op.select("a"), every=8, error=0.4, seed=1)
    exact = [
        sdaxr.assimilate(seen, system="lorenz63", method="ffbs", members=members, seed=s, progress=False)
        for s in (0, 1)
    ]
    floor = distance(*exact)
    rows: list[dict[str, Any]] = []
    cases = [("sdaxr", prior, *case) for case in OURS.items()]
    cases += [("paper", paper_prior, *case) for case in PAPERS.items()]
    for name, model, (steps, corrections), how in cases:
        start = time.perf_counter()
        posterior = sdaxr.assimilate(seen, model, members=members, seed=0, device=device, progress=False, **how)
        seconds = time.perf_counter() - start
        rows.append(
            {
                "setting": f"{name}, {steps} levels, C={corrections}",
                "evaluations": posterior.attrs["evaluations_per_member"],
                "seconds": seconds,
                "W1 / floor": np.mean([distance(posterior, e) for e in exact]) / floor,
            }
        )
        click.echo(rows[-1], err=True)
    report("posterior", rows, load)
    for paper in rows[len(OURS) :]:
        better = [row for row in rows[: len(OURS)] if row["W1 / floor"] <= paper["W1 / floor"]]
        if better:
            ours = min(better, key=lambda row: row["seconds"])
            times, evaluations = (paper[key] / ours[key] for key in ("seconds", "evaluations"))
            print(f"{paper['setting']}: {times:.1f} times the seconds and {evaluations:.1f} times the evaluations")
            print(f"    of {ours['setting']}, which is at least as near to the exact posterior")
        else:
            print(f"{paper['setting']}: nearer to the exact posterior than each of ours")


def distance(one: xr.Dataset, other: xr.Dataset) -> float:
    """Wasserstein-1 distance between two sets of trajectories, with their Euclidean distance."""
    import ot  # POT, which nothing else needs

    a, b = (np.stack([x[n].transpose("member", "time").values for n in "abc"], -1).reshape(len(x.member), -1)
            for x in (one, other))  # fmt: skip
    return float(ot.emd2(ot.unif(len(a)), ot.unif(len(b)), ot.dist(a, b, "euclidean"), numItermax=10**7))


if __name__ == "__main__":
    main()
