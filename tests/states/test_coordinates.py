"""Periods of dimensions, nearest points, equal points and equal grids."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import DataError, GridError
from sdaxr.states.coordinates import (
    Coordinate,
    coordinate_of,
    match_points,
    nearest_points,
    onto_grid,
    period_along,
    period_of,
    separation,
    spacing_of,
    turn_of,
    unrolled,
    wrapped,
)

CENTRES = (np.arange(8) + 0.5) * 2 * np.pi / 8
CIRCLE = {"periodic": 1, "period": 2 * np.pi}
GLOBE = np.arange(0.0, 360.0, 45.0)
EAST = {"standard_name": "longitude"}


@pytest.mark.parametrize(
    ("values", "attrs", "period"),
    [
        pytest.param(CENTRES, CIRCLE, 2 * np.pi, id="a whole circle"),
        pytest.param(CENTRES.astype("float32"), CIRCLE, 2 * np.pi, id="in float32"),
        pytest.param(np.arange(6), {"period": 6}, 6.0, id="of integers"),
        pytest.param(CENTRES[::2], CIRCLE, 2 * np.pi, id="every second point"),
        pytest.param(CENTRES[1::4], CIRCLE, 2 * np.pi, id="two points, half a period apart"),
        pytest.param(CENTRES[::-1], CIRCLE, 2 * np.pi, id="downwards"),
        pytest.param(np.roll(CENTRES, 3), CIRCLE, 2 * np.pi, id="from another point on"),
        pytest.param(CENTRES[:4], CIRCLE, None, id="half of it"),
        pytest.param(CENTRES[:7], CIRCLE, None, id="all but one point"),
        pytest.param(CENTRES[:2], CIRCLE, None, id="two neighbours"),
        pytest.param(CENTRES[:1], CIRCLE, None, id="one point"),
        pytest.param(CENTRES[:0], CIRCLE, None, id="no point"),
        pytest.param(CENTRES[::3], CIRCLE, None, id="every third of eight"),
        pytest.param(np.append(CENTRES, CENTRES[0] + 2 * np.pi), CIRCLE, None, id="one point twice"),
        pytest.param(CENTRES[[0, 2, 1, 3, 4, 5, 6, 7]], CIRCLE, None, id="out of order"),
        pytest.param(CENTRES + 0.01 * (np.arange(8) == 2), CIRCLE, None, id="unequal steps"),
        pytest.param(CENTRES, {"periodic": 1}, None, id="of unknown length"),
        pytest.param(CENTRES, {"periodic": 0, "period": 2 * np.pi}, None, id="declared as bounded"),
        pytest.param(CENTRES, {}, None, id="not declared"),
        pytest.param(np.array(list("abc")), {"period": 3}, None, id="names"),
        pytest.param(GLOBE, EAST, 360.0, id="longitudes"),
        pytest.param((GLOBE + 180) % 360 - 180, EAST, 360.0, id="longitudes with the seam in the middle"),
        pytest.param(np.arange(0, 360, 0.25, dtype="float32"), EAST, 360.0, id="longitudes of ERA5"),
        pytest.param(GLOBE[:4], EAST, None, id="a hemisphere"),
        pytest.param(GLOBE, {"units": "degrees_east"}, 360.0, id="longitudes by their units"),
    ],
)
def test_a_dimension_is_periodic_while_its_points_go_once_around(
    values: np.ndarray, attrs: dict[str, object], period: float | None
) -> None:
    assert period_of("x", values, attrs) == period
    assert Coordinate(values, dict(attrs)).period == period
    data = xr.DataArray(np.zeros(values.size), {"x": ("x", values, attrs)}, ("x",))
    assert period_along(data, "x") == coordinate_of(data.x).period == period
    assert period_along(data.drop_vars("x"), "x") is None


@pytest.mark.parametrize("period", [0, -1.0, "long", np.nan])
def test_periods_that_are_none(period: object) -> None:
    with pytest.raises(DataError, match="attribute 'period' of 'x' is .*, expected a length above 0"):
        turn_of("x", {"period": period})


def test_labels_repeat_after_a_turn() -> None:
    assert turn_of("lon", {}) == 360.0 and turn_of("x", CIRCLE) == 2 * np.pi and turn_of("x", {}) is None
    np.testing.assert_array_equal(unrolled(np.array([350.0, 0, 10]), 360.0), [350, 360, 370])
    np.testing.assert_array_equal(unrolled(np.array([10, 0, 350]), 360.0), [10, 0, -10])
    np.testing.assert_array_equal(unrolled(np.array([0.0, 200.0]), 360.0), [0, 200])
    np.testing.assert_array_equal(unrolled(np.array([3, 1, 2]), None), [3, 1, 2])
    np.testing.assert_array_equal(
        wrapped(np.array([-5.0, 355.0, 5.0]), np.array([350.0, 360.0, 370.0]), 360.0), [355, 355, 365]
    )
    np.testing.assert_array_equal(wrapped(np.array([725.0]), np.array([0.0, 10.0]), 360.0), [365])
    np.testing.assert_array_equal(separation(np.array([1.0, 10.0]), np.array([359.0, 20.0]), 360.0), [2, 10])
    assert separation(np.array(1.0), np.array(359.0), None) == 358


def test_the_nearest_point() -> None:
    grid = np.array([40.0, 0.0, 10.0])
    index, distance = nearest_points(np.array([-3.0, 4.9, 5.1, 26.0, 41.0]), grid)
    np.testing.assert_array_equal(index, [1, 1, 2, 0, 0])
    np.testing.assert_allclose(distance, [-0.3, 0.49, -0.49, -1.4, 0.1])
    index, distance = nearest_points(np.array([359.0, -1.0, 337.0, 23.0]), GLOBE, 360.0)
    np.testing.assert_array_equal(index, [0, 0, 7, 1])
    np.testing.assert_allclose(distance * 45, [-1, -1, 22, -22])
    index, distance = nearest_points(np.array([2.0, 3.5]), np.array([3.0]))
    np.testing.assert_array_equal([index, distance], [[0, 0], [-1.0, 0.5]])
    assert spacing_of(grid) == 10 and spacing_of(np.array([3])) == 1 and spacing_of(np.array([3, 3, 5], "uint8")) == 2


@pytest.mark.parametrize(
    ("labels", "grid", "turn", "expected"),
    [
        ([0.0, 10.0099, 10.011], [20.0, 10.0, 0.0], None, [2, 1, -1]),
        ([-45.0, 360.0, 44.0], GLOBE, 360.0, [7, 0, -1]),
        ([0.0, 360.0], [0.0, 180.0, 360.0], 360.0, [0, 2]),
        (["b", "c"], ["a", "b"], None, [1, -1]),
        (np.array(["b"], object), ["a", "b"], None, [1]),
        ([1, 2], ["1", "x"], None, [0, -1]),
    ],
)
def test_the_same_points(labels: object, grid: object, turn: float | None, expected: list[int]) -> None:
    np.testing.assert_array_equal(match_points(np.asarray(labels), np.asarray(grid), turn), expected)


def globe() -> xr.Dataset:
    """Values that tell each point of a globe, (lat 4, lon 8)."""
    lat, lon = np.array([60.0, 20.0, -20.0, -60.0]), ("lon", GLOBE, {"units": "degrees_east"})
    return xr.Dataset({"t": (("lat", "lon"), np.arange(32.0).reshape(4, 8))}, {"lat": lat, "lon": lon})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda ds: ds, id="as it is"),
        pytest.param(lambda ds: ds.isel(lat=slice(None, None, -1)), id="latitudes the other way"),
        pytest.param(lambda ds: ds.assign_coords(lon=(ds.lon + 180) % 360 - 180).sortby("lon"), id="from -180"),
        pytest.param(lambda ds: ds.assign_coords(lon=(ds.lon + 180) % 360 - 180), id="from -180, not sorted"),
        pytest.param(lambda ds: ds.roll(lon=3, roll_coords=True), id="rolled"),
        pytest.param(lambda ds: ds.assign_coords(lon=ds.lon.astype("float32") + 1e-3), id="rounded"),
    ],
)
def test_grids_are_equal_if_each_label_has_its_place(change: object) -> None:
    data = globe()
    grid = {d: coordinate_of(data[d]) for d in data.dims}

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed too early")

    with dask.config.set(scheduler=refuse):
        found = onto_grid(change(data).chunk(lat=1), grid, of="the truth", like="the estimate")
    xr.testing.assert_equal(found, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(lat=slice(3)), "'lat' has 3 points in the truth and 4 in the estimate"),
        (lambda ds: ds.assign_coords(lon=ds.lon + 1), "0.0 is not among the former; .*sdaxr.baselines.interpolate"),
        (lambda ds: ds.assign_coords(lat=ds.lat + 1), r"'lat' has 4 points from 61.0 to -59.0 .* ds.interp\(lat="),
        (lambda ds: ds.isel(lon=[0, 1, 2, 3, 4, 5, 6, 6]), "315.0 is not among the former"),
        (lambda ds: ds.assign_coords(lon=np.r_[GLOBE[:7], -45.0 + 0.1]), "315.0 is not among the former"),
    ],
)
def test_grids_that_differ(change: object, message: str) -> None:
    data = globe()
    grid = {d: coordinate_of(data[d]) for d in data.dims}
    with pytest.raises(GridError, match=message):
        onto_grid(change(data), grid, of="the truth", like="the estimate")
    with pytest.raises(GridError, match="; take another"):
        onto_grid(change(data), grid, of="the truth", like="the estimate", remedy="take another")


def test_grids_without_labels_and_with_both_ends_of_the_circle() -> None:
    data = globe()
    plain = data.drop_vars("lat")
    xr.testing.assert_equal(onto_grid(plain, {"lat": 4}, of="a", like="b"), plain)
    xr.testing.assert_equal(onto_grid(plain, {"lat": coordinate_of(data.lat)}, of="a", like="b"), plain)
    closed = data.isel(lon=[0, 2, 4, 6, 0]).assign_coords(lon=[0.0, 90.0, 180.0, 270.0, 360.0])
    grid = {"lon": coordinate_of(closed.lon)}
    xr.testing.assert_equal(onto_grid(closed.assign_coords(lon=closed.lon + 1e-3), grid, of="a", like="b"), closed)
