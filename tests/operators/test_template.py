"""Labels without fields: sizes, periods, parts; and operators on cuts of periodic domains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.operators.template import CoordTemplate, Template, VariableTemplate
from sdaxr.schema import DataError, GridError, OperatorError

TURN = 2 * np.pi


def plane(size: int = 8) -> xr.Dataset:
    """A velocity on a doubly periodic plane, (time 2, y, x)."""
    centres = (np.arange(size) + 0.5) * TURN / size
    attrs = {"units": "m", "periodic": 1, "period": TURN}
    coords = {"time": [0.0, 1.0], "y": ("y", centres, attrs), "x": ("x", centres, attrs)}
    draw = np.random.default_rng(0)
    fields = {n: (("time", "y", "x"), draw.normal(size=(2, size, size)), {"units": "m s-1"}) for n in "uv"}
    return xr.Dataset(fields, coords)


def globe() -> xr.Dataset:
    """A wind on a globe, (time 2, lat 5, lon 12)."""
    lat, lon = np.linspace(60, -60, 5), np.arange(0.0, 360.0, 30.0)
    draw = np.random.default_rng(1)
    fields = {n: (("time", "lat", "lon"), draw.normal(size=(2, 5, 12)), {"units": "m s-1"}) for n in "uv"}
    return xr.Dataset(fields, {"time": [0.0, 1.0], "lat": lat, "lon": lon})


def test_sizes_come_from_coordinates_or_are_given() -> None:
    variables = {"u": VariableTemplate(("time", "x"))}
    template = Template(variables, {"x": CoordTemplate(np.arange(3.0))}, {"time": 2})
    assert template.shape("u") == (2, 3)
    with pytest.raises(DataError, match=r"dimensions \['time'\] without a size"):
        Template(variables, {"x": CoordTemplate(np.arange(3.0))})
    with pytest.raises(GridError, match=r"'u' has shape \(2,\), expected {'time': 2, 'x': 3}"):
        template.to_dataset({"u": np.zeros(2)})
    with pytest.raises(GridError, match="'time' has no coordinate"):
        template.coordinate("time")
    assert template.period("time") is None and template.turn("x") is None


@pytest.mark.parametrize(
    ("indices", "period"),
    [
        (slice(None), TURN),
        (slice(1, None, 2), TURN),
        (slice(None, None, -1), TURN),
        ([3, 4, 5, 6, 7, 0, 1, 2], TURN),
        (slice(0, 4), None),
        (slice(0, None, 3), None),
        ([5], None),
    ],
)
def test_parts_say_whether_they_are_periodic(indices: list[int] | slice, period: float | None) -> None:
    data = plane()
    part = Template.from_dataset(data).take("x", indices)
    assert part.period("x") == Template.from_dataset(data.isel(x=indices)).period("x") == period
    assert ("period" in part.coords["x"].attrs) == ("periodic" in part.coords["x"].attrs) == (period is not None)
    assert part.period("y") == TURN
    np.testing.assert_array_equal(part.coordinate("x"), data.x[indices])


def test_blocks_across_the_seam() -> None:
    data = globe().roll(lon=1, roll_coords=True)
    blocks = Template.from_dataset(data).block_mean("lon", 4)
    np.testing.assert_array_equal(blocks.coordinate("lon"), [375.0, 495.0, 615.0])
    assert blocks.period("lon") == 360.0
    assert Template.from_dataset(globe().isel(lon=slice(0, 8))).block_mean("lon", 4).period("lon") is None


OPERATORS = [op.vorticity(), op.coarsen(2), op.region(x=(0.0, 3.0)), op.subsample(2)]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_operators_do_not_wrap_around_a_cut(operator: op.Operator) -> None:
    data = plane().isel(x=slice(0, 6), y=slice(2, 8))
    bounded = data.assign_coords({d: (d, data[d].values, {"units": "m"}) for d in ("y", "x")})
    found, expected = operator.apply(data), operator.apply(bounded)
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name], expected[name])
    assert Template.from_dataset(found).period("x") is None
    whole = operator.apply(plane())
    assert (Template.from_dataset(whole).period("x") is None) == (operator.name == "region")


def test_points_are_not_interpolated_across_a_cut() -> None:
    data = plane().isel(x=slice(0, 6))
    for where in ([5.0], [-0.1], [6.2]):
        assert op.points({"x": where, "y": [1.0]}).apply(plane())["u"].notnull().all()
        with pytest.raises(OperatorError, match="station 0 .* lies outside the grid"):
            op.points({"x": where, "y": [1.0]}).apply(data)
    half = globe().isel(lon=slice(0, 6))
    with pytest.raises(OperatorError, match="lies outside the grid"):
        op.points({"lon": [170.0], "lat": [0.0]}).apply(half)
    east = op.points({"lon": [-215.0], "lat": [0.0]}).apply(half)  # 145 degrees east
    np.testing.assert_allclose(east["u"], op.points({"lon": [145.0], "lat": [0.0]}).apply(half)["u"])


def test_a_region_that_lies_across_the_seam() -> None:
    data = globe().isel(lon=[10, 11, 0, 1])
    np.testing.assert_array_equal(Template.from_dataset(data).line("lon"), [300, 330, 360, 390])
    found = op.region(lon=(-40.0, 10.0)).apply(data)
    np.testing.assert_array_equal(found["u"], data["u"].isel(lon=[1, 2]))
    np.testing.assert_array_equal(found.lon, [330, 360])
    at = op.points({"lon": [345.0], "lat": [0.0]}).apply(data)["u"]
    np.testing.assert_allclose(at[:, 0], data["u"].sel(lat=0).isel(lon=[1, 2]).mean("lon"))
    with pytest.raises(OperatorError, match="lies outside the grid"):
        op.points({"lon": [180.0], "lat": [0.0]}).apply(data)


def test_derivatives_do_not_mind_where_the_seam_is() -> None:
    data = globe()
    found = op.vorticity().apply(data)["vorticity"]
    rolled = op.vorticity().apply(data.roll(lon=5, roll_coords=True))["vorticity"]
    np.testing.assert_allclose(rolled, found.roll(lon=5))


def test_bounds_include_points_up_to_rounding() -> None:
    data = globe().assign_coords(lat=np.linspace(60, -60, 5) * (1 + 1e-6))
    assert op.region(lat=(-30.0, 30.0)).apply(data).sizes["lat"] == 3


def test_time_comes_first_whatever_the_order_of_the_data():
    data = plane()
    turned = data.transpose("x", "time", "y")
    assert op.identity().apply(turned)["u"].dims[0] == "time"
    xr.testing.assert_allclose(op.coarsen(4).apply(turned).transpose("time", "y", "x"), op.coarsen(4).apply(data))


def test_a_dimension_without_coordinate_is_fine():
    data = xr.Dataset({"x": (("time", "site"), np.arange(12.0).reshape(2, 6))}, {"time": [0.0, 1.0]})
    np.testing.assert_array_equal(op.subsample(2).apply(data)["x"], data["x"][:, ::2])
    assert "site" not in op.coarsen(2).apply(data).coords
    with pytest.raises(GridError, match="'site' has no coordinate"):
        op.points({"site": [1.0]}).apply(data)


def test_arrays_have_the_shape_of_their_labels():
    template = Template.from_dataset(plane())
    arrays = template.arrays(plane())
    with pytest.raises(GridError, match=r"'v' has shape \(2, 8, 7\), expected {'time': 2, 'y': 8, 'x': 8}"):
        template.to_dataset(arrays | {"v": arrays["v"][..., 1:]})
    with pytest.raises(DataError, match=r"found the dimensions \['y', 'x'\] without a size"):
        replace(template, coords={"time": template.coords["time"]}, sizes={})


def test_names_along_a_coarsened_dimension_have_no_mean():
    data = plane().assign_coords(town=("x", list("abcdefgh")), region=("y", np.arange(8.0)))
    found = op.coarsen(4).apply(data)
    assert "town" not in found.coords
    np.testing.assert_allclose(found.region, [1.5, 5.5])
