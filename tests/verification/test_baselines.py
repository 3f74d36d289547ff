"""Baselines: exact for linear functions, second order for waves, honest about gaps and edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import DataError, UnitsError
from sdaxr.verification.baselines import climatology, interpolate
from sdaxr.verification.verify import verify

TWO_PI = 2 * np.pi


def axis(dim: str, size: int, period: float | None = None, length: float = TWO_PI) -> xr.Variable:
    attrs = {"units": "1"} | ({"periodic": 1, "period": period} if period else {})
    return xr.Variable(dim, (np.arange(size) + 0.5) * length / size, attrs)


def wave(size: int = 32, times: int = 9, period: float | None = TWO_PI) -> xr.Dataset:
    coords = {"time": 0.2 * np.arange(times), "y": axis("y", size, period), "x": axis("x", size, period)}
    ds = xr.Dataset(coords=coords)
    field = np.sin(ds.x + 2 * ds.y) + 0.1 * ds.time
    return ds.assign(u=field.transpose("time", "y", "x").assign_attrs(units="m s-1", long_name="velocity"))


def linear(size: int = 8, times: int = 9) -> xr.Dataset:
    ds = wave(size, times, None)
    field = 1 + 2 * ds.time + 3 * ds.x - ds.y
    return ds.assign(u=field.transpose("time", "y", "x").assign_attrs(units="m s-1"))


def at_stations(ds: xr.Dataset, number: int, seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    low, high = float(ds.x.min()), float(ds.x.max())
    # the corners, so that the grid lies in the hull
    corners = np.array([[a, b] for a in (low, high) for b in (low, high)])
    place = np.concatenate([corners, random.uniform(low, high, (number, 2))])
    where = {d: xr.DataArray(place[:, i], dims="station") for i, d in enumerate(("y", "x"))}
    return ds.interp(where, method="linear")


def test_linear_functions_are_reproduced_exactly_from_a_subsampled_grid():
    truth = linear()
    found = interpolate(truth.isel(time=slice(None, None, 4), y=[0, 3, 7], x=[0, 5, 7]), truth)
    xr.testing.assert_allclose(found, truth)
    assert found.u.attrs["units"] == "m s-1" and found.u.dims == ("time", "y", "x")


def test_linear_functions_are_reproduced_exactly_from_stations():
    truth = linear()
    stations = at_stations(truth, 12).isel(time=slice(None, None, 2))
    xr.testing.assert_allclose(interpolate(stations, truth), truth)


def test_gaps_are_filled_in_time_first():
    truth = linear()
    stations = at_stations(truth, 12)
    lost = np.random.default_rng(0).random(stations.u.shape) < 0.3
    lost[[0, -1]] = False
    lost[:, -1] = True  # one station never reports
    xr.testing.assert_allclose(interpolate(stations.where(~lost), truth), truth)
    grid = truth.where(np.random.default_rng(1).random(truth.u.shape) > 0.3)
    grid.u[[0, -1]] = truth.u[[0, -1]]
    grid.u[:, 3, 4] = np.nan
    xr.testing.assert_allclose(interpolate(grid, truth), truth)


@pytest.mark.parametrize("form", ["grid", "stations"])
def test_periodic_waves_have_the_error_of_linear_interpolation(form: str):
    truth = wave(32)
    coarse = truth.isel(y=slice(0, None, 2), x=slice(0, None, 2))
    if form == "stations":
        coarse = coarse.stack(station=("y", "x")).reset_index("station").drop_attrs()
        coarse.u.attrs = truth.u.attrs
    error = abs(interpolate(coarse, truth) - truth).u
    # |f''| h^2 / 8 along each axis, with h = 2 pi / 16
    bound = (1 + 4) * (TWO_PI / 16) ** 2 / 8 * (2 if form == "stations" else 1)
    assert float(error.max()) < bound
    # the seam is no worse than the middle
    assert float(error[:, :, -1].mean()) < 1.3 * float(error[:, :, 15].mean())


def test_without_periodicity_the_edge_holds():
    truth = wave(32, period=None)
    found = interpolate(truth.isel(x=slice(8, 24)), truth)
    np.testing.assert_allclose(found.u[:, :, 0], truth.u[:, :, 8])
    np.testing.assert_allclose(found.u[:, :, -1], truth.u[:, :, 23])


def test_times_are_linear_between_and_held_outside():
    truth = linear()
    found = interpolate(truth.isel(time=[2, 6]), truth)
    np.testing.assert_allclose(found.u[4], truth.u[4])
    np.testing.assert_allclose(found.u[0], truth.u[2])
    np.testing.assert_allclose(found.u[8], truth.u[6])


def test_one_space_dimension_layers_and_none():
    x = axis("site", 40, 40.0, 40.0)
    ring = xr.Dataset({"x": (("time", "site"), np.cos(TWO_PI * x.values / 40)[None].repeat(3, 0), {"units": "1"})})
    ring = ring.assign_coords(time=[0.0, 1.0, 2.0], site=x)
    found = interpolate(ring.isel(site=slice(1, None, 2)), ring)
    assert float(abs(found - ring).x.max()) < (TWO_PI / 40) ** 2 * 4 / 8 * 1.01
    truth = linear().expand_dims(layer=[0, 1]).transpose("time", "layer", "y", "x")
    truth = truth * xr.DataArray([1.0, 2.0], dims="layer")
    xr.testing.assert_allclose(interpolate(truth.isel(y=[0, 7], x=[0, 7]), truth), truth)
    state = linear().isel(x=0, y=0, drop=True).assign(b=linear().u[:, 1, 1].drop_vars(["x", "y"]))
    found = interpolate(state[["u"]].isel(time=[0, 4, 8]), state)
    assert list(found) == ["u"]
    xr.testing.assert_allclose(found, state[["u"]])


def test_interpolation_to_stations_left_out():
    truth = linear()
    here, left_out = at_stations(truth, 12), at_stations(truth, 7, seed=2)
    for source in (here, truth):
        found = interpolate(source, left_out)
        xr.testing.assert_allclose(found.u.drop_attrs(), left_out.u.drop_attrs())
        assert verify(found, left_out, metrics=["rmse"]).rmse_u.max() < 1e-10


def test_calendar_times():
    truth = linear()
    times = xr.date_range("2019-03-01", periods=9, freq="h")
    truth = truth.assign_coords(time=times)
    xr.testing.assert_allclose(interpolate(truth.isel(time=[0, 3, 8]), truth), truth)
    with pytest.raises(DataError, match="expected the same"):
        interpolate(truth, linear())
    other, noleap = (truth.convert_calendar(c, align_on="date", use_cftime=True) for c in ("360_day", "noleap"))
    with pytest.raises(DataError, match="the observations have the calendar '360_day', those of 'like' 'noleap'"):
        interpolate(other, noleap)


def test_observations_of_something_else_are_refused():
    truth = linear()
    observed = truth.assign_attrs(operator=json.dumps({"op": "compose", "steps": [{"op": "vorticity"}]}))
    with pytest.raises(DataError, match="made with vorticity"):
        interpolate(observed, truth)
    direct = truth.assign_attrs(operator=json.dumps({"op": "coarsen", "factor": 8}))
    xr.testing.assert_allclose(interpolate(direct, truth), truth)
    with pytest.raises(DataError, match="state itself"):
        interpolate(truth.rename(u="vorticity"), truth)
    with pytest.raises(UnitsError):
        interpolate(truth.assign(u=truth.u.assign_attrs(units="km h-1")), truth)
    with pytest.raises(DataError, match="no finite observation"):
        interpolate(truth * np.nan, truth)
    with pytest.raises(DataError, match="expected the same names"):
        interpolate(truth.rename(x="lon", y="lat"), truth)


def training() -> xr.Dataset:
    random = np.random.default_rng(0)
    values = random.standard_normal((6, 5, 4))
    values[4:] += 100  # not training data
    split = np.array(["train", "train", "train", "train", "valid", "test"], dtype=object)
    coords = {"time": np.arange(5.0), "site": np.arange(4.0), "split": ("trajectory", split)}
    return xr.Dataset({"x": (("trajectory", "time", "site"), values, {"units": "K"})}, coords)


@pytest.mark.parametrize("lazy", [False, True])
def test_climatology_is_the_mean_of_the_training_split(lazy: bool):
    data = training().chunk() if lazy else training()
    like = training().isel(trajectory=-1, time=slice(1, 4))
    found = climatology(data, like)
    assert found.x.dims == ("time", "site") and found.x.attrs["units"] == "K"
    assert bool(found.x.chunks) is lazy
    np.testing.assert_allclose(found.x[1], training().x[:4].mean(("trajectory", "time")))
    np.testing.assert_array_equal(found.time, like.time)
    assert "rmse_x" in verify(found, like)


def test_climatology_draws_training_states():
    like = training().isel(trajectory=-1)
    found = climatology(training(), like, members=50, seed=1)
    assert found.x.dims == ("member", "time", "site")
    assert float(abs(found.x).max()) < 50
    states = {tuple(s) for s in training().x[:4].values.reshape(-1, 4)}
    drawn = {tuple(s) for s in found.x.values.reshape(-1, 4)}
    assert drawn == states
    xr.testing.assert_equal(found, climatology(training(), like, members=50, seed=1))
    assert not found.equals(climatology(training(), like, members=50, seed=2))
    assert "crps_x" in verify(found, like)


def test_climatology_skips_failed_trajectories_and_needs_some():
    data = training().assign_coords(status=("trajectory", np.array([1, 2, 0, 1, 1, 1], "int8")))
    found = climatology(data, data.isel(trajectory=0))
    np.testing.assert_allclose(found.x[0], data.x[[0, 3]].mean(("trajectory", "time")))
    with pytest.raises(DataError, match="split 'train'"):
        climatology(data.isel(trajectory=[4, 5]), data.isel(trajectory=0))
    one = data.isel(trajectory=0, drop=True)
    np.testing.assert_allclose(climatology(one, one).x[0], one.x.mean("time"))


@pytest.mark.parametrize("form", ["grid", "gaps"])
def test_a_cut_of_a_periodic_domain_has_edges(form: str) -> None:
    truth = wave(32).isel(x=slice(0, 24))
    coarse = truth.isel(x=slice(1, 23))
    if form == "gaps":
        coarse = coarse.where((coarse.x != coarse.x[4]) | (coarse.y != coarse.y[4]))
    found = interpolate(coarse, truth)
    np.testing.assert_allclose(found.u[:, :, 0], truth.u[:, :, 1])
    np.testing.assert_allclose(found.u[:, :, -1], truth.u[:, :, 22])


def test_points_of_a_periodic_domain_are_interpolated_across_the_seam() -> None:
    truth = wave(32)
    found = interpolate(truth.isel(x=slice(0, 31)), truth)
    np.testing.assert_allclose(found.u[:, :, 31], (truth.u[:, :, 30] + truth.u[:, :, 0]) / 2)


def test_a_region_across_the_seam_is_counted_from_anywhere() -> None:
    lon = np.arange(-20.0, 21.0, 5.0)
    region = xr.Dataset({"t": (("time", "lon"), lon[None].repeat(2, 0), {"units": "K"})})
    region = region.assign_coords(time=[0.0, 1.0], lon=lon)
    other = region.assign_coords(lon=region.lon % 360)
    np.testing.assert_allclose(interpolate(region.isel(lon=slice(None, None, 2)), other).t, region.t)
    np.testing.assert_allclose(interpolate(other.isel(lon=slice(None, None, 2)), region).t, region.t)


@pytest.mark.parametrize("grid", [np.arange(-20.0, 21.0, 5.0), np.arange(-20.0, 21.0, 5.0) % 360])
@pytest.mark.parametrize("places", [[-20.0, -3.0, 4.0, 20.0], [340.0, 357.0, 4.0, 20.0]])
def test_stations_on_both_sides_of_the_seam(grid: np.ndarray, places: list[float]) -> None:
    """A function linear in the distance from 0E, from stations and from a grid with a gap."""
    lat = np.array([50.0, 55.0, 60.0])
    truth = xr.Dataset(coords={"time": [0.0, 1.0], "lat": lat, "lon": grid})
    east = (truth.lon + 180) % 360 - 180
    truth["t"] = (280 + 0.2 * east + 0.1 * truth.lat + 0 * truth.time).transpose("time", "lat", "lon")
    lon = np.tile(places, 3)
    stations = xr.Dataset(coords={"time": [0.0, 1.0], "lat": ("station", np.repeat(lat, 4)), "lon": ("station", lon)})
    east = (stations.lon + 180) % 360 - 180
    stations["t"] = (280 + 0.2 * east + 0.1 * stations.lat + 0 * stations.time).transpose("time", "station")
    np.testing.assert_allclose(interpolate(stations, truth).t, truth.t, atol=1e-9)
    np.testing.assert_allclose(interpolate(stations, stations.isel(station=[1, 6])).t, stations.t[:, [1, 6]])
    gap = truth.where((truth.lat != 55) | (truth.lon % 360 != 0))
    np.testing.assert_allclose(interpolate(gap, truth).t, truth.t, atol=1e-9)
