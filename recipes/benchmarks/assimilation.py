"""Network evaluations per second, seconds per member and peak memory, by length and members.

python recipes/benchmarks/assimilation.py
python recipes/benchmarks/assimilation.py --workers 1 --workers 2

The shipped prior of Kolmogorov flow, 8 x 8 means of the velocity every fourth state, sd 0.1. Every case runs in a
process of its own, so that its peak memory is its own. The last two rows compare the default sampler with the
paper's setting on a short window, both measured in full. With ``--workers``, the rates of Dask clusters of as many
processes, of one thread each, in turn, with the rate of the first one in the same round as the unit.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr
from report import report

import sdaxr
from sdaxr import operators as op

LENGTHS = (17, 33, 65)
MEMBERS = (1, 4, 8)
SHORT = 9  # states, where the paper's many evaluations are measured in full
PAPER = {"method": {"name": "sda", "variance": 0.01}, "sampler": "exponential"}


@click.command()
@click.option("--prior", default="kolmogorov", help="Name or path.")
@click.option("--device", default="auto")
@click.option("--workers", multiple=True, type=int, help="Numbers of Dask workers, which are compared instead.")
@click.option("--members", default=16, show_default=True, help="Members, with --workers.")
@click.option("--rounds", default=3, show_default=True, help="Measurements of each number, with --workers.")
@click.option("--case", hidden=True, help="One case as JSON, measured in this process.")
@click.option("--truth", hidden=True)
def main(
    prior: str, device: str, workers: tuple[int, ...], members: int, rounds: int, case: str | None, truth: str | None
) -> None:
    """Time `sdaxr.assimilate`."""
    if workers:
        scaling(prior, device, workers, members, rounds)
        return
    if case is not None:
        print(json.dumps(measure(prior, device, truth, **json.loads(case))))
        return
    load = os.getloadavg()[0]
    cases: list[dict[str, Any]] = [{"length": length, "members": 1} for length in LENGTHS]
    cases += [{"length": LENGTHS[0], "members": members} for members in MEMBERS if members > 1]
    cases += [{"length": SHORT, "members": 1}, {"length": SHORT, "members": 1, "setting": PAPER}]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.zarr"
        sdaxr.generate("kolmogorov", path, trajectories=1, steps=max(LENGTHS), seed=1, split=(0, 0, 1), progress=False)
        for each in cases:
            command = [sys.executable, __file__, "--prior", prior, "--device", device, "--truth", str(path)]
            done = subprocess.run([*command, "--case", json.dumps(each)], capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            click.echo(rows[-1], err=True)
    report("assimilation", rows, load)
    ours, paper = rows[-2:]
    ratio = paper["seconds/member"] / ours["seconds/member"]
    print(f"the paper's setting takes {ratio:.1f} times as long as the default, for {paper['length']} states")


def measure(
    prior: str, device: str, truth: str | None, *, length: int, members: int, setting: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One row."""
    import torch

    from sdaxr.posterior.samplers.registry import resolve_sampler
    from sdaxr.prior.hardware import choose_device

    states = sdaxr.open_archive(truth).isel(trajectory=0, time=slice(length), drop=True).load()
    observations = sdaxr.observe(states, op.coarsen(8), every=4, error=0.1, seed=1)
    model = sdaxr.open_prior(prior)
    setting = setting or {}
    sampler = resolve_sampler(model, setting.get("sampler"))
    gpu = choose_device(device).type == "cuda"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    posterior = observations.sda.assimilate(model, members=members, seed=1, device=device, progress=False, **setting)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # An evaluation is the network on all states of one member, with its gradient.
    evaluations = sampler.build(model.network.levels).evaluations
    return {
        "sampler": f"{sampler.name}, {sampler.steps} levels, C={sampler.corrections}",
        "length": length,
        "members": members,
        "evaluations/member": evaluations,
        "evaluations/s": evaluations * members / seconds,
        "seconds/member": seconds / members,
        "memory before (GB)": 0.0 if gpu else before * 1024 / 1e9,
        "peak memory (GB)": (torch.cuda.max_memory_allocated() if gpu else peak * 1024) / 1e9,
        "rmse/sd of the first": relative_error(posterior.isel(member=0), states),
    }


def scaling(prior: str, device: str, workers: Sequence[int], members: int, rounds: int) -> None:
    """Rates of clusters of several numbers of workers, in turn: the load of a shared machine changes with time."""
    load, rows = os.getloadavg()[0], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        states = sdaxr.generate(
            "kolmogorov", Path(folder) / "t.zarr", trajectories=1, steps=LENGTHS[0], seed=1, split=(0, 0, 1),
            progress=False,
        )  # fmt: skip
        observations = sdaxr.observe(states.isel(trajectory=0).load(), op.coarsen(8), every=4, error=0.1, seed=1)
        options = {"prior": prior, "device": device, "seed": 1, "progress": False}
        for number in range(rounds):
            for count in workers:
                store = Path(folder) / f"{number}-{count}"
                rate = members / _seconds(observations, count, members, store, options)
                first = next((row["members/s"] for row in rows if row["round"] == number), rate)
                row = {"round": number, "workers": count, "members": members, "members/s": rate}
                rows.append(row | {"ratio": rate / first, "load average": os.getloadavg()[0]})
                click.echo(rows[-1], err=True)
    report("assimilation-workers", rows, load)
    for count in workers[1:]:
        ratio = np.median([row["ratio"] for row in rows if row["workers"] == count])
        print(f"{count} workers: {ratio:.2f} times the rate of {workers[0]} (median of {rounds} rounds)")


def _seconds(observations: xr.Dataset, workers: int, members: int, store: Path, options: dict[str, Any]) -> float:
    """Seconds of an archive, on workers that have imported everything."""
    from distributed import Client, LocalCluster

    how = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.ERROR}
    with LocalCluster(n_workers=workers, **how) as cluster, Client(cluster):
        sdaxr.assimilate(
            observations, **options, members=workers, batch=1, store=f"{store}-first.zarr", sampler={"steps": 2}
        )
        start = time.perf_counter()
        sdaxr.assimilate(observations, **options, members=members, batch=1, store=f"{store}.zarr")
        return time.perf_counter() - start


def relative_error(sample: xr.Dataset, truth: xr.Dataset) -> float:
    """Root mean square error of one sample, in units of the truth's standard deviation, over both components."""
    parts = [float(((sample[v] - truth[v]) ** 2).mean() / truth[v].var()) for v in truth.data_vars]
    return float(np.sqrt(np.mean(parts)))


if __name__ == "__main__":
    main()
