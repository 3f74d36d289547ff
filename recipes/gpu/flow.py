"""Phase `flow`: the paper's trajectories of Kolmogorov flow, two priors of them, and their scores.

The scenario is that of the shipped prior (`recipes/kolmogorov/run.py evaluate`): 8 x 8 means of the velocity at every
fourth of 32 states, with errors of 0.1. The truths here are simulated by the same solver as the training data;
`adopt.py` repeats the test with JAX-CFD.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import turbulence
import xarray as xr
from phase import Phase
from priors import Design, neighbour, scored, trained

import sdaxr
from sdaxr import operators as op
from sdaxr.systems.kolmogorov import Kolmogorov

TRAJECTORIES = 1024  # Rozet & Louppe (2023)
TESTS, MEMBERS, STATES = 4, 8, 32
# Parts of the budget: at most so much for the trajectories, and so many seconds for the scores of a prior.
FOR_DATA, FOR_SCORES = 0.25, 20


def run(phase: Phase) -> None:
    """Simulate, train, assimilate."""
    recipe, merits = neighbour("kolmogorov", "run"), neighbour("kolmogorov", "merits")
    data = merits.with_forcing(trajectories(phase))
    common = {
        "window": 8, "variables": ["u", "v"], "context": ["forcing"],
        "statistics": sdaxr.Statistics(homogeneous=("x",), symmetries=tuple(recipe.SYMMETRIES)),
    }  # fmt: skip
    designs = [
        Design("kolmogorov", common | {"network": recipe.NETWORK}, recipe.OURS, recipe.SAMPLER),
        # As wide as a file of 16 MB holds.
        Design(
            "kolmogorov-wide", common | {"network": replace(recipe.NETWORK, widths=(128, 160, 224))}, recipe.OURS,
            recipe.SAMPLER,
        ),
    ]  # fmt: skip
    tests = merits.of_split(data, "test", 1 if phase.tenth else TESTS)
    length, members = (8, 2) if phase.tenth else (STATES, MEMBERS)
    truths = [data.sel(trajectory=i).isel(time=slice(length)) for i in tests]

    def observe(truth: xr.Dataset, seed: int) -> xr.Dataset:
        return sdaxr.observe(truth, op.coarsen(8), every=4, error=0.1, seed=seed)

    def found(posterior: xr.Dataset, truth: xr.Dataset, observations: xr.Dataset) -> dict[str, float]:
        return merits.scores(posterior, truth) | {"residual": merits.residual(posterior, observations)}

    scored(phase, "shipped", "kolmogorov", truths, observe, found, members)
    for number, design in enumerate(designs):
        share = phase.left / (len(designs) - number) - (0 if phase.tenth else FOR_SCORES)
        prior = trained(phase, data, design, max(20.0, share))
        scored(phase, design.name, prior, truths, observe, found, members)


def trajectories(phase: Phase) -> xr.Dataset:
    """As many trajectories of 64 states as a quarter of the budget gives, up to the paper's number.

    In a rehearsal the solver has the grid of the states.
    """
    wanted, steps, spin_up = (6, 16, 4) if phase.tenth else (TRAJECTORIES, 64, 64)
    batch = 3 if phase.tenth else 128
    start, parts = time.monotonic(), []
    for part in batches(phase, wanted, steps=steps, spin_up=spin_up, batch=batch):
        parts.append(part)
        phase.synchronize()
        done, seconds = sum(len(p) for p in parts), time.monotonic() - start
        phase.record("batch", trajectories=done, seconds=round(seconds, 1))
        if not phase.tenth and seconds * (1 + batch / done) > phase.seconds * FOR_DATA:
            break
    phase.record(
        "trajectories", number=done, wanted=wanted, states=steps, seconds=round(seconds, 1),
        per_second=round(done / seconds, 2), finite=bool(all(p.isfinite().all() for p in parts)),
    )  # fmt: skip
    fields = torch.cat(parts).cpu().float().numpy()
    return labelled(fields, tests=1 if phase.tenth else TESTS)


def batches(phase: Phase, wanted: int, **options: int) -> Iterator[torch.Tensor]:
    """Batches of trajectories; from kernels that are not fused where the device cannot compile them."""
    system = Kolmogorov(resolution=64, coarsen=1) if phase.tenth else Kolmogorov()
    for compiled in (None, False):
        # Half precision has eleven bits: rounding is a thirtieth of the smallest noise level of the training.
        found = turbulence.trajectories(
            phase.device, range(wanted), system=system, compiled=compiled, out=torch.float16, **options
        )
        try:
            first = next(found)
        except RuntimeError as error:
            if compiled is False:
                raise
            phase.record("no compilation", reason=f"{type(error).__name__}: {error}".splitlines()[0][:300])
            continue
        yield first
        yield from found
        return


def labelled(fields: np.ndarray, tests: int, system: Kolmogorov | None = None) -> xr.Dataset:
    """Velocities (trajectory, time, 2, y, x) as a Dataset with the labels of the system, and its splits."""
    system = system or Kolmogorov()
    template = system.template()
    count, steps = fields.shape[:2]
    held = max(1, round(0.02 * count))
    split = np.array(["train"] * (count - held - tests) + ["valid"] * held + ["test"] * tests)
    dims = ("trajectory", "time", "y", "x")
    return xr.Dataset(
        {v: (dims, fields[:, :, i], template[v].attrs) for i, v in enumerate("uv")},
        {
            "trajectory": np.arange(count),
            "time": ("time", system.step * np.arange(1, steps + 1), system.time_attrs),
            "y": template.y, "x": template.x, "split": ("trajectory", split),
        },
    )  # fmt: skip
