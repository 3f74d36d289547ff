"""Observations: the noise that is drawn, what is written, what survives the disk, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from sdaxr import operators as op
from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.observe import align, is_point_form, observe, operator_for, validate
from sdaxr.operators import Template
from sdaxr.schema import DataError, GridError, OperatorError, OptionError, UnitsError

TURN = 2 * np.pi
CALENDARS = {
    "float": 0.2 * np.arange(6),
    "timedelta": np.arange(6) * np.timedelta64(90, "m").astype("m8[ns]"),
    "datetime": np.datetime64("2019-03-01", "ns") + np.arange(6) * np.timedelta64(1, "h"),
    "cftime": xr.date_range("2001-02-27", periods=6, freq="12h", calendar="noleap", use_cftime=True),
}


def make_truth(times="float", size=8, dtype=np.float32):
    centres = (np.arange(size) + 0.5) * TURN / size
    grid = {"units": "m", "periodic": 1, "period": TURN}
    draw = np.random.default_rng(0)
    coords = {
        "time": ("time", CALENDARS[times], {"units": "s"} if times == "float" else {}),
        "y": ("y", centres, grid),
        "x": ("x", centres, grid),
    }
    attrs = {"units": "m s-1", "long_name": "velocity", "standard_name": "eastward_wind"}
    fields = {n: (("time", "y", "x"), draw.normal(size=(6, size, size)).astype(dtype), attrs) for n in ("u", "v")}
    return xr.Dataset(fields, coords)


@pytest.fixture
def truth():
    return make_truth()


def with_sites(truth):
    return observe(truth, op.points({"x": [0.1, 2.0, 6.2], "y": [1.0, 2.0, 3.0]}), error=0.1)


def aligned(observations, truth, **options):
    bound = operator_for(observations, **options).bind(Template.from_dataset(truth))
    return align(observations, bound.template, **options)


# Drawing


def test_the_noise_is_gaussian_with_the_error_that_is_written(truth):
    clean = op.saturate().apply(make_truth(size=64))
    found = observe(make_truth(size=64), op.saturate(), error={"u": 0.1, "v": 2.0}, seed=3)
    for name, sd in {"u": 0.1, "v": 2.0}.items():
        noise = ((found[name] - clean[name]) / sd).values
        assert abs(float(noise.mean())) < 4 / np.sqrt(noise.size)
        assert abs(float(noise.std()) - 1) < 4 / np.sqrt(2 * noise.size)
        assert abs(float((noise[:, 1:] * noise[:, :-1]).mean())) < 4 / np.sqrt(noise.size)
        np.testing.assert_allclose(found[f"{name}_error"], sd, rtol=1e-6)
        assert found[name].dtype == np.float32
    assert abs(float(xr.corr(found["u"] - clean["u"], found["v"] - clean["v"]))) < 0.05


def test_the_seed_decides(truth):
    first, again, other = (observe(truth, op.coarsen(2), error=0.1, seed=s, missing=0.3) for s in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert not np.allclose(first["u"], other["u"], equal_nan=True)
    full = observe(truth, op.coarsen(2), error=0.1, seed=1)
    xr.testing.assert_allclose(first["u"], full["u"].where(first["u"].notnull()))


def test_what_is_written(truth):
    found = observe(truth, op.coarsen(4), every=2, start=1, error=0.1, seed=7, missing=0.25)
    np.testing.assert_array_equal(found.time, truth.time[1::2])
    np.testing.assert_array_equal(found.window, truth.time[[0, -1]])
    assert found.window.dims == ("bound",)
    assert found["u"].attrs["ancillary_variables"] == "u_error"
    assert found["u"].attrs["units"] == found["u_error"].attrs["units"] == "m s-1"
    assert found["u_error"].attrs["standard_name"] == "eastward_wind standard_error"
    assert op.from_json(found.attrs["operator"]) == op.coarsen(4)
    kept = {k: found.attrs[k] for k in ("every", "start", "seed", "missing", "error_model", "Conventions")}
    assert kept == {
        "every": 2,
        "start": 1,
        "seed": 7,
        "missing": 0.25,
        "error_model": "independent Gaussian",
        "Conventions": "CF-1.11",
    }


@pytest.mark.parametrize(
    ("noise", "skewness", "kurtosis"),
    [("gaussian", 0.0, 3.0), ("laplace", 0.0, 6.0), ("uniform", 0.0, 1.8), ("lognormal", 6.185, None)],
)
def test_families_of_errors_have_one_standard_deviation(noise: str, skewness: float, kurtosis: float | None):
    """Third and fourth moments are those of the textbook; a lognormal's fourth is beyond any sample."""
    truth = make_truth(size=128)
    found = observe(truth, op.select("u"), error=0.3, noise=noise, seed=1)
    errors = ((found.u - truth.u) / 0.3).values
    assert errors.mean() == pytest.approx(0, abs=0.01) and errors.std() == pytest.approx(1, rel=0.03)
    assert (errors**3).mean() == pytest.approx(skewness, abs=0.05, rel=0.3)
    if kurtosis is not None:
        assert (errors**4).mean() == pytest.approx(kurtosis, rel=0.05)
    assert found.attrs["error_model"].lower() == f"independent {noise}"


