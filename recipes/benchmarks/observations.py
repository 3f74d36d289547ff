"""Seconds and memory from a table of stations to the terms of the likelihood, and of guidance by the observations.

python recipes/benchmarks/observations.py

A temperature on 32 x 64 points every six hours, made of waves, and a prior of it that is trained for a minute at most:
what observations cost does not depend on what the network has learned. Observations are spread over the globe and over
20 steps. Every case runs in a process of its own, so that its peak memory is its own. Seconds are those of the
processor with one thread, which other programs on the machine change little.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr
from report import report

import sdaxr
from sdaxr.inference.binding import bind_observations
from sdaxr.observations.window import operator_of, window_times
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.methods import resolve_method

MANY = 10**6
FEWER = (10**3, 10**4, 10**5)
METHODS = ("sda", "jacobian_free", "mmps", "dmps", "dps")
CASES = ("prepare", "table to dataset", "dataset to likelihood", "both", "evaluations")
ERRORS = {"t2m": 1.0}
STEPS = 20
NOISE_LEVEL = 1.0


@click.command()
@click.option("--many", default=MANY, show_default=True, help="Number of observations that are read.")
@click.option("--case", hidden=True, help="One case, measured in this process.")
@click.option("--folder", hidden=True)
def main(many: int, case: str | None, folder: str | None) -> None:
    """Time the reading of observations, the terms of the likelihood and one guided evaluation."""
    if case is not None and folder is not None:
        for row in measure(Path(folder), case, many):
            click.echo(json.dumps(row))
        return
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for each in CASES:
            command = [sys.executable, __file__, "--many", str(many), "--folder", temporary, "--case", each]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(done.stderr)
            rows += [json.loads(line) for line in done.stdout.splitlines()]
            click.echo(done.stdout, err=True)
    report("observations", rows, load)


def waves(times: int = 80) -> xr.Dataset:
    """Waves that travel around the globe, with some noise."""
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(-87, 87, 32), np.arange(0, 360, 5.625)
    t, a, o = np.arange(times)[:, None, None], np.deg2rad(lat)[:, None], np.deg2rad(lon)
    x = 280 + 10 * np.cos(a) * np.sin(2 * o - 0.3 * t) + 5 * np.sin(3 * a) * np.cos(o + 0.2 * t)
    x = (x + rng.normal(0, 0.2, x.shape)).astype("f4")
    time_axis = pd.date_range("2020-01-01", periods=times, freq="6h")
    attrs = {"units": "K"}
    return xr.Dataset({"t2m": (("time", "lat", "lon"), x, attrs)}, {"time": time_axis, "lat": lat, "lon": lon})


def table(states: xr.Dataset, number: int) -> pd.DataFrame:
    """A table with a row for each observation, at any place and time of the first steps."""
    rng = np.random.default_rng(1)
    seconds = rng.integers(0, (STEPS - 1) * 6 * 3600, number)
    columns = {
        "time": states.time.values[0] + seconds.astype("m8[s]"),
        "lat": rng.uniform(-85, 85, number).round(3),
        "lon": rng.uniform(0, 354, number).round(3),
        "station": [f"S{i:05d}" for i in rng.integers(0, 20000, number)],
        "t2m [K]": rng.normal(280, 4, number).round(2),
    }
    return pd.DataFrame(columns)


def prepare(folder: Path, many: int) -> None:
    """The prior and the table of stations."""
    states = waves()
    sdaxr.train(states, folder / "prior.safetensors", window=3, steps=60, optimisation={"batch": 8}, progress=False)
    table(states, many).to_csv(folder / "stations.csv", index=False)


def measure(folder: Path, case: str, many: int) -> list[dict[str, Any]]:
    """The rows of one case."""
    import torch

    torch.set_num_threads(1)
    if case == "prepare":
        prepare(folder, many)
        return []
    prior, file = sdaxr.open_prior(folder / "prior.safetensors"), folder / "stations.csv"
    few = sdaxr.read_observations(table(waves(), 100), errors=ERRORS)
    bind(few, prior)  # The libraries are loaded before the measurement.
    if case == "table to dataset":
        return [{"case": case, "observations": many, **timed(lambda: sdaxr.read_observations(file, errors=ERRORS))}]
    if case == "dataset to likelihood":
        data = sdaxr.read_observations(file, errors=ERRORS)
        return [{"case": case, "observations": many, **timed(lambda: bind(data, prior))}]
    if case == "both":
        both = timed(lambda: bind(sdaxr.read_observations(file, errors=ERRORS), prior))
        return [{"case": case, "observations": many, **both}]
    return evaluations(prior)


def bind(data: xr.Dataset, prior: sdaxr.Prior) -> GaussianObservation:
    """The terms of the likelihood."""
    import torch

    times = window_times({"stations": data}, prior.layout)
    return bind_observations(data, operator_of("stations", data, None), prior, times, torch.device("cpu"))


def evaluations(prior: sdaxr.Prior) -> list[dict[str, Any]]:
    """One evaluation of the denoiser of the posterior, for one member: by method and number of observations."""
    import torch

    states, cpu = waves(), torch.device("cpu")
    times = prior.layout.times(states.time.values[0], STEPS)
    tables = {n: sdaxr.read_observations(table(states, n), errors=ERRORS) for n in FEWER}
    likelihoods = {n: bind(data, prior) for n, data in tables.items()}
    z = torch.randn(1, STEPS, prior.layout.channels, *prior.layout.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    first = 0.0
    for name in METHODS:
        method = resolve_method(prior, name).resolve(prior, times, cpu)
        for number, likelihood in likelihoods.items():
            guided = method.guide(prior.denoiser(times), [likelihood])
            guided(z, NOISE_LEVEL)
            seconds = timed(partial(guided, z, NOISE_LEVEL), repeats=5)["CPU seconds"]
            first = seconds if number == FEWER[0] else first
            rows.append(
                {"case": name, "observations": number, "CPU seconds": seconds, "over the first": seconds / first}
            )
    return rows


def timed(run: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
    """Seconds of the processor for one run, the least of some repeats, and the memory of the process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "CPU seconds": min(seconds),
        "memory before (GB)": before * 1024 / 1e9,
        "peak memory (GB)": peak * 1024 / 1e9,
    }


if __name__ == "__main__":
    main()
