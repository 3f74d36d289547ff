"""What the recipes of this folder share: the operators of Li, Dong & Zhang (2024), on fields of unit size."""

from __future__ import annotations

import xarray as xr

from sdaxr import operators as op
from sdaxr.operators import Operator

# Standard deviations in the upper and the lower layer, of the trajectories of `run.py generate`, in s-1 and m s-1.
POTENTIAL_VORTICITY = {"q": [8.7e-6, 1.15e-6]}
VELOCITY = {"u": [0.049, 0.0086], "v": [0.050, 0.0088]}

NORMALISED = op.standardise(POTENTIAL_VORTICITY)
OPERATORS: dict[str, Operator] = {
    "arctan": NORMALISED >> op.arctan(3.0),
    "sin": NORMALISED >> op.sin(3.0, amplitude=1.5),
    "velocity": op.pv_inversion("u", "v") >> op.standardise(VELOCITY),
}


def windows(
    trajectories: xr.Dataset, count: int, states: int = 9, before: int = 0, between: int = 100
) -> list[xr.Dataset]:
    """Windows of the test trajectories, so many days apart that they have little in common.

    Each begins the days ``before`` its states; nothing is loaded.
    """
    test = trajectories.isel(trajectory=trajectories.split.values == "test")
    starts = range(0, test.sizes["time"] - before - states + 1, between)
    places = [(i, start) for start in starts for i in range(test.sizes["trajectory"])]
    if len(places) < count:
        raise ValueError(f"found {len(places)} test windows {between} days apart, expected {count} or more")
    lengths = slice(0, before + states)
    return [test.isel(trajectory=i, time=slice(start, None)).isel(time=lengths) for i, start in places[:count]]