def test_families_that_are_not_there_or_not_correlated_are_refused():
    truth = make_truth()
    with pytest.raises(OptionError, match="noise=.*Did you mean 'laplace'"):
        observe(truth, op.identity(), error=0.1, noise="laplac")
    with pytest.raises(OptionError, match="found correlation= beside noise='uniform'"):
        observe(truth, op.identity(), error=0.1, noise="uniform", correlation={"x": 1.0})


def test_missing_is_a_fraction():
    found = observe(make_truth(size=64), op.identity(), error=0.1, missing=0.3)
    assert abs(float(found["u"].isnull().mean()) - 0.3) < 0.02
    assert abs(float((found["u"].isnull() & found["v"].isnull()).mean()) - 0.09) < 0.02


def test_an_error_field_is_broadcast(truth):
    sd = xr.DataArray(np.linspace(0.1, 0.8, 8), {"y": truth.y}, attrs={"units": "m s-1"})
    found = observe(truth, op.identity(), error=sd)
    assert found["u_error"].dims == ("y",)
    result = aligned(found, truth)
    np.testing.assert_allclose(result["u"][1][0, :, 3], sd, rtol=1e-6)


def test_land_is_not_observed(truth):
    land = truth.where((truth.x > 1) | (truth.y > 1))
    found = observe(land, op.coarsen(2), error=0.1)
    np.testing.assert_array_equal(found["u"].isnull(), op.coarsen(2).apply(land)["u"].isnull())
    assert 0 < int(found["u"].isnull().sum()) < found["u"].size


def test_one_trajectory_and_dask_are_welcome(truth):
    one = truth.expand_dims(trajectory=[3]).assign_coords(split=("trajectory", np.array(["test"], object)))
    found = observe(one.chunk(time=1), op.coarsen(4), error=0.1)
    assert found["u"].dims == ("time", "y", "x")
    xr.testing.assert_equal(
        found["u"].drop_vars(["trajectory", "split"]), observe(truth, op.coarsen(4), error=0.1)["u"]
    )


def test_static_fields_in_the_truth_are_left_out(truth):
    found = observe(truth.assign(orography=truth["u"][0] * 0), op.identity(), error=0.1)
    assert set(found.data_vars) == {"u", "v", "u_error", "v_error"}


def test_a_users_function_is_named_and_cannot_be_read_back(truth):
    found = observe(truth, op.function(lambda f: f, name="mine"), error=0.1)
    assert json.loads(found.attrs["operator"]) == {"op": "function", "name": "mine"}
    with pytest.raises(OperatorError, match="'mine'.*operator="):
        operator_for(found)


