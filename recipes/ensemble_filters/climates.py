"""Truths of the flows, and states of their climates from which ensembles start.

The solvers have 128 x 128 points, and so have the states of the models of the filters. The priors know means over 2 x 2
of these points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from sdaxr import operators as op
from sdaxr.archives.seeds import unit_seed
from sdaxr.systems.base import State, System
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic

KOLMOGOROV = Kolmogorov(resolution=128, coarsen=1)
QUASIGEOSTROPHIC = QuasiGeostrophic(resolution=128, coarsen=1)
# States of the climate, so many apart that those of one trajectory differ.
EVERY = {"kolmogorov": 8, "quasigeostrophic": 20}
SEED = 4000
# Daily states of a window of quasi-geostrophic turbulence.
DAYS = 25


@dataclass(frozen=True)
class Climate:
    """Truths, (truth, time, ...), and independent states, (state, ...), on the grid of the solver."""

    truths: xr.Dataset
    states: xr.Dataset

    def ensemble(self, system: System, members: int, seed: int) -> xr.Dataset:
        """States of the climate at random as the first of an ensemble of ``system``, shifted as the flow allows."""
        random = np.random.default_rng([seed, 9])
        picked = random.permutation(np.arange(members) % self.states.sizes["state"])
        parts = [shifted(self.states.isel(state=i), system.name, random) for i in picked]
        return means(xr.concat(parts, "member"), system.template().sizes["x"])


def shifted(state: xr.Dataset, name: str, random: np.random.Generator) -> xr.Dataset:
    """The state moved at random where the climate is the same; the forcing of Kolmogorov flow has four waves in y."""
    size = state.sizes["x"]
    along = random.integers(size) if name == "quasigeostrophic" else size // 4 * random.integers(4)
    return state.roll(x=int(random.integers(size)), y=int(along), roll_coords=False)


def means(states: xr.Dataset, size: int) -> xr.Dataset:
    """Block means on a grid of ``size`` points along each side."""
    factor = states.sizes["x"] // size
    return states if factor == 1 else op.coarsen(factor, ("y", "x")).apply(states)


def generate(store: Path, truths: int) -> None:
    """Simulate both flows, and write the climates."""
    store.mkdir(parents=True, exist_ok=True)
    for name, simulate in SIMULATIONS.items():
        climate = simulate(truths)
        climate.truths.to_netcdf(store / f"{name}-truths.nc")
        climate.states.to_netcdf(store / f"{name}-states.nc")


def read(store: Path, name: str) -> Climate:
    """The climate of a flow that `generate` wrote."""
    return Climate(*(xr.load_dataset(store / f"{name}-{part}.nc") for part in ("truths", "states")))


def _kolmogorov(truths: int) -> Climate:
    states = KOLMOGOROV.trajectories(32, [unit_seed(SEED, i) for i in range(truths)])
    free = KOLMOGOROV.trajectories(24, [unit_seed(SEED + 1, i) for i in range(10)])
    apart = slice(None, None, EVERY["kolmogorov"])
    return Climate(
        xr.concat([labelled(KOLMOGOROV, s) for s in states], "truth"),
        xr.concat([_without_time(KOLMOGOROV, s).isel(state=apart) for s in free], "state"),
    )


def _quasigeostrophic(truths: int) -> Climate:
    """One trajectory: states, half a year in which the flow forgets them, and windows that are 100 days apart."""
    first = 20 * EVERY["quasigeostrophic"] + 180
    states = QUASIGEOSTROPHIC.trajectory(first + 100 * (truths - 1) + DAYS, unit_seed(SEED))
    windows = [{n: v[first + 100 * i :][:DAYS] for n, v in states.items()} for i in range(truths)]
    apart = {n: v[: first - 180 : EVERY["quasigeostrophic"]] for n, v in states.items()}
    return Climate(
        xr.concat([labelled(QUASIGEOSTROPHIC, w) for w in windows], "truth"), _without_time(QUASIGEOSTROPHIC, apart)
    )


SIMULATIONS: dict[str, Callable[[int], Climate]] = {
    "kolmogorov": _kolmogorov,
    "quasigeostrophic": _quasigeostrophic,
}


def labelled(system: System, fields: State) -> xr.Dataset:
    """States of a system, (time, ...), with their labels."""
    count = len(next(iter(fields.values())))
    times = xr.DataArray(np.arange(count) * system.step, dims="time", attrs=system.time_attrs)
    template = system.template()
    data = {n: (("time", *v.dims), fields[str(n)], v.attrs) for n, v in template.data_vars.items()}
    return xr.Dataset(data, dict(template.coords) | {"time": times})


def _without_time(system: System, fields: State) -> xr.Dataset:
    return labelled(system, fields).drop_vars("time").rename(time="state")
