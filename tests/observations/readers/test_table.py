"""Tables: text, Parquet and DataFrames, wide and long."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from sdaxr.observations.read_observations import read_observations
from sdaxr.observations.readers import table
from sdaxr.schema import ArchiveError, DataError, UnitsError

CSV = """# a network of stations
# in northern Europe
time,lat,lon,station,t2m [K],t2m_error,elevation
2019-03-01T00:00:00Z,51.5,0.1,03772,281.2,1.0,25
2019-03-01T01:00,51.5,0.1,03772,,1.0,25
2019-03-01 02:00:00+01:00,52.5,-0.1,EGLL,280.2,0.5,
"""
WIDE = pd.DataFrame(
    {"when": ["2019-03-01", "2019-03-02"], "lat": [50.0, 51.0], "lon": [1.0, 2.0], "temperature": [280.0, 281.0]}
)
LONG = pd.DataFrame(
    {
        "time": pd.to_datetime(["2019-03-01"] * 4 + ["2019-03-02"]),
        "lat": np.float32([50, 50, 51, 50, 50]),
        "lon": np.float32([1, 1, 1, 1, 1]),
        "observation": np.float32([1, 2, 3, 4, 5]),
        "variable": ["u10m", "v10m", "u10m", "u10m", "v10m"],
    }
)
UNITS = {"u10m": "m s-1", "v10m": "m s-1"}


@pytest.fixture
def write(tmp_path):
    def to(text, name="stations.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return to


def check_stations(obs):
    assert obs.sizes == {"obs": 2} and obs.attrs["rows_without_values"] == 1
    np.testing.assert_array_equal(obs.t2m, [281.2, 280.2])
    np.testing.assert_array_equal(obs.t2m_error, [1.0, 0.5])
    # Both in UTC, the second from a zone an hour ahead.
    np.testing.assert_array_equal(obs.time, np.array(["2019-03-01T00", "2019-03-01T01"], "M8[ns]"))
    np.testing.assert_array_equal(obs.lat, [51.5, 52.5])
    assert list(obs.station.values) == ["03772", "EGLL"]
    assert obs.t2m.attrs["units"] == obs.t2m_error.attrs["units"] == "K"
    assert obs.t2m.attrs["ancillary_variables"] == "t2m_error"
    assert obs.lat.attrs["standard_name"] == "latitude" and "elevation" in obs.coords


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stations.csv", lambda text: text),
        ("stations.csv.gz", lambda text: text),
        ("stations.txt", lambda text: text.replace(",", ";")),
        ("stations.tsv", lambda text: text.replace(",", "\t")),
        ("stations.csv", lambda text: "\ufeff" + text),
        ("stations.csv", lambda text: text.replace(",", ", ")),
        ("stations.csv", lambda text: text.replace("[K]", "(K)").replace("t2m_error", "T2M_STD")),
    ],
)
def test_text_files(write, name, change):
    check_stations(read_observations(write(change(CSV), name)))


def test_columns_separated_by_spaces(write):
    path = write("lat lon   time  t\n 50  1.5 2019-03-01T00:00  280\n", "a.dat")
    obs = read_observations(path, errors=1.0, units={"t": "K"})
    assert (obs.lat.item(), obs.lon.item(), obs.t.item()) == (50, 1.5, 280)


def test_columns_and_units_that_the_caller_names():
    obs = read_observations(
        WIDE, columns={"time": "when", "t2m": "temperature", "latitude": "lat"}, units={"t2m": "K"}, errors={"t2m": 2.0}
    )
    assert list(obs.data_vars) == ["t2m", "t2m_error"] and obs.t2m_error.values.tolist() == [2, 2]
    assert {"time", "latitude", "lon"} == set(obs.coords)


@pytest.mark.parametrize(
    ("times", "units"),
    [
        ([0, 86400], "seconds since 2019-03-01"),
        ([20190301, 20190302], "%Y%m%d"),
        (["01/03/2019", "02/03/2019"], "%d/%m/%Y"),
        (["2019-03-01T00:00", "20190302T0000"], None),
    ],
)
def test_times_in_several_forms(times, units):
    table = WIDE.assign(when=times)
    given = {"t": "K"} | ({} if units is None else {"time": units})
    obs = read_observations(table, columns={"time": "when", "t": "temperature"}, units=given, errors=1.0)
    np.testing.assert_array_equal(obs.time, np.array(["2019-03-01", "2019-03-02"], "M8[ns]"))


def test_model_times_are_numbers():
    table = pd.DataFrame({"time": [0.0, 0.5], "y": [0.0, 0.0], "x": [1.0, 2.0], "u": [1.0, 2.0]})
    obs = read_observations(table, units={"time": "1", "u": "1"}, errors=0.1)
    assert obs.time.dtype.kind == "f" and obs.time.attrs["units"] == "1"
    with pytest.raises(UnitsError, match=r"'time' holds numbers \(0.0\) without units.*seconds since"):
        read_observations(table, units={"u": "1"}, errors=0.1)


def test_an_index_is_a_column():
    frame = WIDE.assign(time=pd.to_datetime(WIDE.when)).drop(columns="when").set_index("time")
    for given in (frame, frame.rename_axis(None)):
        assert read_observations(given, errors=1.0, units={"temperature": "K"}).sizes == {"obs": 2}


def test_a_long_table_loses_nothing():
    obs = read_observations(LONG, errors=1.0, units=UNITS)
    # u and v at one time and place share a row; the second u there has a row of its own.
    assert obs.sizes == {"obs": 4}
    assert int(obs.u10m.notnull().sum()) == 3 and int(obs.v10m.notnull().sum()) == 2
    np.testing.assert_array_equal(obs.u10m, [1, 3, 4, np.nan])
    np.testing.assert_array_equal(obs.v10m, [2, np.nan, np.nan, 5])
    np.testing.assert_array_equal(obs.lat, [50, 51, 50, 50])


def test_a_long_table_with_errors_flags_units_and_names():
    frame = LONG.assign(error=[0.1, 0.2, 0.3, 0.4, 0.5], qc=[0, 1, 0, 0, 2], units="m/s")
    obs = read_observations(frame, columns={"u": "u10m"}, variables=["u"])
    np.testing.assert_array_equal(obs.u_error, [0.1, 0.3, 0.4])
    np.testing.assert_array_equal(obs.u_qc, [0, 0, 0])
    assert obs.u.attrs["units"] == "m/s" and "v10m" not in obs
    assert obs.u.attrs["ancillary_variables"] == "u_error u_qc"
    with pytest.raises(DataError, match=r"'u10m' has the units \['K', 'm/s'\]"):
        read_observations(frame.assign(units=["m/s", "m/s", "K", "m/s", "m/s"]))


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    LONG.to_parquet(path)
    expected = read_observations(LONG, errors=1.0, units=UNITS)
    assert read_observations(path, errors=1.0, units=UNITS).identical(
        expected.assign_attrs(source="'a.parquet' (table)")
    )


def test_parquet_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArchiveError, match=r"pip install 'sdaxr\[parquet\]'"):
        read_observations(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "a.csv", "is empty"),
        ("time,lat,lon,t [K]\n", "a.csv", "no row"),
        ("time,time,lat\n1,2,3\n", "a.parquet", "cannot be read as a table|needs pyarrow"),
    ],
)
def test_broken_files(write, text, name, message):
    with pytest.raises((ArchiveError, DataError), match=message):
        read_observations(write(text, name), errors=1.0)


def test_tables_that_are_none():
    with pytest.raises(DataError, match="several columns named"):
        read_observations(pd.concat([WIDE, WIDE], axis=1))
    with pytest.raises(DataError, match="2 levels of column names"):
        read_observations(pd.concat({"a": WIDE}, axis=1))
    with pytest.raises(ArchiveError, match="there is nothing at 'nowhere.csv'"):
        read_observations("nowhere.csv")
