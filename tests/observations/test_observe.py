"""Observations: the noise that is drawn, what is written, what survives the disk, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from instruments import CALENDARS, aligned, make_truth, soundings

from sdaxr import operators as op
from sdaxr.observations.observe import is_point_form, observe, operator_for
from sdaxr.schema import DataError, GridError, OperatorError, OptionError, UnitsError

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
        (
            {"error": xr.DataArray([0.1], {"x": [9.0]})},
            GridError,
            "has 1 points in the error of 'u' and 8 in the observations",
        ),
        ({"error": xr.DataArray(0.1, attrs={"units": "K"})}, UnitsError, "units 'K' in error=, expected 'm s-1'"),
        ({"error": 0.1, "every": 0}, OptionError, "found every=0, expected a whole number of at least 1"),
        ({"error": 0.1, "seed": -1}, OptionError, "found seed=-1, expected a whole number of at least 0"),
        ({"error": 0.1, "start": -1}, OptionError, "start=-1, expected a whole number"),
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


# The point form


def test_points_follow_the_operator_they_carry(truth):
    data = soundings(truth).assign_attrs(operator=op.saturate().to_json())
    assert operator_for(data).steps[0] == op.saturate()
    drawn = observe(truth, operator_for(soundings(truth)), error=0.1)
    assert is_point_form(drawn)
    assert operator_for(drawn).to_dict() == operator_for(soundings(truth)).to_dict()
    np.testing.assert_array_equal(aligned(drawn, truth)["u"][0], drawn["u"])


def test_points_need_their_time_and_place(truth):
    data = soundings(truth)
    with pytest.raises(DataError, match="expected 'time' and the position"):
        operator_for(data.drop_vars("time"))
    with pytest.raises(OperatorError, match="'x' of measurement 2 is nan"):
        aligned(data.assign_coords(x=data.x.where(np.arange(20) != 2)), truth)
    with pytest.raises(OperatorError, match=r"no position along 'x', found the coordinates \['time', 'y', 'lon'\]"):
        aligned(data.rename(x="lon"), truth)


@pytest.mark.parametrize("values", [np.arange(20.0), np.full(20, np.nan), np.arange(20)])
def test_what_else_is_known_of_a_station_is_no_place(truth, values: np.ndarray) -> None:
    data = soundings(truth)
    with_height = aligned(data.assign_coords(elevation=("obs", values)), truth)
    for found, expected in zip(with_height.values(), aligned(data, truth).values(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_error_field_is_matched_by_its_labels(truth: xr.Dataset) -> None:
    sd = xr.DataArray(np.linspace(0.1, 0.8, 8), {"y": truth.y})
    expected = observe(truth, op.identity(), error=sd)
    other = sd.isel(y=slice(None, None, -1)).assign_coords(y=truth.y.astype("float32")[::-1])
    xr.testing.assert_identical(observe(truth, op.identity(), error=other), expected)
    late = xr.DataArray(np.linspace(0.1, 0.6, 6), {"time": truth.time + 0.2})
    with pytest.raises(GridError, match="the error of 'u' has 6 points from 0.2 to 1.2 in time, expected 0.0"):
        observe(truth, op.identity(), error=late)
