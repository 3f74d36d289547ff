"""Small weather for tests."""

from __future__ import annotations

import numpy as np
import xarray as xr

RANDOM = np.random.default_rng(0)


HOURLY = np.datetime64("2019-01-01") + np.arange(12) * np.timedelta64(1, "h")


TIMES = {
    "float": 0.2 * np.arange(12),
    "timedelta": HOURLY - HOURLY[0],
    "datetime": HOURLY,
    "cftime": xr.date_range("2000-02-27", periods=12, freq="6h", calendar="noleap", use_cftime=True).values,
}


def weather(kind: str = "datetime", lat: str = "lat", lon: str = "lon", globe: bool = False) -> xr.Dataset:
    """Temperature on two levels and surface pressure, latitudes from north to south."""
    longitudes = np.arange(6) * (60.0 if globe else 0.25)
    coords = {
        "time": ("time", TIMES[kind]),
        "level": ("level", [500, 850], {"units": "hPa", "positive": "down"}),
        lat: (lat, [51.0, 50.75, 50.5, 50.25], {"units": "degrees_north"}),
        lon: (lon, longitudes, {"units": "degrees_east"}),
    }
    sizes = {"time": 12, "level": 2, lat: 4, lon: 6}
    t = 250.0 + 30 * np.arange(2)[:, None, None] + 5 * RANDOM.normal(size=(12, 2, 4, 6))
    p = 1e5 + 500 * RANDOM.normal(size=(12, *(sizes[d] for d in (lon, lat))))
    data = {
        "t": (("time", "level", lat, lon), t.astype("float32"), {"units": "K", "long_name": "temperature"}),
        "sp": (("time", lon, lat), p.astype("float32"), {"units": "Pa"}),
        "orography": ((lon, lat), RANDOM.normal(size=(6, 4)), {"units": "m"}),
    }
    return xr.Dataset(data, coords)
