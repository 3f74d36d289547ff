"""Altimeter measurements of a field along straight tracks, with a white error and one bias for each track."""

from __future__ import annotations

import numpy as np
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.observations import with_bias

SPACING = 7.0  # km, as of along-track data at 1 Hz
NOISE, BIAS = 0.03, 0.02  # m
PER_DAY = 4
# Angles of the tracks with the parallels, degrees: those of altimeters between 30 and 45 degrees north.
ANGLES = (45.0, 75.0)
KM = 111.2  # km in a degree of latitude


def altimetry(
    truth: xr.Dataset, *, seed: int = 0, per_day: int = PER_DAY, bias: float = BIAS, averaged: int = 1
) -> xr.Dataset:
    """Observations of ``adt`` (time, latitude, longitude), in point form, along some tracks a day.

    Each day has tracks of its own, as each day of the year has. The positions, errors and biases of a day follow from
    ``seed`` and the date alone: windows that overlap have the same measurements. ``averaged`` neighbours are
    one value, whose white error is as much smaller, as for a coarse grid.
    """
    days = [_day(truth.isel(time=[number]), seed, per_day, bias, averaged) for number in range(truth.sizes["time"])]
    found = xr.concat(
        days, "obs", join="override", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override"
    )
    found = found.assign_coords(obs=np.arange(found.sizes["obs"]))
    found.attrs = {"title": "Synthetic altimetry", "seed": seed}
    return with_bias(found, bias, by="track") if bias else found


def _day(truth: xr.Dataset, seed: int, per_day: int, bias: float, averaged: int) -> xr.Dataset:
    """Measurements of one day at sea."""
    date = int(truth.time.values[0].astype("datetime64[D]").astype(int))
    random = np.random.default_rng([seed, date])
    where = [_line(truth, random, averaged) for _ in range(per_day)]
    latitude, longitude = (np.concatenate([w[i] for w in where]) for i in range(2))
    number = np.repeat(np.arange(per_day), [len(w[0]) for w in where])
    time = [str(truth.time.values[0])] * len(number)
    at = op.locations({"time": time, "latitude": latitude.tolist(), "longitude": longitude.tolist()})
    found = sdaxr.observe(truth, at, error=NOISE / averaged**0.5, seed=int(random.integers(2**31)))
    found = found.drop_vars(["window"]).assign_coords(track=("obs", [f"{date}-{n}" for n in number]))
    # The measurements of one track share an error.
    shared = xr.DataArray(bias * random.normal(size=per_day)[number], dims="obs")
    found["adt"] = (found["adt"] + shared).assign_attrs(found["adt"].attrs)
    return found.isel(obs=np.flatnonzero(found["adt"].notnull().values))


def _line(truth: xr.Dataset, random: np.random.Generator, averaged: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of a straight track through a random point of the sea, at equal distances."""
    sea = np.argwhere(truth["adt"].isel(time=0).notnull().values)
    row, column = sea[random.integers(len(sea))]
    latitude, longitude = float(truth.latitude[row]), float(truth.longitude[column])
    angle = np.deg2rad(random.uniform(*ANGLES)) * random.choice([-1, 1])
    along = np.arange(-300, 301) * averaged * SPACING / KM
    y = latitude + along * np.sin(angle)
    x = longitude + along * np.cos(angle) / np.cos(np.deg2rad(latitude))
    inside = np.ones(len(along), bool)
    for values, axis in ((y, truth.latitude), (x, truth.longitude)):
        inside &= (values >= float(axis.min())) & (values <= float(axis.max()))
    return y[inside].round(4), x[inside].round(4)
