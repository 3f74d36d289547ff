"""Discrete sampling geometries in each representation of CF 1.11, chapter 9 and appendix H."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.read_observations import read_observations
from sdaxr.observations.readers.sampling import is_sampled
from sdaxr.schema import DataError

SINCE = {"standard_name": "time", "units": "hours since 2019-03-01", "axis": "T"}
LAT = {"standard_name": "latitude", "units": "degrees_north"}
LON = {"standard_name": "longitude", "units": "degrees_east"}
Z = {"standard_name": "altitude", "units": "m", "axis": "Z", "positive": "up"}
HUMIDITY = {"standard_name": "specific_humidity", "units": "1", "coordinates": "time lat lon"}
FILL = -999.9

# Three values at (50, 0) and two at (51, 1), in the order of the stations.
LATS, LONS = [50.0, 51.0], [0.0, 1.0]
HOURS, VALUES, STATION = [0.0, 1, 2, 0, 3], [1.0, 2, 3, 4, 5], [0, 0, 0, 1, 1]
NAMES = ("station", np.array(["a", "b"], object), {"cf_role": "timeseries_id"})
PLACES = {"lat": ("station", LATS, LAT), "lon": ("station", LONS, LON), "station_name": NAMES}


def with_attrs(variables, feature):
    return xr.Dataset(variables, attrs={"featureType": feature, "Conventions": "CF-1.11"})


def point():
    return with_attrs(
        {
            "time": ("i", HOURS, SINCE),
            "lat": ("i", np.take(LATS, STATION), LAT),
            "lon": ("i", np.take(LONS, STATION), LON),
            "humidity": ("i", VALUES, HUMIDITY),
        },
        "point",
    )


def contiguous():
    count = {"sample_dimension": "o", "long_name": "number of observations for this station"}
    samples = {"time": ("o", HOURS, SINCE), "humidity": ("o", VALUES, HUMIDITY)}
    return with_attrs(PLACES | samples | {"row_size": ("station", [3, 2], count)}, "timeSeries")


def indexed():
    # Indexed ragged arrays may be in any order: that of time here.
    order = np.argsort(HOURS, kind="stable")
    index = ("o", np.take(STATION, order), {"instance_dimension": "station"})
    samples = {"time": ("o", np.take(HOURS, order), SINCE), "humidity": ("o", np.take(VALUES, order), HUMIDITY)}
    return with_attrs(PLACES | samples | {"station_index": index}, "timeSeries")


def incomplete():
    times = np.array([[0.0, 1, 2], [0, 3, FILL]])
    values = np.array([[1.0, 2, 3], [4, 5, FILL]])
    samples = {
        "time": (("station", "o"), times, SINCE | {"_FillValue": FILL}),
        "humidity": (("station", "o"), values, HUMIDITY | {"_FillValue": FILL}),
    }
    return with_attrs(PLACES | samples, "timeSeries")


def orthogonal():
    values = np.array([[1.0, 2, 3, FILL], [4, FILL, FILL, 5]])
    samples = {
        "time": ("time", [0.0, 1, 2, 3], SINCE),
        "humidity": (("station", "time"), values, HUMIDITY | {"_FillValue": FILL}),
    }
    return with_attrs(PLACES | samples, "timeSeries")


REPRESENTATIONS = (point, contiguous, indexed, incomplete, orthogonal)


def written(data, tmp_path):
    path = tmp_path / "points.nc"
    data.to_netcdf(path)
    return path


def rows(obs):
    hours = (obs.time.values - np.datetime64("2019-03-01", "ns")) / np.timedelta64(1, "h")
    return sorted(zip(hours, obs.lat.values, obs.lon.values, obs.humidity.values, strict=True))


@pytest.mark.parametrize("make", REPRESENTATIONS)
@pytest.mark.parametrize("store", [".nc", ".zarr", "object"])
def test_each_representation_has_the_same_points(make, store, tmp_path):
    if store == ".zarr":
        source = tmp_path / "points.zarr"
        make().to_zarr(source, consolidated=False)
    else:
        source = written(make(), tmp_path) if store == ".nc" else xr.decode_cf(make())
    obs = read_observations(source, errors={"humidity": 0.1})
    assert rows(obs) == sorted(zip(HOURS, np.take(LATS, STATION), np.take(LONS, STATION), VALUES, strict=True))
    assert obs.humidity.attrs["units"] == "1" and obs.humidity.attrs["standard_name"] == "specific_humidity"
    if make is not point:
        names = dict(zip(obs.lat.values, obs.station_name.values, strict=True))
        assert names == {50: "a", 51: "b"}


def test_a_single_time_series_has_its_place_everywhere():
    one = orthogonal().isel(station=0)
    obs = read_observations(xr.decode_cf(one), errors=0.1)
    assert rows(obs) == [(0, 50, 0, 1), (1, 50, 0, 2), (2, 50, 0, 3)]
    assert obs.attrs["rows_without_values"] == 1


def test_errors_and_flags_are_those_of_the_ancillary_variables():
    related = {"ancillary_variables": "humidity_flags humidity_noise humidity_count"}
    flags = {"standard_name": "status_flag", "flag_values": np.int8([1, 4]), "flag_meanings": "good bad"}
    data = xr.decode_cf(contiguous())
    data["humidity"].attrs |= related
    data["humidity_flags"] = ("o", np.int8([1, 1, 4, 1, 1]), flags)
    data["humidity_noise"] = (
        "o",
        [0.1, 0.2, 0.3, 0.4, 0.5],
        {"standard_name": "specific_humidity standard_error", "units": "1"},
    )
    obs = read_observations(data)
    np.testing.assert_array_equal(obs.humidity_error, [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(obs.humidity_qc, [1, 1, 4, 1, 1])
    assert obs.humidity_qc.attrs["flag_meanings"] == "good bad"
    assert obs.humidity.attrs["ancillary_variables"] == "humidity_error humidity_qc"


@pytest.mark.parametrize("shared", [True, False])
def test_profiles_with_and_without_common_levels(shared):
    levels = [10.0, 20.0, 30.0]
    z = ("z", levels, Z) if shared else (("profile", "z"), [levels, [15.0, np.nan, np.nan]], Z)
    values = [[1.0, 2, 3], [4, np.nan, np.nan]]
    data = with_attrs(
        {
            "profile": ("profile", [7, 8], {"cf_role": "profile_id"}),
            "time": ("profile", [0.0, 1.0], SINCE),
            "lat": ("profile", LATS, LAT),
            "lon": ("profile", LONS, LON),
            "alt": z,
            "humidity": (("profile", "z"), values, HUMIDITY),
        },
        "profile",
    )
    obs = read_observations(xr.decode_cf(data), errors=0.1)
    np.testing.assert_array_equal(obs["alt"], [10, 20, 30, 10 if shared else 15])
    assert rows(obs) == [(0, 50, 0, 1), (0, 50, 0, 2), (0, 50, 0, 3), (1, 51, 1, 4)]


def test_profiles_of_stations_are_ragged_twice():
    # CF 1.11, H.5.3: a station has profiles (indexed), and a profile has samples (counted).
    samples = {"alt": ("o", [10.0, 20, 10, 10, 20], Z), "humidity": ("o", VALUES, HUMIDITY)}
    profiles = {
        "time": ("profile", [0.0, 1.0, 2.0], SINCE),
        "row_size": ("profile", [2, 1, 2], {"sample_dimension": "o"}),
        "station_index": ("profile", [0, 1, 0], {"instance_dimension": "station"}),
    }
    obs = read_observations(xr.decode_cf(with_attrs(PLACES | profiles | samples, "timeSeriesProfile")), errors=0.1)
    np.testing.assert_array_equal(obs.lat, [50, 50, 51, 50, 50])
    assert rows(obs) == [(0, 50, 0, 1), (0, 50, 0, 2), (1, 51, 1, 3), (2, 50, 0, 4), (2, 50, 0, 5)]


def test_trajectories_move():
    data = with_attrs(
        {
            "trajectory": ("trajectory", ["a", "b"], {"cf_role": "trajectory_id"}),
            "time": (("trajectory", "o"), [[0.0, 1], [2, np.nan]], SINCE),
            "lat": (("trajectory", "o"), [[50.0, 51], [52, np.nan]], LAT),
            "lon": (("trajectory", "o"), [[0.0, 1], [2, np.nan]], LON),
            "humidity": (("trajectory", "o"), [[1.0, 2], [3, np.nan]], HUMIDITY),
        },
        "trajectory",
    )
    obs = read_observations(xr.decode_cf(data), errors=0.1)
    assert rows(obs) == [(0, 50, 0, 1), (1, 51, 1, 2), (2, 52, 2, 3)]
    assert list(obs.trajectory.values) == ["a", "a", "b"]


def argo():
    """A float as in the files of Argo: flags are digits, and there are dimensions beside those of the profiles."""
    shape = ("N_PROF", "N_LEVELS")
    flag = {"conventions": "Argo reference table 2", "long_name": "quality flag"}
    return xr.Dataset(
        {
            "JULD": (
                "N_PROF",
                np.array(["2019-03-01", "2019-03-11"], "M8[ns]"),
                {"standard_name": "time", "axis": "T"},
            ),
            "JULD_QC": ("N_PROF", np.array([b"1", b"1"])),
            "LATITUDE": ("N_PROF", [40.0, 41.0], LAT),
            "LONGITUDE": ("N_PROF", [5.0, 6.0], LON),
            "PLATFORM_NUMBER": ("N_PROF", np.array([b"6901", b"6901"])),
            "CYCLE_NUMBER": ("N_PROF", [1, 2]),
            "PRES": (shape, [[5.0, 10.0], [5.0, np.nan]], {"axis": "Z", "units": "decibar"}),
            "PRES_QC": (shape, np.array([[b"1", b"1"], [b"1", b" "]])),
            "TEMP": (shape, [[15.0, 14.0], [16.0, np.nan]], {"units": "degree_Celsius"}),
            "TEMP_QC": (shape, np.array([[b"1", b"4"], [b"1", b" "]]), flag),
            "TEMP_ERROR": (shape, [[0.002, 0.002], [0.002, np.nan]]),
            "HISTORY_START_PRES": (("N_HISTORY", "N_PROF"), np.ones((3, 2))),
        },
        attrs={"featureType": "trajectoryProfile"},
    )


def test_a_float_of_argo():
    obs = read_observations(argo(), columns={"pres": "PRES"})
    assert set(obs.data_vars) == {"TEMP", "TEMP_error", "TEMP_qc"}
    np.testing.assert_array_equal(obs.TEMP, [15, 14, 16])
    np.testing.assert_array_equal(obs.TEMP_qc, [1, 4, 1])
    assert obs.TEMP_qc.attrs["conventions"] == "Argo reference table 2"
    np.testing.assert_array_equal(obs.pres, [5, 10, 5])
    assert {"time", "lat", "lon", "CYCLE_NUMBER", "pres_qc", "JULD_qc"} <= set(obs.coords)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(row_size=ds.row_size + 1), "'row_size' counts 7 samples, expected the size of 'o', 5"),
        (lambda ds: ds.drop_vars(["lat", "lon"]), "expected the position of each measurement"),
        (lambda ds: ds.drop_vars(["time"]), "expected a time"),
    ],
)
def test_what_does_not_fit(change, message):
    with pytest.raises(DataError, match=message):
        read_observations(change(xr.decode_cf(contiguous())), errors=0.1)


def test_an_index_beyond_the_stations():
    data = xr.decode_cf(indexed())
    with pytest.raises(DataError, match="'station_index' holds numbers from 1 to 2, expected those of the 2 instances"):
        read_observations(data.assign(station_index=data.station_index + 1), errors=0.1)


def test_fields_are_no_samples():
    field = xr.Dataset(
        {"t": (("lat", "lon"), np.zeros((2, 2)))}, {"lat": ("lat", LATS, LAT), "lon": ("lon", LONS, LON)}
    )
    curvilinear = xr.Dataset(
        {"t": (("j", "i"), np.zeros((2, 2)))},
        {"lat": (("j", "i"), np.zeros((2, 2)), LAT), "lon": (("j", "i"), np.zeros((2, 2)), LON)},
    )
    assert not is_sampled(field) and not is_sampled(curvilinear) and not is_sampled({})
    assert is_sampled(point().drop_attrs()) and is_sampled(contiguous().drop_attrs(deep=False))
