"""Measurements at points, for tests."""

from __future__ import annotations

import numpy as np
import xarray as xr

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2019-03-01", "ns")


def measured(lat, lon, values, *, hours=0.0, errors=1.0, **coords):
    """Temperatures at these places and hours, in the point form."""
    values = np.asarray(values, float)
    minutes = np.round(60 * np.broadcast_to(hours, values.shape)).astype("m8[m]")
    at = {
        "time": ("obs", START + minutes),
        "lat": ("obs", np.broadcast_to(lat, values.shape).astype(float), {"standard_name": "latitude"}),
        "lon": ("obs", np.broadcast_to(lon, values.shape).astype(float), {"standard_name": "longitude"}),
    }
    error = np.broadcast_to(errors, values.shape).astype(float)
    fields = {
        "t2m": ("obs", values, {"units": "K", "standard_name": "air_temperature", "ancillary_variables": "t2m_error"}),
        "t2m_error": ("obs", error, {"units": "K"}),
    }
    return xr.Dataset(fields, at | {n: ("obs", np.asarray(v)) for n, v in coords.items()})
