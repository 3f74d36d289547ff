"""A truth and an ensemble, for tests."""

from __future__ import annotations

import numpy as np
import xarray as xr

TWO_PI = 2 * np.pi


def grid(size: int = 8) -> dict[str, xr.Variable]:
    values = (np.arange(size) + 0.5) * TWO_PI / size
    attrs = {"units": "1", "period": TWO_PI, "periodic": 1}
    return {d: xr.Variable(d, values, attrs) for d in ("y", "x")}


def ensemble(members: int = 10, times: int = 6, size: int = 8, seed: int = 0, spread: float = 1.0):
    """Truth and members exchangeable draws of one Gaussian (for ``spread=1``), two velocities."""
    random = np.random.default_rng(seed)
    coords = {"time": 0.2 * np.arange(times), **grid(size)}
    attrs = {"units": "m s-1", "long_name": "velocity"}

    def field(*lead: int, scale: float = 1.0) -> np.ndarray:
        return scale * random.standard_normal((*lead, times, size, size))

    signal = {n: field(scale=3.0) for n in ("u", "v")}
    truth = {n: (("time", "y", "x"), signal[n] + field(), attrs) for n in ("u", "v")}
    dims = ("member", "time", "y", "x")
    posterior = {n: (dims, signal[n] + field(members, scale=spread), attrs) for n in ("u", "v")}
    member = xr.Variable("member", np.arange(members), {"standard_name": "realization"})
    return xr.Dataset(posterior, {**coords, "member": member}), xr.Dataset(truth, coords)
