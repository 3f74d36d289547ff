"""A truth, and what is observed of it, for tests."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sdaxr import operators as op
from sdaxr.observations.matching import match
from sdaxr.observations.observe import observe, operator_for
from sdaxr.observations.screening import Screening
from sdaxr.operators import Template

TURN = 2 * np.pi


CALENDARS = {
    "float": 0.2 * np.arange(6),
    "timedelta": np.arange(6) * np.timedelta64(90, "m").astype("m8[ns]"),
    "datetime": np.datetime64("2019-03-01", "ns") + np.arange(6) * np.timedelta64(1, "h"),
    "cftime": xr.date_range("2001-02-27", periods=6, freq="12h", calendar="noleap", use_cftime=True),
}


def make_truth(times="float", size=8, dtype=np.float32):
    centres = (np.arange(size) + 0.5) * TURN / size
    grid = {"units": "m", "periodic": 1, "period": TURN}
    draw = np.random.default_rng(0)
    coords = {
        "time": ("time", CALENDARS[times], {"units": "s"} if times == "float" else {}),
        "y": ("y", centres, grid),
        "x": ("x", centres, grid),
    }
    attrs = {"units": "m s-1", "long_name": "velocity", "standard_name": "eastward_wind"}
    fields = {n: (("time", "y", "x"), draw.normal(size=(6, size, size)).astype(dtype), attrs) for n in ("u", "v")}
    return xr.Dataset(fields, coords)


def with_sites(truth):
    return observe(truth, op.points({"x": [0.1, 2.0, 6.2], "y": [1.0, 2.0, 3.0]}), error=0.1)


def aligned(observations, truth, **options):
    screening = Screening(**options)
    bound = operator_for(observations, screening).bind(Template.from_dataset(truth))
    return match(observations, bound.template, screening)


def soundings(truth, number=20, seed=0):
    """Measurements of a truth at random places and times, as somebody's own file would hold them."""
    draw = np.random.default_rng(seed)
    step = draw.integers(0, truth.sizes["time"], number)
    places = {d: draw.uniform(0, TURN, number) for d in ("y", "x")}
    at = {"time": ("obs", truth.time.values[step]), **{d: ("obs", p) for d, p in places.items()}}
    values = draw.normal(size=number)
    return xr.Dataset({"u": ("obs", values, {"units": "m s-1"}), "u_error": 0.1}, at)
