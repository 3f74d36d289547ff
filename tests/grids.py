"""Fields on a periodic plane and on the sphere, for the operators."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from sdaxr import operators as op

TURN = 2 * np.pi


def plane(size=8, times=4, dtype=np.float64, seed=0, layers=0):
    """A velocity on a doubly periodic plane, cell-centred."""
    centres = (np.arange(size) + 0.5) * TURN / size
    grid = {"units": "m", "periodic": 1, "period": TURN}
    draw = np.random.default_rng(seed)
    dims, shape = ("time", "y", "x"), (times, size, size)
    coords = {
        "time": ("time", 0.2 * np.arange(times), {"units": "1"}),
        "y": ("y", centres, grid),
        "x": ("x", centres, grid),
    }
    if layers:
        dims, shape = ("time", "layer", "y", "x"), (times, layers, size, size)
        coords["layer"] = ("layer", np.arange(1, layers + 1))
    names = {"u": "eastward velocity", "v": "northward velocity"}
    fields = {
        n: (dims, draw.normal(size=shape).astype(dtype), {"units": "m s-1", "long_name": title})
        for n, title in names.items()
    }
    return xr.Dataset(fields, coords)


def sphere(lat=None, lon=None, times=3):
    """A temperature on latitudes and longitudes, from north to south."""
    lat = np.linspace(70, 20, 11) if lat is None else lat
    lon = np.linspace(-20, 30, 21) if lon is None else lon
    values = np.random.default_rng(3).normal(size=(times, lat.size, lon.size)) + 280
    hours = np.datetime64("2019-03-01", "ns") + np.arange(times) * np.timedelta64(1, "h")
    coords = {
        "time": hours,
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords)


def values(data):
    template = op.Template.from_dataset(data)
    return template, {n: torch.from_numpy(a.copy()) for n, a in template.arrays(data).items()}