OPERATORS = [
    op.coarsen(4),
    op.points({"x": [0.1, 6.2], "y": [1.0, 2.0]}) >> op.saturate(),
    op.time_difference(),
]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@pytest.mark.parametrize("times", CALENDARS)
def test_disk_and_back(tmp_path, times, operator):
    truth = make_truth(times)
    every = {} if operator == op.time_difference() else {"every": 2}
    found = observe(truth, operator, error=0.1, missing=0.2, **every)
    found.to_zarr(tmp_path / "obs.zarr", zarr_format=3, consolidated=False)
    found.to_netcdf(tmp_path / "obs.nc")
    with xr.open_zarr(tmp_path / "obs.zarr", consolidated=False) as zarr:
        xr.testing.assert_identical(zarr.load(), found)
    with xr.open_dataset(tmp_path / "obs.nc") as netcdf:
        xr.testing.assert_identical(netcdf.load(), found)
        result = aligned(netcdf, truth)
    assert np.isfinite(result["u"][0]).sum() == found["u"].count()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"error": 0.0}, DataError, "error of 'u' is 0.0, expected a finite standard deviation above 0"),
        ({"error": -1.0}, DataError, "error of 'u' is -1.0"),
        ({"error": np.nan}, DataError, "error of 'u' is nan"),
        ({"error": {"u": 0.1}}, DataError, "no entry for 'v'"),
        ({"error": {"u": 0.1, "w": 0.1}}, DataError, "error= names 'w'; expected one of u, v"),
        ({"error": xr.DataArray([0.1], dims="z")}, DataError, r"dimensions \['z'\]"),
        ({"error": xr.DataArray([0.1], {"x": [9.0]})}, GridError, "not on the grid of the observations"),
        ({"error": xr.DataArray(0.1, attrs={"units": "K"})}, UnitsError, "units 'K' in error=, expected 'm s-1'"),
        ({"error": 0.1, "every": 0}, OptionError, "every is 0, expected 1 or more"),
        ({"error": 0.1, "start": -1}, OptionError, "start is -1"),
        ({"error": 0.1, "start": 6}, OptionError, "start=6 is beyond the 6 times"),
        ({"error": 0.1, "missing": 1.0}, OptionError, "missing is 1.0"),
    ],
)
def test_bad_options_are_explained(truth, options, kind, message):
    with pytest.raises(kind, match=message):
        observe(truth, op.identity(), **options)


def test_bad_truths_are_explained(truth):
    with pytest.raises(DataError, match=r"2 along 'trajectory', expected one; select it, truth.isel\(trajectory=0\)"):
        observe(xr.concat([truth, truth], "trajectory"), op.identity(), error=0.1)
    with pytest.raises(DataError, match="expected 'time' with a coordinate"):
        observe(truth.rename(time="t"), op.identity(), error=0.1)
    with pytest.raises(OptionError, match="has no 'time'"):
        observe(truth, op.time_difference(), every=2, error=0.1)
    gap = truth.copy(deep=True)
    gap["v"][3, 1, 2:4] = np.nan
    with pytest.raises(DataError, match=r"'v' has 2 NaN .* the first at 0\.6.*interpolate_na"):
        observe(gap, op.identity(), error=0.1)


# Correlated errors


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
    where = {n: np.flatnonzero(np.isfinite(pair[0])) for n, pair in align(found, template).items()}
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
        ({"time": "long"}, "correlation= is 'long' along 'time'"),
        ({}, "correlation= is {}, expected distances by coordinate"),
    ],
)
def test_impossible_correlations(truth, correlation, message):
    with pytest.raises(DataError, match=message):
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


# Matching


def test_alignment_puts_values_where_they_belong(truth):
    found = observe(truth, op.coarsen(2), every=3, error=0.5)
    result = aligned(found, truth)
    value, error = result["u"]
    assert value.shape == error.shape == (6, 4, 4)
    np.testing.assert_array_equal(value[::3], found["u"])
    assert np.isnan(value[[1, 2, 4, 5]]).all()
    np.testing.assert_array_equal(np.isnan(value), np.isnan(error))
    assert (error[::3] == 0.5).all()
    assert result.dropped == {}


def test_alignment_does_not_mind_order_or_parts(truth):
    found = observe(truth, op.identity(), error=0.5)
    part = found[["u", "u_error"]].isel(time=[4, 1], x=slice(6, 2, -1)).transpose("x", "y", "time")
    part = part.assign_coords(x=part.x.astype("float32"))
    value, _ = aligned(part, truth)["u"]
    assert list(aligned(part, truth)) == ["u"]
    np.testing.assert_array_equal(value[[1, 4], :, 3:7], found["u"][[1, 4], :, 3:7])
    assert np.isfinite(value).sum() == 2 * 8 * 4


