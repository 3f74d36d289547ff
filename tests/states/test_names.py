"""Other people's names, and variables that describe others."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from weather import weather

from sdaxr.schema import DataError
from sdaxr.states.infer import infer_layout, state_variables
from sdaxr.states.names import auxiliary, named_time, recognised

TIMES = pd.date_range("2020-01-01", periods=12, freq="h")


def climate_store() -> xr.Dataset:
    """Weather as the Climate Data Store gives it."""
    data = weather().assign_coords(time=TIMES).rename(time="valid_time", lat="latitude", lon="longitude")
    return data.assign_coords(number=0, expver=("valid_time", np.array(["0001"] * 12, object)))


def test_what_describes_others_is_no_state() -> None:
    data = weather()
    data["time"].attrs["bounds"] = "time_edges"
    data["t"].attrs |= {"grid_mapping": "rotated", "ancillary_variables": "t_flag", "cell_measures": "area: cells"}
    data["sp"].encoding["coordinates"] = "surface_height"
    moving = {n: data.sp * 0 for n in ("t_flag", "cells", "surface_height", "lat_bnds", "expver")}
    data = data.assign(
        **moving, time_edges=(("time", "bnds"), np.zeros((12, 2))), rotated=("time", np.zeros(12)),
        odd=data.sp.assign_attrs(grid_mapping_name="mercator"), time_bnds=(("time", "bnds"), np.zeros((12, 2))),
    )  # fmt: skip
    aside = {"time_edges", "rotated", "t_flag", "cells", "surface_height", "lat_bnds", "expver", "odd", "time_bnds"}
    assert auxiliary(data) == aside
    assert state_variables(data) == ["t", "sp"]
    assert infer_layout(data).variables == ("t", "sp")


def test_the_valid_time_of_a_file_is_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sdaxr"):
        found = named_time(climate_store())
    assert "'valid_time' holds the times" in caplog.text
    assert found.sizes["time"] == 12 and found.expver.dims == ("time",)
    assert infer_layout(found[["t", "sp"]]).time.step == 3600
    started = named_time(climate_store().assign_coords(time=TIMES[0]))
    assert started.sizes["time"] == 12 and started.forecast_reference_time.ndim == 0
    named = named_time(
        weather().rename(time="ocean_time").assign_coords(ocean_time=("ocean_time", TIMES, {"axis": "T"}))
    )
    assert named.sizes["time"] == 12
    at_points = xr.Dataset({"t": ("obs", np.zeros(12))}, {"valid_time": ("obs", TIMES)})
    assert named_time(at_points)["time"].dims == ("obs",)


def test_a_forecast_and_two_times_are_left_alone() -> None:
    forecast = xr.Dataset({"t": ("lead_time", np.zeros(12))}, {"valid_time": ("lead_time", TIMES)})
    assert named_time(forecast).identical(forecast)
    assert named_time(data := weather()).identical(data)
    two = climate_store().assign_coords(clock=("clock", np.arange(3), {"standard_name": "time"}))
    with pytest.raises(DataError, match="found the times .*, expected one of them to be named 'time'"):
        named_time(two)


def test_coordinates_are_renamed_by_what_they_are() -> None:
    like = {"lat": {}, "lon": {"units": "degrees_east"}, "level": {"units": "hPa"}}
    found = recognised(climate_store().rename(level="isobaricInhPa"), like)
    assert set(found.t.dims) == {"time", "level", "lat", "lon"}
    strange = weather().rename(lat="row", lon="column").drop_attrs()
    strange["row"].attrs["standard_name"], strange["column"].attrs["standard_name"] = "latitude", "longitude"
    assert {"lat", "lon"} <= set(recognised(strange, like).t.dims)
    stations = xr.Dataset({"t": ("obs", [1.0])}, {"latitude": ("obs", [50.0]), "depth": ("obs", [3.0], {"units": "m"})})
    assert set(recognised(stations, like).coords) == {"lat", "depth"}


def test_a_layout_takes_data_with_other_names() -> None:
    layout = infer_layout(weather())
    data = weather()
    other = data.rename(time="valid_time", lat="Latitude", lon="longitude")
    np.testing.assert_array_equal(layout.to_array(other), layout.to_array(data))
