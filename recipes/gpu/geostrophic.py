"""Phase `geostrophic`: two-layer turbulence on 256 x 256, a prior of its states on 64 x 64, and its scores.

The solver is that of `sdaxr.systems.quasigeostrophic`, many flows at once through JAX. The network and its training are
those of the shipped prior (`recipes/quasigeostrophic/run.py`), and so is the scenario: velocities of both layers at a
quarter of the places on each of nine days, with errors of a tenth of their standard deviation.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import xarray as xr
from phase import Phase
from priors import Design, neighbour, scored, trained

import sdaxr
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic

# Flows side by side, and days of each that are kept. Windows a hundred days apart have little in common.
FLOWS, DAYS = 32, 1000
# The resolutions that are tried, the finest first: the solver's, and how many cells make one of a state.
GRIDS = ((256, 4), (128, 2))
# Parts of the budget: at most so much for the trajectories, and so many seconds for the scores of a prior.
FOR_DATA, FOR_SCORES = 0.45, 15
TESTS, MEMBERS = 4, 8


def run(phase: Phase) -> None:
    """Simulate, train, assimilate."""
    if phase.device.type != "cuda":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    setting, recipe = neighbour("quasigeostrophic", "setting"), neighbour("quasigeostrophic", "run")
    comparison = neighbour("quasigeostrophic", "comparison")
    data = trajectories(phase)
    statistics = sdaxr.Statistics(homogeneous=("x", "y"), symmetries=({"flip": ["y"], "negate": ["q"]},))
    options = {k: v for k, v in recipe.OURS.items() if k != "optimisation"} | {"statistics": statistics}
    design = Design("quasigeostrophic", options, recipe.OURS["optimisation"], recipe.CORRECTED)
    tests = setting.windows(data, 1 if phase.tenth else TESTS, states=9)

    def observe(truth: xr.Dataset, seed: int) -> xr.Dataset:
        return sdaxr.observe(truth, setting.OPERATORS["velocity"], error=0.1, where={"coverage": 0.25}, seed=seed)

    def found(posterior: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset) -> dict[str, float]:
        del observations
        return comparison.merits(posterior, truth)

    members = 2 if phase.tenth else MEMBERS
    truths = [test.load() for test in tests]
    scored(phase, "shipped", "quasigeostrophic", truths, observe, found, members)
    prior = trained(phase, data, design, max(20.0, phase.left - (0 if phase.tenth else FOR_SCORES)))
    scored(phase, design.name, prior, truths, observe, found, members)


def trajectories(phase: Phase) -> xr.Dataset:
    """Trajectories after five years of spin-up, of as many days as the budget gives, on the finest grid that it allows.

    In a rehearsal the spin-up is a few days.
    """
    flows, days = (3, 20) if phase.tenth else (FLOWS, DAYS)
    for resolution, coarsen in GRIDS[-1:] if phase.tenth else GRIDS:
        system = QuasiGeostrophic(resolution=resolution, coarsen=coarsen, spin_up=20 / 365 if phase.tenth else 5.0)
        each, first = seconds_per_day(system, flows)
        room = phase.seconds * FOR_DATA - (phase.seconds - phase.left)
        possible = int(room / each - 365 * system.spin_up)
        phase.record(
            "solver", resolution=resolution, flows=flows, first_seconds=round(first, 1),
            seconds_per_day=round(each, 5), days=possible,
        )  # fmt: skip
        if phase.tenth or possible >= DAYS / 5:
            break
    days = min(days, max(possible, 200))
    start = time.monotonic()
    states = system.trajectories(days, range(flows))
    fields = np.stack([state["q"] for state in states])
    if phase.tenth:  # A few days after a random start, means are not yet zero, as the symmetry needs them.
        fields = fields - fields.mean((0, 1, 3, 4), keepdims=True)
    phase.record(
        "trajectories", number=flows, days=days, resolution=resolution, coarsen=coarsen, spin_up_years=system.spin_up,
        seconds=round(time.monotonic() - start, 1), finite=bool(np.isfinite(fields).all()),
    )  # fmt: skip
    return labelled(system, fields)


def seconds_per_day(system: QuasiGeostrophic, flows: int) -> tuple[float, float]:
    """Seconds of one day of all flows, and of the first call, which compiles."""
    short = replace(system, spin_up=0.0)

    def run(days: int) -> float:
        start = time.monotonic()
        short.trajectories(days, range(flows))
        return time.monotonic() - start

    first = run(1)
    few, more = run(2), run(12)
    return max(more - few, 1e-6) / 10, first


def labelled(system: QuasiGeostrophic, fields: np.ndarray) -> xr.Dataset:
    """Potential vorticity (trajectory, time, layer, y, x) as a Dataset with the labels of the system, and splits."""
    template = system.template()
    count, days = fields.shape[:2]
    held = max(1, round(0.06 * count))
    split = np.array(["train"] * (count - 2 * held) + ["valid"] * held + ["test"] * held)
    time_coordinate = ("time", system.step * np.arange(1, days + 1), system.time_attrs)
    return xr.Dataset(
        {"q": (("trajectory", "time", *template.q.dims), fields, template.q.attrs)},
        dict(template.coords)
        | {"trajectory": np.arange(count), "time": time_coordinate, "split": ("trajectory", split)},
    )
