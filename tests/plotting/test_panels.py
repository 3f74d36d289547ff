"""What is drawn: quantities, times and members."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr
from figures import flow, meshes, observed, rows

from sdaxr.plotting.panels import time_labels, vorticity
from sdaxr.plotting.plot import plot
from sdaxr.schema import DataError


def test_vorticity_by_central_differences():
    ds = flow(size=64)
    found = vorticity(ds.u, ds.v)
    expected = (np.cos(ds.x) + np.sin(ds.y)) * (1 + ds.time)
    np.testing.assert_allclose(found, expected.transpose(*found.dims), atol=0.01)
    assert found.attrs["units"] == "1"


def test_vorticity_on_the_sphere_of_solid_rotation():
    lat, lon = np.linspace(30, 60, 31), np.linspace(0, 30, 31)
    grid = xr.Dataset(coords={"lat": lat, "lon": lon})
    u = (10 * np.cos(np.deg2rad(grid.lat)) + 0 * grid.lon).assign_attrs(units="m s-1")
    found = vorticity(u, xr.zeros_like(u))
    np.testing.assert_allclose(found, 2 * 10 / 6_371_229 * np.sin(np.deg2rad(grid.lat)) + 0 * u, rtol=0.02)
    assert found.attrs["units"] == "s-1"


def test_fields_and_times_are_the_ones_asked_for():
    post = flow(members=3)
    figure = plot(post, variable="u", times=[0.4, 1.0], members=1)
    assert rows(figure) == ["member 0", "mean", "spread"]
    drawn = np.asarray(meshes(figure)[1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(drawn, post.u[0, 5])
    spread = np.asarray(meshes(figure)[-1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(spread, post.u[:, 5].std("member", ddof=1))


def test_only_the_times_shown_are_read():
    post = flow(members=3).chunk(time=1)
    expected = plot(flow(members=3), times=2)
    poisoned = post.where(post.time != post.time[3]).map(
        lambda v: v.copy(data=v.data.map_blocks(_refuse_nan, dtype=v.dtype))
    )
    figure = plot(poisoned, times=2)
    np.testing.assert_array_equal(meshes(figure)[0].get_array(), meshes(expected)[0].get_array())


def _refuse_nan(block: np.ndarray) -> np.ndarray:
    if np.isnan(block).all() and block.size:
        raise AssertionError("a time that is not shown was read")
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
