"""Measurements in point form: each is drawn once, at the nearest time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from figures import rows
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

import sdaxr
from sdaxr.plotting.points import at_times, own_times
from sdaxr.schema import DataError

START, HOUR = np.datetime64("2020-01-01", "ns"), np.timedelta64(1, "h")


def measurements(hours: list[float], lon: float = 5.0) -> xr.Dataset:
    count = len(hours)
    times = START + (np.array(hours) * 3600).astype("timedelta64[s]")
    places = {"lat": ("obs", np.linspace(40, 60, count)), "lon": ("obs", np.full(count, lon))}
    values = ("obs", 280.0 + np.arange(count), {"units": "K"})
    data = xr.Dataset({"t2m": values, "t2m_error": ("obs", np.ones(count))}, {"time": ("obs", times), **places})
    attrs = {"flag_values": np.array([0, 2], np.int8), "flag_meanings": "used on_land"}
    return data.assign(status=("obs", np.resize(np.array([0, 2, 5], np.int8), count), attrs))


def drawn(figure: Figure) -> list[list[float]]:
    """The values that are seen in each panel of points, in their order."""
    found = []
    for axes in figure.axes:
        for dots in (c for c in axes.collections if isinstance(c, PathCollection)):
            values, seen = dots.get_array(), dots.get_sizes() > 0
            found.append(np.ma.compressed(values[seen]).tolist())
    return found


def test_each_measurement_is_at_the_nearest_time() -> None:
    stamps = xr.DataArray(START + 6 * HOUR * np.arange(3), dims="time")
    found = at_times(measurements([0, 2.9, 3.1, 14, 40]), stamps).t2m
    assert found.dims == ("time", "obs") and found.attrs["units"] == "K"
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in found.values] == [[0, 1], [2], [3, 4]]
    near = at_times(measurements([0, 2.9, 3.1, 14, 40]), stamps, reach=0.5).t2m
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in near.values] == [[0, 1], [2], [3]]
    one = at_times(measurements([0, 40]), stamps[:1]).t2m
    assert np.isfinite(one.values).all()


def test_times_are_those_of_the_measurements_or_spread_over_them() -> None:
    data = measurements([3, 1, 1, 2, 9])
    assert ((own_times(data, None).values - START) / HOUR).tolist() == [1, 2, 3, 9]
    assert ((own_times(data, 2).values - START) / HOUR).tolist() == [1, 9]
    with pytest.raises(DataError, match="found no measurement"):
        own_times(data.isel(obs=[]), 2)


def test_measurements_alone_are_a_map_of_all_of_them() -> None:
    figure = sdaxr.plot(measurements([0, 1, 6, 7, 12]), times=2)
    assert sorted(value for values in drawn(figure) for value in values) == [280, 281, 282, 283, 284] and rows(
        figure
    ) == ["observation"]
    assert all(hasattr(axes, "projection") for axes in figure.axes[:2])
    assert drawn(sdaxr.plot(measurements([0]))) == [[280.0]]


def test_measurements_beside_a_field_are_those_of_its_times() -> None:
    lat, lon = np.linspace(35, 65, 7), np.linspace(-15, 25, 9)
    field = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), np.full((3, 7, 9), 280.0), {"units": "K"})},
        {"time": START + 6 * HOUR * np.arange(3), "lat": lat, "lon": lon},
    )
    figure = sdaxr.plot(field, observations=measurements([0, 1, 6, 7, 40]), times=3)
    assert rows(figure) == ["observation", "field"] and drawn(figure) == [[280, 281], [282, 283], []]


def test_flags_are_categories_with_their_meanings(tmp_path: Path) -> None:
    figure = sdaxr.plot(measurements([0, 0, 0, 0]), variable="status", path=tmp_path / "a.png")
    # 5 is no value of this flag.
    assert drawn(figure) == [[0, 1, 0]]
    bar = next(axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    assert [label.get_text() for label in bar.get_yticklabels()] == ["used", "on land"]


@pytest.mark.parametrize("kind", ["field", "lines"])
def test_flags_on_a_grid_and_in_time(kind: str) -> None:
    attrs = {"flag_values": [0, 1, 3], "flag_meanings": "sea land sea_ice"}
    values: Any = np.resize([0, 1, 3], (2, 4, 5))
    coords = {"time": [0.0, 1.0], "y": np.arange(4.0), "x": np.arange(5.0)}
    mask = xr.Dataset({"mask": (("time", "y", "x"), values, attrs)}, coords)
    figure = sdaxr.plot(mask if kind == "field" else mask.isel(y=0, x=0))
    axes = figure.axes[-1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sea", "land", "sea ice"]


def test_points_are_animated(tmp_path: Path) -> None:
    assert sdaxr.animate(measurements([0, 1, 6]), tmp_path / "a.gif").stat().st_size
