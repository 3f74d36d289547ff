"""What is drawn: quantities, times and members."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from figures import TWO_PI, flow, meshes, observed, rows

from sdaxr.plotting.panels import choose_variable, quantity_of, time_labels
from sdaxr.plotting.plot import plot
from sdaxr.schema import DataError
from sdaxr.states.coordinates import EARTH_RADIUS


def sheet() -> xr.Dataset:
    """A periodic flow of three times."""
    return flow(size=16, times=3)


def transposed() -> xr.Dataset:
    return sheet().transpose("time", "x", "y")


def globe() -> xr.Dataset:
    """Solid rotation about an axis at 45 degrees north, with both poles and all longitudes."""
    lat, lon = np.linspace(90, -90, 73), np.arange(0.0, 360.0, 5.0)
    ds = xr.Dataset(coords={"time": [0.0, 1.0], "lat": lat, "lon": lon})
    y, x = np.deg2rad(ds.lat), np.deg2rad(ds.lon)
    u, v = 10 * (np.cos(y) - np.sin(y) * np.cos(x)), 10 * np.sin(x) + 0 * y
    ds = ds.assign({n: (f + 0 * ds.time).transpose("time", "lat", "lon") for n, f in (("u", u), ("v", v))})
    for name in "uv":
        ds[name].attrs = {"units": "m s-1"}
    return ds


def across() -> xr.Dataset:
    """A cut of the globe on both sides of the meridian where longitudes start again."""
    return globe().isel(lat=slice(10, 40)).roll(lon=5, roll_coords=True).isel(lon=slice(0, 11))


# One-sided differences beside the poles are less exact.
@pytest.mark.parametrize(("make", "error"), [(sheet, 0.005), (transposed, 0.005), (globe, 0.05), (across, 0.01)])
def test_the_vorticity_drawn_is_that_of_the_operator(make: Callable[[], xr.Dataset], error: float):
    ds = make()
    drawn = quantity_of(ds, choose_variable(ds, None))
    if "lat" in ds:
        y, x = np.deg2rad(ds.lat), np.deg2rad(ds.lon)
        expected = 2 * 10 / EARTH_RADIUS * (np.sin(y) + np.cos(y) * np.cos(x)) + 0 * ds.u
        expected = expected.where(abs(ds.lat) < 89)
    else:
        # The derivative of sin(x) by central differences is cos(x) sin(h) / h.
        step = TWO_PI / 16
        expected = (np.cos(ds.x) + np.sin(ds.y)) * (1 + ds.time) * np.sin(step) / step
    expected = expected.transpose(*drawn.dims)
    np.testing.assert_allclose(drawn, expected, atol=error * float(abs(expected).max()))
    assert drawn.attrs["units"] == ("s-1" if "lat" in ds else "1")
    assert drawn.sizes == ds.u.sizes and choose_variable(ds, None) == "vorticity"


@pytest.mark.parametrize(
    "small",
    [
        sheet().isel(x=slice(0, 2)),
        globe().isel(lat=slice(0, 3)),
        sheet().rename(x="lon"),
        sheet().drop_vars("x"),
    ],
)
def test_a_plane_without_vorticity_shows_its_velocity(small: xr.Dataset):
    """Too small, too small without the pole, half on a sphere, or without coordinates."""
    assert choose_variable(small, None) == "u"
    with pytest.raises(DataError, match="cannot plot 'vorticity'"):
        choose_variable(small, "vorticity")


def test_fields_and_times_are_the_ones_asked_for():
    post = flow(members=3)
    figure = plot(post, variable="u", times=[0.4, 1.0], members=1)
    assert rows(figure) == ["member 0", "mean", "spread"]
    drawn = np.asarray(meshes(figure)[1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(drawn, post.u[0, 5])
    spread = np.asarray(meshes(figure)[-1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(spread, post.u[:, 5].std("member", ddof=1))


def layered() -> xr.Dataset:
    both = xr.concat([flow(members=3), flow(members=3) + 100], "layer")
    return both.transpose("member", "time", "layer", ...).assign_coords(layer=[0, 1])


@pytest.mark.parametrize("variable", ["u", "vorticity"])
@pytest.mark.parametrize(
    ("data", "dim", "index"),
    [
        (flow(members=3), "time", 3),
        (layered(), "layer", 1),
        (flow(members=3).rename(member="trajectory"), "trajectory", 2),
    ],
)
def test_only_what_is_shown_is_read(data: xr.Dataset, dim: str, index: int, variable: str):
    expected = plot(data, times=2, variable=variable)
    poisoned = _poisoned(data, dim, index)
    truth = _poisoned(data.isel({data.u.dims[0]: 0}, drop=True), dim, index) if dim != "trajectory" else None
    figure = plot(poisoned, truth=truth, times=2, variable=variable)
    np.testing.assert_array_equal(meshes(figure)[-1].get_array(), meshes(expected)[-1].get_array())


def _poisoned(data: xr.Dataset, dim: str, index: int) -> xr.Dataset:
    blocks = data.chunk({dim: 1})
    blocks = blocks.where(blocks[dim] != blocks[dim][index])
    return blocks.map(lambda v: v.copy(data=v.data.map_blocks(_refuse_nan, dtype=v.dtype)))


def _refuse_nan(block: np.ndarray) -> np.ndarray:
    if np.isnan(block).all() and block.size:
        raise AssertionError("a block that is not shown was read")
    return block


def test_a_time_without_observation_says_so():
    truth = flow()
    figure = plot(flow(members=2), truth=truth, observations=observed(truth, every=8), times=3)
    texts = [t.get_text() for a in figure.axes for t in a.texts if t.get_visible()]
    assert texts == ["none"]


def test_bad_input_is_named():
    errors = observed(flow())[["u_error"]]
    for call in (lambda: plot(errors), lambda: plot(flow(members=2), observations=errors)):
        with pytest.raises(DataError, match=r"found \['u_error'\], expected a variable besides errors and flags"):
            call()
    with pytest.raises(DataError, match="Did you mean 'vorticity'"):
        plot(flow(), variable="vortcity")
    with pytest.raises(DataError, match="no data at the time"):
        plot(flow(), times=[0.3])
    with pytest.raises(DataError, match="expected one time dimension"):
        plot(flow().isel(time=0, drop=True))
    with pytest.raises(DataError, match="at most two"):
        plot(flow().expand_dims(z=3), variable="u")


def test_times_are_short_texts():
    days = xr.date_range("2001-02-27", periods=2, freq="D", calendar="360_day", use_cftime=True)
    for times, expected in [
        (xr.DataArray([0.5, 1.25], attrs={"units": "day"}), ["t = 0.5 day", "t = 1.25 day"]),
        (xr.DataArray(np.array([0, 90], "m8[m]").astype("m8[ns]")), ["0 h", "1.5 h"]),
        (xr.DataArray(np.array(["2001-02-28T06"], "M8[ns]")), ["2001-02-28 06:00"]),
        (xr.DataArray(days), ["2001-02-27 00:00", "2001-02-28 00:00"]),
    ]:
        assert time_labels(times) == expected


def test_layers_and_observations_without_time(caplog: pytest.LogCaptureFixture):
    """Of layers the first is drawn; what has no time cannot be placed, and that is said."""
    post = flow(members=2)[["u"]]
    layered = xr.concat([post, post + 100], "layer").transpose("member", "time", "layer", ...)
    np.testing.assert_array_equal(meshes(plot(layered, times=1))[0].get_array().ravel(), post.u[0, 0].values.ravel())
    with caplog.at_level(logging.INFO, "sdaxr"):
        figure = plot(flow(members=2), observations=observed(flow()).mean("time")[["u"]].rename(u="speed"), times=1)
    assert "observation" not in rows(figure) and "the observations have no time" in caplog.text


def test_times_without_observations_are_spread_evenly():
    late = observed(flow())
    late = late.assign_coords(time=late.time + 100.0)
    figure = plot(flow(members=2), observations=late, times=3)
    assert [a.get_title() for a in figure.axes[:3]] == ["t = 0", "t = 0.8", "t = 1.6"]
