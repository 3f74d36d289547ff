"""Latitude, longitude, layers, times and ensembles of anybody's files."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import DataError
from sdaxr.states.axes import ensemble_dimension, is_latitude, is_longitude, layer_dimension, space_dimensions


def test_dimensions_are_recognised_by_name_or_attributes() -> None:
    plain = xr.DataArray(np.zeros((2, 3, 4, 5, 6)), dims=("trajectory", "time", "level", "lat", "lon"))
    assert layer_dimension(plain) == "level"
    assert space_dimensions(plain) == ("lat", "lon")
    depth = ("z", [1.0, 2.0], {"positive": "down"})
    ocean = xr.DataArray(np.zeros((3, 2, 4)), {"z": depth}, ("time", "z", "site"))
    assert layer_dimension(ocean) == "z"
    assert space_dimensions(ocean) == ("site",)
    assert space_dimensions(xr.DataArray(np.zeros(3), dims="time")) == ()
    assert is_longitude("x", {"standard_name": "longitude"}) and is_longitude("Longitude")
    assert is_latitude("lat") and not is_latitude("x")


def test_one_ensemble_dimension() -> None:
    assert ensemble_dimension(xr.Dataset({"a": (("member", "time"), np.zeros((2, 2)))})) == "member"
    assert ensemble_dimension(xr.Dataset({"a": ("time", np.zeros(2))})) is None
    both = xr.Dataset({"a": (("member", "trajectory"), np.zeros((2, 2)))})
    with pytest.raises(DataError, match="expected at most one"):
        ensemble_dimension(both)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("isobaricInhPa", {}),
        ("hybrid", {}),
        ("heightAboveGround", {}),
        ("s_rho", {}),
        ("model_level", {}),
        ("altitude", {}),
        ("k", {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}),
        ("k", {"standard_name": "air_pressure"}),
        ("k", {"axis": "Z"}),
        ("k", {"positive": "Up"}),
        ("k", {"_CoordinateAxisType": "Pressure"}),
    ],
)
def test_vertical_dimensions_of_other_peoples_files(name: str, attrs: dict[str, str]) -> None:
    field = xr.DataArray(np.zeros((3, 2, 4, 4)), {name: (name, [1.0, 2.0], attrs)}, ("time", name, "y", "x"))
    assert layer_dimension(field) == name and space_dimensions(field) == ("y", "x")


def test_latitude_and_longitude_by_their_attributes() -> None:
    assert is_latitude("j", {"units": "degrees_north"}) and is_longitude("i", {"units": "degreeE"})
    assert is_latitude("j", {"_CoordinateAxisType": "Lat"}) and is_longitude("i", {"long_name": "longitude"})
    assert not is_latitude("rlat", {"standard_name": "grid_latitude", "units": "degrees"})
    assert not is_longitude("lattice") and not is_latitude("latent", {"units": "degrees_east"})


def test_times_and_ensembles_by_their_attributes() -> None:
    coords = {
        "start": ("start", [0.0, 1.0], {"standard_name": "forecast_reference_time"}),
        "run": ("run", [0, 1, 2], {"standard_name": "realization"}),
        "t": ("t", [0.0, 1.0], {"axis": "T"}),
    }
    field = xr.DataArray(np.zeros((2, 2, 3, 2, 5)), coords, ("start", "init_time", "run", "t", "x"))
    assert space_dimensions(field) == ("x",) and ensemble_dimension(field) == "run"
