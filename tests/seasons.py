"""Series with known cycles of the day and the year, for tests of climatologies."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from sdaxr.states.climatology import Climatology
from sdaxr.states.harmonics import resolved_harmonics
from sdaxr.states.seasonal import estimate
from sdaxr.states.time import time_axis


def autoregressive(count: int, points: int, memory: float, seed: int = 0) -> np.ndarray:
    """Independent AR(1) series of unit variance, (time, point); ``memory`` is the correlation of neighbours."""
    noise = np.random.default_rng(seed).normal(size=(count + 500, points))
    series: np.ndarray = lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=0)[500:]
    return series


def hours(count: int, step: int = 1, calendar: str = "standard") -> xr.DataArray:
    """Times of ``count`` steps of some hours."""
    if calendar == "standard":
        values = np.datetime64("2001-01-01T00", "ns") + np.arange(count) * np.timedelta64(step, "h")
    else:
        values = xr.date_range("2001-01-01", periods=count, freq=f"{step}h", calendar=calendar, use_cftime=True).values
    return xr.DataArray(values, dims="time", coords={"time": values}, name="time")


def months(count: int, calendar: str = "standard") -> xr.DataArray:
    """The beginnings of ``count`` months."""
    values = xr.date_range("1970-01-01", periods=count, freq="MS", calendar=calendar, use_cftime=calendar != "standard")
    return xr.DataArray(values.values, dims="time", coords={"time": values.values}, name="time")


def climatology(values: np.ndarray, times: xr.DataArray) -> Climatology:
    """The climatology of series (time, point), one channel, read in several blocks."""
    axis = time_axis(times.to_dataset(name="t"))
    return estimate(
        lambda part: values[None, part, None], times, axis, resolved_harmonics(times, axis), block=len(values) // 3 + 1
    )


def gridded(values: np.ndarray, times: xr.DataArray, name: str = "t2m", units: str = "K") -> xr.Dataset:
    """Series (time, y * 4) as fields on four columns."""
    fields = values.reshape(times.size, -1, 4)
    coords = {"time": times, "y": np.arange(fields.shape[1]) * 1.0, "x": np.arange(4.0)}
    return xr.Dataset({name: (("time", "y", "x"), fields, {"units": units})}, coords)
