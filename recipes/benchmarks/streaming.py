"""Training steps per second with data that are streamed from an archive ten times larger than the memory for them.

python recipes/benchmarks/streaming.py

The default networks train on archives of noise with the sizes of the systems: what a step costs does not depend on
values. Data in memory and streamed data take turns in one process, so that both see the same machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
import xarray as xr
import zarr
from report import report

import sdaxr
from sdaxr.prior.assembly import assemble
from sdaxr.prior.hardware import choose_device
from sdaxr.prior.run import TrainingRun
from sdaxr.prior.settings import Settings
from sdaxr.prior.sizes import Sizes
from sdaxr.prior.windows import Windows
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout

# Variables, sizes of the grid, and states of a trajectory.
CASES = {
    "lorenz63": (("x", "y", "z"), (), 2**15),
    "lorenz96": (("a",), (40,), 2**12),
    "kolmogorov": (("u", "v"), (64, 64), 64),
}
# Archive over memory, and steps between two readings of the clock: on a GPU the host runs ahead.
LARGER, STEPS = 10, 5


@click.command()
@click.option("--megabytes", default=400.0, help="Size of each archive.")
@click.option("--seconds", default=15.0, help="Length of a turn.")
@click.option("--turns", default=5, help="Turns of each kind.")
@click.option("--batch", type=int, help="Windows of a step. Default: that of the training.")
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Default: all.")
@click.option("--device", default="auto")
def main(megabytes: float, seconds: float, turns: int, batch: int | None, cases: tuple[str, ...], device: str) -> None:
    """Train on data in memory and on streamed data in turns."""
    load, rows = os.getloadavg()[0], []
    for case in cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.zarr"
            archive(path, *CASES[case], megabytes=megabytes)
            rows.append({"system": case} | measure(path, megabytes * 1e6, seconds, turns, batch, device))
    report("streaming", rows, load)


def archive(path: Path, variables: tuple[str, ...], shape: tuple[int, ...], states: int, *, megabytes: float) -> None:
    """Noise in chunks of one trajectory, as `sdaxr.generate` writes them."""
    count = max(2, round(megabytes * 1e6 / (4 * len(variables) * states * np.prod(shape, dtype=int))))
    group, random = zarr.open_group(path, mode="w"), np.random.default_rng(0)
    space = ("y", "x")[-len(shape) :] if shape else ()
    for name in variables:
        array = group.create_array(
            name, shape=(count, states, *shape), chunks=(1, states, *shape), dtype="float32",
            dimension_names=("trajectory", "time", *space), attributes={"units": "1"},
        )  # fmt: skip
        for number in range(count):
            array[number] = random.standard_normal((states, *shape), np.float32)
    axes = {"time": (states, {})} | {d: (n, {"period": float(n)}) for d, n in zip(space, shape, strict=True)}
    for name, (size, attrs) in axes.items():
        values = group.create_array(name, shape=size, dtype="float64", dimension_names=(name,), attributes=attrs)
        values[:] = np.arange(size)


def measure(path: Path, size: float, seconds: float, turns: int, batch: int | None, device: str) -> dict:
    """One row: both rates, and their ratio in neighbouring turns."""
    target = choose_device(device)
    data = sdaxr.open_archive(path)
    layout = infer_layout(data)
    budgets = {"in memory": 2 * size, "streamed": size / LARGER}
    runs = {name: run(data, layout, memory, batch, target) for name, memory in budgets.items()}
    assert [each.windows.streams for each in runs.values()] == [False, True]
    for each in runs.values():
        rate(each, seconds / 3)  # the first buffers and plans
    found: dict[str, list[float]] = {name: [] for name in runs}
    first = runs["streamed"].step
    for turn in range(turns):
        for name in sorted(runs, reverse=bool(turn % 2)):
            found[name].append(rate(runs[name], seconds))
    streamed = runs["streamed"]
    ratios = [b / a for a, b in zip(found["in memory"], found["streamed"], strict=True)]
    renewed = float((streamed.step - first) * streamed.windows._rate / turns)
    return {
        "state": "x".join(map(str, (streamed.windows.layout.channels, *streamed.windows.layout.shape))),
        "window": streamed.settings.window,
        "batch": streamed.settings.batch,
        "archive (MB)": size / 1e6,
        "memory (MB)": size / LARGER / 1e6,
        "blocks read a turn": round(renewed, 1),
        "in memory, steps/s": median(found["in memory"]),
        "streamed, steps/s": median(found["streamed"]),
        "ratio": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "device": str(target),
    }


def run(data: xr.Dataset, layout: StateLayout, memory: float, batch: int | None, device: torch.device) -> TrainingRun:
    """A training that has not begun; its modes are measured roughly, which changes no time."""
    sizes = Sizes(layout.shape, data.sizes["time"] * data.sizes["trajectory"], data.sizes["time"])
    settings = Settings.choose(
        sizes=sizes, device=device, window=None, network="auto", parameterisation="auto", statistics=None,
        optimisation={"batch": batch}, steps=10**9, minutes=None, seed=0,
    ).for_layout(layout, sizes.states, device)  # fmt: skip
    windows = Windows(
        data, layout, settings.window, seed=0, memory=memory, batch=settings.batch, device=device
    )  # fmt: skip
    torch.manual_seed(0)
    model = assemble(layout, settings.to_dict()).to(device)
    if model.modes is not None:
        model.modes.measure([windows.batch(0, 16)[0]])
    return TrainingRun(settings, settings.to_dict(), layout, model, windows, windows, device)


def rate(training: TrainingRun, seconds: float) -> float:
    """Steps per second of some steps of a training."""
    start, first = time.monotonic(), training.step
    while (taken := time.monotonic() - start) < seconds:
        for _ in range(STEPS):
            loss = training.update()
            training.step += 1
        float(loss)
    return (training.step - first) / taken


if __name__ == "__main__":
    main()
