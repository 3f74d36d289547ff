"""Values between the points of the grid."""

from __future__ import annotations

import numpy as np
import pytest
from grids import sphere

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_points_are_exact_for_bilinear_fields():
    data = sphere()
    data["t2m"] = (data.time.dt.hour + 2 * data.lat - 3 * data.lon + 0.1 * data.lat * data.lon).transpose(
        *data["t2m"].dims
    )
    lat, lon = np.array([21.3, 69.9, 70.0, 44.0]), np.array([-19.9, 29.0, 30.0, 5.0])
    found = op.points({"lat": lat, "lon": lon}).apply(data)
    expected = data.time.dt.hour.values[:, None] + 2 * lat - 3 * lon + 0.1 * lat * lon
    np.testing.assert_allclose(found["t2m"], expected)
    assert found["t2m"].dims == ("time", "station")
    np.testing.assert_array_equal(found.lat, lat)
    assert found.lat.attrs["standard_name"] == "latitude"


@pytest.mark.parametrize("first", [0.0, -180.0])
def test_points_wrap_around_the_globe(first):
    lon = first + np.arange(0.0, 360.0, 15.0)
    data = sphere(lon=lon)
    data["t2m"] = data["t2m"] * 0 + np.cos(np.deg2rad(data.lon))
    here, there = op.points({"lat": [40.0] * 3, "lon": [-5.0, 178.0, 355.0]}), [355.0, -182.0, -5.0]
    found = here.apply(data)["t2m"]
    np.testing.assert_allclose(found[0], np.cos(np.deg2rad([-5.0, 178.0, 355.0])), atol=0.01)
    np.testing.assert_allclose(found, op.points({"lat": [40.0] * 3, "lon": there}).apply(data)["t2m"])


def test_points_outside_are_named_or_counted():
    where = {"lat": [40.0, 80.0, 30.0, 10.0], "lon": [0.0, 5.0, 25.0, 0.0]}
    with pytest.raises(OperatorError, match=r"station 1 \(lat=80, lon=5\) lies outside the grid .* 1 others of 4"):
        op.points(where).apply(sphere())
    found = op.points(where, outside="drop").apply(sphere())
    assert found.attrs == {"station_outside_grid": 2}
    np.testing.assert_array_equal(found.station, [0, 2])
    with pytest.raises(OperatorError, match="Did you mean 'drop'"):
        op.points(where, outside="dropp")


def test_points_refuse_bad_positions():
    with pytest.raises(OperatorError, match="expected one number, at least 1"):
        op.points({"x": [1.0], "y": [1.0, 2.0]})
    with pytest.raises(OperatorError, match="position 1 of 'x' is not finite"):
        op.points({"x": [1.0, np.nan], "y": [1.0, 2.0]})
    with pytest.raises(OperatorError, match="not numbers"):
        op.points({"x": ["here"]})


def test_a_station_on_a_grid_point_does_not_see_its_masked_neighbour():
    data = sphere()
    data["t2m"][:, :, 0] = np.nan
    found = op.points({"lat": [70.0, 70.0], "lon": [-17.5, -18.0]}).apply(data)["t2m"]
    np.testing.assert_array_equal(np.isnan(found[0]), [False, True])


def test_a_grid_of_one_point_has_values_there_only():
    data = sphere(lat=np.array([50.0]))
    found = op.points({"lat": [50.0], "lon": [0.5]}).apply(data)["t2m"]
    np.testing.assert_allclose(found[:, 0], data["t2m"].interp(lon=0.5).isel(lat=0))
    with pytest.raises(OperatorError, match="lies outside the grid"):
        op.points({"lat": [50.5], "lon": [0.5]}).apply(data)


def test_variables_have_all_dimensions_of_the_positions_or_none():
    data = sphere()
    mixed = data.assign(zonal=data["t2m"].mean("lon"), whole=data["t2m"].mean(["lat", "lon"]))
    with pytest.raises(OperatorError, match=r"'zonal' has the dimensions \('time', 'lat'\), expected all or none of"):
        op.points({"lat": [50.0], "lon": [0.5]}).apply(mixed)
    found = op.points({"lat": [50.0], "lon": [0.5]}).apply(mixed.drop_vars("zonal"))
    assert found["whole"].dims == ("time",)
    with pytest.raises(OperatorError, match="expected {dimension: positions}"):
        op.points({})
