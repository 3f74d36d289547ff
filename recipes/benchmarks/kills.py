"""Kills at random moments: what opens afterwards, and whether the same job then ends as if nothing had happened.

python recipes/benchmarks/kills.py
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import click
import dask.array  # noqa: F401 (before the forks)
import netCDF4  # noqa: F401
import torch
import xarray as xr
from report import report

import sdaxr
from sdaxr.archives.stores import save
from sdaxr.commands import recipe, steps
from sdaxr.schema import ArchiveError

RECIPE = """
generate: {{system: lorenz63, store: l.zarr, trajectories: 6, steps: 30, spin_up: 2, seed: {seed}}}
observe: {{truth: l.zarr, trajectory: 0, operator: {{op: identity}}, error: 1, store: obs.zarr}}
verify: {{posterior: l.zarr, truth: l.zarr, trajectory: 0, store: scores.nc}}
"""
_context = multiprocessing.get_context("fork")


def generate(folder: Path, seed: int, overwrite: bool) -> None:
    """An archive in units of work."""
    options = {"trajectories": 24, "steps": 20, "spin_up": 20, "progress": False}
    sdaxr.generate("lorenz96", folder / "a.zarr", seed=seed, overwrite=overwrite, **options)


def observe(folder: Path, seed: int, overwrite: bool) -> None:
    """A Zarr file that is saved whole."""
    operator = {"op": "identity"}
    steps.observe(folder / "truth.nc", operator, folder / "o.zarr", error=1.0, seed=seed, overwrite=overwrite)


def cycle(folder: Path, seed: int, overwrite: bool) -> None:
    """Windows in units of work, then a Zarr file that is saved whole."""
    method, sampler = sdaxr.methods.SDA(variance=sdaxr.methods.Scalar(0.1)), {"steps": 2, "corrections": 0}
    options = {"window": 10, "members": 2, "method": method, "sampler": sampler, "device": "cpu"}
    with sdaxr.open_archive(folder / "observations.nc") as observations:
        sdaxr.cycle(
            observations, "lorenz63", store=folder / "c.zarr", seed=seed, overwrite=overwrite, progress=False, **options
        )


def run(folder: Path, seed: int, overwrite: bool) -> None:
    """A recipe of three steps."""
    (folder / "r.yaml").write_text(RECIPE.format(seed=seed))
    recipe.run(folder / "r.yaml", overwrite=overwrite, progress=False)


# Each job, and the files that it makes.
JOBS: dict[str, tuple[Callable[[Path, int, bool], None], tuple[str, ...]]] = {
    "generate": (generate, ("a.zarr",)),
    "observe": (observe, ("o.zarr",)),
    "cycle": (cycle, ("c.zarr",)),
    "run": (run, ("l.zarr", "obs.zarr", "scores.nc")),
}


@click.command()
@click.option("--kills", default=20, show_default=True, help="Of each job, with and without overwriting.")
@click.option("--seed", default=0, show_default=True, help="Of the moments of the kills.")
def main(kills: int, seed: int) -> None:
    """Kill every job at random moments, open what is there, and run the same job again."""
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    random.seed(seed)
    # What the jobs use is imported before the forks, so that kills hit the work and not the imports.
    for name in ("generate", "observe", "cycle", "verify", "open_archive"):
        getattr(sdaxr, name)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, overwrite, kills, Path(folder) / f"{name}-{overwrite}")
            for name in JOBS
            for overwrite in (False, True)
        ]
    report("kills", rows, load)


def measure(name: str, overwrite: bool, kills: int, folder: Path) -> dict[str, object]:
    """One row: how many kills left the old file, the new one, none; how many a torn one; how many jobs then ended."""
    job, products = JOBS[name]
    references = {seed: folder / f"seed-{seed}" for seed in (0, 1)}
    for seed, place in references.items():
        _inputs(place)
        start = time.perf_counter()
        _finish(job, place, seed, False)
        seconds = time.perf_counter() - start
    row = dict.fromkeys(("killed", "old", "new", "none", "torn", "ended", "identical", "left over"), 0)
    while row["killed"] < kills:
        place = folder / "kill"
        if overwrite:
            shutil.copytree(references[0], place)
        else:
            _inputs(place)
        process = _context.Process(target=job, args=(place, 1, overwrite))
        process.start()
        time.sleep(random.uniform(0, seconds))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            shutil.rmtree(place)
            continue
        row["killed"] += 1
        for product in products:
            row[_ask(_state, place / product, [references[s] / product for s in (0, 1)])] += 1
        row["ended"] += _ask(_ends, job, place, 1, overwrite)
        states = [_ask(_state, place / p, [references[s] / p for s in (0, 1)]) for p in products]
        row["identical"] += all(state == "new" for state in states)
        row["left over"] += sum(p.name.endswith((".partial", ".windows")) for p in place.iterdir())
        shutil.rmtree(place)
    return {"job": name, "overwrite": "yes" if overwrite else "no", "files": len(products), **row}


def _inputs(place: Path) -> None:
    place.mkdir(parents=True)
    _finish(_write_inputs, place)


def _write_inputs(place: Path) -> None:
    truth = sdaxr.generate("lorenz63", place / "t.zarr", trajectories=1, steps=30, progress=False).isel(trajectory=0)
    save(truth.drop_vars(["split", "status"]), place / "truth.nc")
    observations = sdaxr.observe(truth, sdaxr.operators.identity(), every=2, error=1.0, seed=0)
    save(observations.drop_vars(["split", "status"]), place / "observations.nc")
    shutil.rmtree(place / "t.zarr")


def _state(path: Path, references: list[Path]) -> str:
    """Which of the two files is there, as `sdaxr.open_archive` has it: old, new, none, or neither of them whole."""
    try:
        found = sdaxr.open_archive(path).load()
    except ArchiveError:
        return "none"
    for name, reference in zip(("new", "old"), reversed(references), strict=True):
        expected = xr.open_dataset(reference) if reference.suffix == ".nc" else xr.open_zarr(reference)
        if found.equals(expected.load()):
            return name
    return "torn"


def _ends(job: Callable[[Path, int, bool], None], place: Path, seed: int, overwrite: bool) -> bool:
    try:
        job(place, seed, overwrite)
    except Exception:
        traceback.print_exc()
        return False
    return True


def _finish(function: Callable[..., None], *args: object) -> None:
    process = _context.Process(target=function, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


def _ask(function: Callable[..., object], *args: object) -> object:
    """What ``function`` returns, in a process of its own: one that reads has threads and cannot be forked."""
    here, there = _context.Pipe()
    _finish(lambda: there.send(function(*args)))
    return here.recv()


if __name__ == "__main__":
    main()
