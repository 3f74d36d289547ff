"""Reading observations: errors, units, bad rows and names, whatever the source."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from instruments import make_truth, soundings

import sdaxr
from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.observations.read_observations import read_observations
from sdaxr.schema import ArchiveError, DataError, OptionError, UnitsError

TABLE = pd.DataFrame(
    {
        "time": pd.to_datetime(["2019-03-01"] * 4),
        "lat": [50.0, 51.0, 52.0, 53.0],
        "lon": [0.0, 1.0, 2.0, 3.0],
        "source": ["metar", "metar", "ship", "ship"],
        "t2m": [280.0, 281.0, np.nan, 283.0],
    }
)
STATED = {"units": {"t2m": "K"}, "errors": {"t2m": 1.0}}


def test_errors_by_source():
    obs = read_observations(TABLE, units={"t2m": "K"}, errors={"t2m": {"metar": 1.0, "ship": 2.0}})
    np.testing.assert_array_equal(obs.t2m_error, [1, 1, 2])
    assert obs.t2m_error.attrs["units"] == "K"


def test_stated_errors_take_the_place_of_those_in_the_source():
    table = TABLE.assign(t2m_error=5.0)
    assert set(read_observations(table, units={"t2m": "K"}).t2m_error.values) == {5.0}
    assert set(read_observations(table, **STATED).t2m_error.values) == {1.0}


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"units": {}}, UnitsError, r"'t2m' has no units.*units=\{'t2m': 'K'\}"),
        ({}, {"units": {"t": "K"}}, OptionError, "units= names 't'; expected one of .*t2m"),
        ({}, {"errors": None}, DataError, r"'t2m' has no 't2m_error'.*errors=\{'t2m': 1.0\}, in K"),
        ({}, {"errors": {"t": 1.0}}, OptionError, "errors= names 't'; expected one of t2m"),
        ({}, {"errors": -1.0}, OptionError, r"errors\['t2m'\]=-1.0, expected a positive number in the units"),
        ({}, {"errors": {"t2m": {"metar": 1.0}}}, OptionError, "no entry for the source 'ship'"),
        ({}, {"variables": ["t"]}, OptionError, "variables= names 't'"),
        ({}, {"bad": "ignore"}, OptionError, "bad is 'ignore'; expected one of drop, error"),
        ({}, {"columns": {"time": "when"}}, OptionError, "columns= names 'when'"),
        (
            {"time": ["2019-03-01", "soon", None, "2019-03-02"]},
            {},
            DataError,
            r"1 of 3 rows of table cannot be used: 1 with no time that can be read \(the first in row 1\).*bad='drop'",
        ),
        (
            {"lat": [50.0, 95.0, 52.0, np.nan]},
            {},
            DataError,
            "2 of 3 rows .*1 with no 'lat'.*1 with 'lat' beyond 90 degrees",
        ),
        ({"lon": [0.0, 1.0, 2.0, 700.0]}, {}, DataError, "1 with 'lon' beyond 360 degrees"),
        ({"t2m": [280.0, "broken", 282.0, 283.0]}, {}, DataError, "1 with text in the place of a number as 't2m'"),
        ({"t2m": np.nan}, {}, DataError, "has no value of"),
        ({"t2m": "warm"}, {}, DataError, "expected at least one of measured numbers"),
        ({"lon": None}, {"columns": {"x": "lon"}}, DataError, "expected the position of each measurement"),
    ],
)
def test_what_cannot_be_used_is_named(change, options, error, message):
    with pytest.raises(error, match=message) as raised:
        read_observations(TABLE.assign(**change), **(STATED | options))
    assert "\n" not in str(raised.value)


def test_bad_rows_are_left_out_when_asked(caplog):
    table = TABLE.assign(lat=[50.0, 95.0, 52.0, np.nan], t2m=[280.0, 281.0, "broken", 283.0])
    obs = read_observations(table, bad="drop", **STATED)
    assert obs.sizes == {"obs": 1} and obs.attrs["rows_dropped"] == 3
    assert "3 of 4 rows are left out" in caplog.text
    with pytest.raises(DataError, match="none of the 3 rows"):
        read_observations(TABLE.assign(lat=99.0), bad="drop", **STATED)


def test_other_units_than_those_of_the_source_are_refused():
    table = TABLE.rename(columns={"t2m": "t2m [degC]"})
    with pytest.raises(UnitsError, match="'t2m' has units 'degC' in the source, expected 'K'"):
        read_observations(table, **STATED)


def test_observations_of_sdaxr_are_returned_as_they_are(tmp_path):
    truth = make_truth()
    points, grid = soundings(truth), observe(truth, op.identity(), error=0.1)
    for made in (points, grid):
        xr.testing.assert_identical(read_observations(made), made)
    grid.to_netcdf(tmp_path / "grid.nc")
    xr.testing.assert_identical(read_observations(tmp_path / "grid.nc").load(), grid)


def test_fields_get_errors_and_keep_their_grid():
    fields = make_truth("datetime")
    obs = read_observations(fields, columns={"w": "u"}, variables=["w"], errors=0.5)
    assert obs.w.dims == ("time", "y", "x") and set(obs.data_vars) == {"w", "w_error"}
    assert set(obs.w_error.values.ravel()) == {0.5}
    renamed = read_observations(obs, columns={"v": "w"})
    assert set(renamed.data_vars) == {"v", "v_error"}
    with pytest.raises(OptionError, match="columns= names 'speed'"):
        read_observations(fields, columns={"w": "speed"})
    with pytest.raises(OptionError, match="variables= names 'speed'"):
        read_observations(fields, variables=["speed"])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (7, DataError, "found int, expected a path, a DataFrame"),
        (make_truth().u, DataError, "found the DataArray 'u'"),
        (xr.DataTree.from_dict({"/a": make_truth()}), DataError, r"found a DataTree with the groups \['a'\]"),
        ("nowhere.nc", ArchiveError, "there is nothing at 'nowhere.nc'"),
    ],
)
def test_sources_of_other_kinds(source, error, message):
    with pytest.raises(error, match=message):
        read_observations(source)


def test_a_file_without_anything(tmp_path):
    xr.Dataset(attrs={"title": "nothing"}).to_netcdf(tmp_path / "empty.nc")
    with pytest.raises((ArchiveError, DataError)):
        read_observations(tmp_path / "empty.nc")


def test_every_column_has_a_name_and_times_say_so():
    obs = read_observations(TABLE.assign(height_of_mast=("a", "b", "c", "d")), **STATED)
    assert all({"standard_name", "long_name"} & set(v.attrs) for v in obs.variables.values())
    assert obs.time.attrs["standard_name"] == "time" and obs.height_of_mast.attrs["long_name"] == "height of mast"


def test_it_survives_netcdf_and_zarr(tmp_path):
    obs = sdaxr.read_observations(TABLE.assign(station=["a", "b", "c", "d"]), **STATED)
    obs.to_netcdf(tmp_path / "obs.nc")
    xr.testing.assert_equal(read_observations(tmp_path / "obs.nc").load(), obs)
    obs.to_zarr(tmp_path / "obs.zarr", consolidated=False)
    xr.testing.assert_equal(read_observations(tmp_path / "obs.zarr").load(), obs)
