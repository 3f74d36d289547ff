"""Correlated errors: drawn, recorded, read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from instruments import CALENDARS, TURN, aligned, make_truth, soundings

from sdaxr import operators as op
from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.matching import match
from sdaxr.observations.observe import is_point_form, observe, operator_for
from sdaxr.operators import Template
from sdaxr.schema import DataError, SdaxrError


def distances(values, period=None):
    d = np.abs(np.subtract.outer(values, values))
    return d if period is None else np.minimum(d, period - d)


def test_the_noise_is_correlated_as_asked():
    """exp(-|dt| / 0.4 - |dx| / 1.5) the shorter way round, independent along y and between the variables."""
    one = make_truth(dtype=np.float64)
    truth = xr.concat([one] * 80, "y").assign_coords(y=np.arange(640.0))
    found = observe(truth, op.identity(), error=0.5, correlation={"time": 0.4, "x": 1.5}, seed=3)
    noise = {n: ((found[n] - truth[n]) / 0.5).transpose("y", "time", "x").values for n in ("u", "v")}
    expected = np.kron(np.exp(-distances(truth.time.values) / 0.4), np.exp(-distances(truth.x.values, TURN) / 1.5))
    flat = noise["u"].reshape(640, -1)
    np.testing.assert_allclose(flat.T @ flat / 640, expected, atol=5 * np.sqrt(2 / 640))
    others = (noise["u"][1:] * noise["u"][:-1]).mean(), (noise["u"] * noise["v"]).mean()
    assert np.abs(others).max() < 0.05


@pytest.mark.parametrize("times", CALENDARS)
def test_scales_are_recorded_and_survive_the_disk(tmp_path, times):
    scale = {"time": 0.3 if times == "float" else 5400.0}
    truth = make_truth(times)
    found = observe(truth, op.coarsen(4), error=0.1, correlation=scale, missing=0.2)
    assert json.loads(found["u_error"].attrs["correlation_scales"]) == scale
    assert found.attrs["error_model"] == "correlated Gaussian"
    found.to_zarr(tmp_path / "obs.zarr", zarr_format=3, consolidated=False)
    found.to_netcdf(tmp_path / "obs.nc")
    template = op.coarsen(4).bind(Template.from_dataset(truth)).template
    seen = {"u": np.flatnonzero(np.isfinite(aligned(found, truth)["u"][0]))}
    expected = error_correlation(found, template, seen)
    assert ((expected > 0) & (expected < 1)).any()
    with (
        xr.open_zarr(tmp_path / "obs.zarr", consolidated=False) as zarr,
        xr.open_dataset(tmp_path / "obs.nc") as netcdf,
    ):
        for again in (zarr, netcdf):
            np.testing.assert_array_equal(error_correlation(again, template, seen), expected)


def test_the_correlation_matrix_of_what_is_there():
    """In the order of the values, with gaps; of a calendar in seconds; a variable without scales is independent."""
    truth = make_truth("datetime")
    found = observe(truth, op.identity(), error=0.1, correlation={"time": 7200.0, "y": 2.0}, missing=0.5)
    found["v_error"].attrs.pop("correlation_scales")
    template = Template.from_dataset(truth)
    where = {n: np.flatnonzero(np.isfinite(pair[0])) for n, pair in match(found, template).items()}
    matrix = error_correlation(found, template, where)
    t, y, x = np.unravel_index(where["u"], (6, 8, 8))
    expected = np.exp(-distances(t) * 3600 / 7200 - distances(truth.y.values[y], TURN) / 2) * (x[:, None] == x)
    count = len(t)
    np.testing.assert_allclose(matrix[:count, :count], expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(matrix[count:, count:], np.eye(len(where["v"])))
    assert not matrix[:count, count:].any()
    assert error_correlation(observe(truth, op.identity(), error=0.1), template, where) is None


def test_points_are_correlated_by_their_coordinates(truth):
    """Where points differ in a coordinate that is not named, their errors are independent."""
    data = soundings(truth)
    data = data.assign_coords(time=("obs", np.repeat(truth.time.values[:4], 5)), x=("obs", np.tile(data.x[:5], 4)))
    data["u_error"].attrs["correlation_scales"] = '{"time": 0.3, "x": 2}'
    for y, own in ((data.y.values, 0.0), (np.full(20, 1.0), 1.0)):
        placed = data.assign_coords(y=("obs", y))
        template = operator_for(placed).bind(Template.from_dataset(truth)).template
        apart = {n: distances(placed[n].values) for n in ("time", "x")}
        expected = np.exp(-apart["time"] / 0.3 - apart["x"] / 2)
        expected = np.where(np.eye(20) > 0, 1.0, own * expected)
        np.testing.assert_allclose(error_correlation(placed, template, {"u": np.arange(20)}), expected, rtol=1e-6)
    drawn = observe(truth, operator_for(placed), error=0.1, correlation={"time": 0.3, "x": 2.0})
    assert is_point_form(drawn)
    twice = placed.assign_coords(x=("obs", np.full(20, 1.0)))
    with pytest.raises(DataError, match="two values of 'u' are at the same place"):
        observe(truth, operator_for(twice), error=0.1, correlation={"time": 0.3, "x": 2.0})


def test_stations_are_correlated_by_their_distance(truth):
    found = observe(truth, op.points({"x": [0.1, 2.0, 6.2], "y": [1.0, 1.0, 3.0]}), error=0.1, correlation={"x": 2.0})
    template = operator_for(found).bind(Template.from_dataset(truth)).template
    matrix = error_correlation(found, template, {"u": np.arange(6)})
    expected = np.array([[1, np.exp(-1.9 / 2), 0], [np.exp(-1.9 / 2), 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(matrix, np.kron(np.eye(2), expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("correlation", "message"),
    [
        ({"tme": 0.1}, "correlated along 'tme'; expected one of time, x, y. Did you mean 'time'"),
        ({"time": 0.0}, "correlation= is 0.0 along 'time', expected a distance above 0"),
        ({"time": "long"}, "found correlation=.*'long'.*, expected a mapping to a number"),
        ({}, "correlation= is {}, expected distances by coordinate"),
    ],
)
def test_impossible_correlations(truth, correlation, message):
    with pytest.raises(SdaxrError, match=message):
        observe(truth, op.identity(), error=0.1, correlation=correlation)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time: 0.3", "'correlation_scales' of 'u_error' is 'time: 0.3', expected a JSON object"),
        ("[0.3]", r"'correlation_scales' of 'u_error' is \[0.3\], expected distances"),
        ('{"level": 0.3}', "'u' are correlated along 'level'; expected one of time, x, y"),
    ],
)
def test_attributes_that_cannot_be_read(truth, text, message):
    found = observe(truth, op.identity(), error=0.1)
    found["u_error"].attrs["correlation_scales"] = text
    with pytest.raises(DataError, match=message):
        error_correlation(found, Template.from_dataset(truth), {"u": np.arange(9), "v": np.arange(2)})


def test_too_many_correlated_errors(truth, monkeypatch):
    monkeypatch.setattr("sdaxr.observations.correlation.LARGEST", 100)
    found = observe(truth, op.identity(), error=0.1, correlation={"time": 1.0})
    with pytest.raises(DataError, match="101 observations with correlated errors in one network, expected at most 100"):
        error_correlation(found, Template.from_dataset(truth), {"u": np.arange(101)})


def test_errors_on_a_cut_domain_are_not_correlated_around_it() -> None:
    """Three quarters of a circle: between its ends the distance is through the domain, not across the cut."""
    truth = make_truth(dtype=np.float64)
    for data, period in ((truth, TURN), (truth.isel(x=slice(0, 6)), None), (truth.isel(x=slice(None, None, 2)), TURN)):
        found = observe(data.isel(time=[0], y=[0]), op.identity(), error=0.1, correlation={"x": 2.0})
        template = Template.from_dataset(data.isel(time=[0], y=[0]))
        matrix = error_correlation(found, template, {"u": np.arange(data.sizes["x"])})
        np.testing.assert_allclose(matrix, np.exp(-distances(data.x.values, period) / 2.0))


def test_longitudes_of_stations_are_apart_the_shorter_way_round() -> None:
    lon = np.arange(0.0, 280.0, 40.0)
    fields = {"t": (("time", "lat", "lon"), np.zeros((2, 3, 7)))}
    truth = xr.Dataset(fields, {"time": [0.0, 1.0], "lat": [0.0, 10.0, 20.0], "lon": lon})
    found = observe(truth, op.points({"lon": [10.0, 230.0], "lat": [5.0, 5.0]}), error=0.1, correlation={"lon": 50.0})
    template = operator_for(found).bind(Template.from_dataset(truth)).template
    matrix = error_correlation(found, template, {"t": np.arange(2)})
    assert matrix[0, 1] == pytest.approx(np.exp(-140 / 50))
