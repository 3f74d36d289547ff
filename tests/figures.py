"""Data to draw, and what is found in figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from cartopy.mpl.feature_artist import FeatureArtist
from matplotlib.figure import Figure

TWO_PI = 2 * np.pi


def flow(members: int | None = None, times: int = 9, size: int = 8, seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    centres = (np.arange(size) + 0.5) * TWO_PI / size
    grid = {d: xr.Variable(d, centres, {"units": "1", "period": TWO_PI}) for d in ("y", "x")}
    ds = xr.Dataset(coords={"time": ("time", 0.2 * np.arange(times), {"units": "1"}), **grid})
    u = np.cos(ds.y) * (1 + ds.time) + 0 * ds.x
    v = np.sin(ds.x) * (1 + ds.time) + 0 * ds.y
    ds = ds.assign(u=u.transpose("time", "y", "x"), v=v.transpose("time", "y", "x"))
    if members:
        noise = xr.DataArray(random.standard_normal((members, times, size, size)), dims=("member", *ds.u.dims))
        ds = (ds + 0.1 * noise).transpose("member", ...).assign_coords(member=np.arange(members))
    for name in "uv":
        ds[name].attrs = {"units": "1", "long_name": f"velocity {name}"}
    return ds


def observed(ds: xr.Dataset, every: int = 4) -> xr.Dataset:
    coarse = ds.isel(time=slice(None, None, every)).coarsen(y=2, x=2).mean()
    errors = {f"{n}_error": ((), 0.1, {"units": "1"}) for n in ds.data_vars}
    for d in ("y", "x"):
        coarse[d].attrs = ds[d].attrs
    return coarse.assign(errors)


def rows(figure: Figure) -> list[str]:
    return [a.get_ylabel() for a in figure.axes if a.get_ylabel() and a.get_label() != "<colorbar>"]


def bars(figure: Figure) -> list[str]:
    return [a.get_ylabel() or a.get_xlabel() for a in figure.axes if a.get_label() == "<colorbar>"]


def meshes(figure: Figure) -> list:
    """The first field or scatter of each panel. Coastlines, where there are any on disk, are none."""
    fields = [[c for c in a.collections if not isinstance(c, FeatureArtist)] for a in figure.axes]
    shown = zip(figure.axes, fields, strict=True)
    return [found[0] for axes, found in shown if found and axes.get_label() != "<colorbar>"]


def state(members: int | None = None) -> xr.Dataset:
    times = 0.1 * np.arange(30)
    ds = xr.Dataset({n: ("time", 5 * np.sin(times + i), {"units": "K"}) for i, n in enumerate("abc")}, {"time": times})
    if members:
        noise = xr.DataArray(np.random.default_rng(0).standard_normal((members, 30)), dims=("member", "time"))
        ds = ds + noise
    return ds