def test_stations_may_be_held_out(truth):
    found = with_sites(truth)
    value, _ = aligned(found.isel(station=[2, 0]), truth)["u"]
    np.testing.assert_array_equal(value[:, [0, 2]], found["u"][:, [0, 2]])
    assert np.isnan(value[:, 1]).all()
    moved = found.assign_coords(x=("station", [0.1, 2.5, 6.2]))
    with pytest.raises(GridError, match=r"station 1 has x=2.5 in the observations, but the operator looks at x=2.0"):
        aligned(moved, truth)


def test_longitudes_may_count_from_anywhere():
    lon = np.arange(0.0, 360.0, 45.0)
    attrs = {"units": "degrees_east", "standard_name": "longitude"}
    fields = {"t": (("time", "lon"), np.arange(16.0).reshape(2, 8))}
    truth = xr.Dataset(fields, {"time": [0.0, 1.0], "lon": ("lon", lon, attrs)})
    found = observe(truth, op.identity(), error=0.1)
    other = found.assign_coords(lon=("lon", (lon + 180) % 360 - 180, attrs)).sortby("lon")
    np.testing.assert_array_equal(aligned(other, truth)["t"][0], found["t"])


def test_quality_flags_are_no_measurements(truth):
    found = observe(truth, op.identity(), error=0.1)
    flagged = found.assign(u_qc=xr.zeros_like(found["u"]))
    assert list(aligned(flagged, truth)) == ["u", "v"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda o: o.rename(u="U", u_error="U_error"), DataError, "no variable 'U'; expected one of u, v"),
        (lambda o: o.drop_vars("u_error"), DataError, r"'u' has no 'u_error'.*ds\['u_error'\] ="),
        (
            lambda o: o.assign(u_error=0.0 * o["u_error"]),
            DataError,
            "'u_error' is 0.0 where 'u' has a value, 384 times",
        ),
        (lambda o: o.assign(u_error=-o["u_error"]), DataError, "expected a finite standard deviation above 0"),
        (lambda o: o.assign(u_error=o["u_error"] * np.nan), DataError, "'u_error' is nan"),
        (
            lambda o: o.assign(u_error=o["u_error"].expand_dims(z=2)),
            DataError,
            r"'u_error' has the dimensions \['z'\]",
        ),
        (lambda o: o.assign(u=o["u"] / 0), DataError, "infinite values"),
        (lambda o: o.assign(u=o["u"].assign_attrs(units="km h-1")), UnitsError, "'u' has units 'km h-1'"),
        (lambda o: o.assign(u_error=o["u_error"].assign_attrs(units="K")), UnitsError, "'u_error' has units 'K'"),
        (lambda o: o.expand_dims(member=2), DataError, "'u' has the dimensions .*'member'.*expected"),
        (lambda o: o.isel(x=0), DataError, "'u' has the dimensions"),
        (lambda o: o.rename(x="lon"), DataError, "'u' has the dimensions"),
        (lambda o: o.assign_coords(time=o.time + 0.05), DataError, r"time 0.05 is off the steps.*nearest step is 0\.0"),
        (
            lambda o: o.assign_coords(time=o.time + 0.4),
            DataError,
            r"time 1\.2\d* lies outside the window.*outside=\"drop\"",
        ),
        (lambda o: o.assign_coords(time=CALENDARS["datetime"]), DataError, "of kind datetime, expected float"),
        (lambda o: o.drop_vars("time"), DataError, "'time' has no coordinate"),
        (lambda o: o.isel(time=[0, 0, 1]), DataError, "label 0.0 of 'time' is there more than once"),
        (lambda o: o.assign_coords(time=o.time.assign_attrs(units="h")), UnitsError, "'time' has units 'h'"),
        (lambda o: o.assign_coords(x=o.x + 0.1), GridError, r"8 values from 0.49.*not on the grid.*8 values from 0.39"),
        (lambda o: o.assign_coords(x=o.x * 9), GridError, "not on the grid"),
        (lambda o: o[["u_error"]].drop_vars("u_error"), DataError, "at least one measured variable"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_mismatches_are_explained(truth, change, kind, message):
    found = change(observe(truth, op.identity(), error=0.1))
    template = op.identity().bind(Template.from_dataset(truth)).template
    with pytest.raises(kind, match=message):
        validate(found, template)


def test_what_lies_outside_is_dropped_on_request_and_counted(truth):
    found = observe(truth, op.identity(), error=0.1)
    window = truth.isel(time=slice(0, 4))
    with pytest.raises(DataError, match="2 of 6 do"):
        aligned(found, window)
    result = aligned(found, window, outside="drop")
    assert result.dropped == {"u": 128, "v": 128}
    np.testing.assert_array_equal(result["u"][0], found["u"][:4])
    with pytest.raises(OptionError, match="Did you mean 'drop'"):
        aligned(found, window, outside="drp")
    off = found.assign_coords(time=found.time + 0.05)
    with pytest.raises(DataError, match="off the steps"):
        aligned(off, window, outside="drop")
    part = truth.isel(x=slice(0, 4))
    assert aligned(found, part, outside="drop").dropped == {"u": 192, "v": 192}


# The point form


def soundings(truth, number=20, seed=0):
    """Measurements of a truth at random places and times, as somebody's own file would hold them."""
    draw = np.random.default_rng(seed)
    step = draw.integers(0, truth.sizes["time"], number)
    places = {d: draw.uniform(0, TURN, number) for d in ("y", "x")}
    at = {"time": ("obs", truth.time.values[step]), **{d: ("obs", p) for d, p in places.items()}}
    values = draw.normal(size=number)
    return xr.Dataset({"u": ("obs", values, {"units": "m s-1"}), "u_error": 0.1}, at)


@pytest.mark.parametrize("times", CALENDARS)
def test_points_are_matched_one_by_one(times):
    truth = make_truth(times, dtype=np.float64)
    data = soundings(truth)
    assert is_point_form(data)
    result = aligned(data, truth)
    np.testing.assert_array_equal(result["u"][0], data["u"])
    seen = operator_for(data).apply(truth)["u"]
    at = {"y": [float(data.y[5])], "x": [float(data.x[5])]}
    alone = op.points(at).apply(truth.sel(time=[data.time.values[5]]))["u"]
    np.testing.assert_allclose(seen[5], alone.squeeze())


def test_points_follow_the_operator_they_carry(truth):
    data = soundings(truth).assign_attrs(operator=op.saturate().to_json())
    assert operator_for(data).steps[0] == op.saturate()
    drawn = observe(truth, operator_for(soundings(truth)), error=0.1)
    assert is_point_form(drawn)
    assert operator_for(drawn) == operator_for(soundings(truth))
    np.testing.assert_array_equal(aligned(drawn, truth)["u"][0], drawn["u"])


def test_points_outside_are_refused_or_dropped(truth):
    data = soundings(truth)
    late = data.assign_coords(time=data.time + 0.4)
    outside = int((late.time > 1.1).sum())
    with pytest.raises(OperatorError, match=r"'time' of obs .* lie outside too; expected 0\.0 to 1\.0"):
        aligned(late, truth)
    assert 0 < outside < 20
    assert aligned(late, truth, outside="drop").dropped == {"u": outside}
    with pytest.raises(OperatorError, match="is not a step of the state"):
        aligned(data.assign_coords(time=data.time - 0.07), truth, outside="drop")


def test_points_need_their_time_and_place(truth):
    data = soundings(truth)
    with pytest.raises(DataError, match="expected 'time' and the position"):
        operator_for(data.drop_vars("time"))
    with pytest.raises(DataError, match="'x' of measurement 2 is nan"):
        operator_for(data.assign_coords(x=data.x.where(np.arange(20) != 2)))
    with pytest.raises(OperatorError, match="no dimension 'lon'"):
        aligned(data.rename(x="lon"), truth)
