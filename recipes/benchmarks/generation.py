"""Trajectories per second by number of workers.

python recipes/benchmarks/generation.py
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path

import click
from distributed import Client, LocalCluster
from report import report

import sdaxr

# Half of the shipped data's resolution and a quarter of its spin-up for the flow, so that a row takes half a minute.
CASES = {
    "lorenz96": {"trajectories": 512, "steps": 65, "options": {}},
    "kolmogorov": {"trajectories": 24, "steps": 16, "options": {"resolution": 128, "coarsen": 2, "spin_up": 16}},
}


@click.command()
@click.option("--workers", multiple=True, type=int, help="Numbers of Dask workers; 0 is the same process.")
def main(workers: tuple[int, ...]) -> None:
    """Time `sdaxr.generate`, compilation excluded."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    rows = []
    for number in workers or (0, *sorted({1, 2, cores // 2, cores} - {0})):
        for system, case in CASES.items():
            seconds = measure(system, number, **case)
            rate = case["trajectories"] / seconds
            sizes = sdaxr.open_system(system, **case["options"]).template().sizes
            first = next((r["trajectories/s"] for r in rows if r["system"] == system), rate)
            rows.append(
                {
                    "system": system,
                    "grid": "x".join(map(str, sizes.values())),
                    "states": case["steps"],
                    "workers": number or "none",
                    "trajectories": case["trajectories"],
                    "seconds": seconds,
                    "trajectories/s": rate,
                    "speed-up": rate / first,
                }
            )
    report("generation", sorted(rows, key=lambda r: r["system"]), load)


def measure(system: str, workers: int, *, trajectories: int, steps: int, options: dict) -> float:
    """Seconds of one archive, on workers that have compiled the system already."""
    model = sdaxr.open_system(system, **options)
    with tempfile.TemporaryDirectory() as folder:
        if workers == 0:
            return _timed(model, folder, trajectories, steps)
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
            ) as cluster,
            Client(cluster) as client,
        ):
            client.run(model.trajectory, 1, 0)
            return _timed(model, folder, trajectories, steps)


def _timed(model: sdaxr.systems.System, folder: str, trajectories: int, steps: int) -> float:
    # Anything that is loaded or compiled once is so after this.
    sdaxr.generate(model, Path(folder) / "first.zarr", trajectories=1, steps=1, progress=False)
    start = time.perf_counter()
    sdaxr.generate(model, Path(folder) / "archive.zarr", trajectories=trajectories, steps=steps, progress=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
