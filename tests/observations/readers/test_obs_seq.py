"""Observation sequences of DART."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.observations.read_observations import read_observations
from sdaxr.schema import ArchiveError, DataError, OptionError, UnitsError

HEADER = """ obs_sequence
obs_type_definitions
           3
          15 RADIOSONDE_TEMPERATURE
          22 ACARS_TEMPERATURE
          44 GPSRO_REFRACTIVITY
  num_copies:            2  num_qc:            2
  num_obs:            {count}  max_num_obs:            {count}
prior ensemble mean
NCEP BUFR observation
NCEP QC index
DART quality control
  first:            1  last:            {count}
"""
# Number, mean, value, flags; place in radians, level and its kind; type, its metadata; time, variance.
BLOCK = """ OBS            {number}
   279.000000000000
   {value}
   {qc}
   {dart}
          -1          -1          -1
obdef
loc3d
     {lon}        {lat}         {level}     {which}
kind
          {kind}
{metadata}{seconds}     {days}
   {variance}
"""
DAYS = (np.datetime64("2019-03-01") - np.datetime64("1601-01-01")).astype(int)
FIRST = dict(
    number=1,
    value=280.0,
    qc=1.0,
    dart=0.0,
    lon=np.pi / 2,
    lat=np.pi / 4,
    level=50000.0,
    which=2,
    kind=15,
    metadata="",
    seconds=0,
    days=DAYS,
    variance=1.44,
)
SEQUENCE = [
    FIRST,
    FIRST | dict(number=2, value=281.0, dart=7.0, seconds=3600, variance=4.0),
    FIRST | dict(number=3, value=-888888.0, seconds=7200),
    FIRST | dict(number=4, value=282.0, kind=22, lon=3.0, variance=0.25),
]
KELVIN = {"RADIOSONDE_TEMPERATURE": "K"}
UNITS = {"RADIOSONDE_TEMPERATURE": "K", "ACARS_TEMPERATURE": "K"}


@pytest.fixture
def write(tmp_path):
    def to(blocks, header=HEADER, block=BLOCK):
        path = tmp_path / "obs_seq.final"
        path.write_text(header.format(count=len(blocks)) + "".join(block.format(**each) for each in blocks))
        return path

    return to


def test_types_become_variables(write):
    obs = read_observations(write(SEQUENCE), units=UNITS)
    assert obs.sizes == {"obs": 3} and obs.attrs["rows_without_values"] == 1
    np.testing.assert_array_equal(obs.RADIOSONDE_TEMPERATURE, [280, 281, np.nan])
    np.testing.assert_allclose(obs.RADIOSONDE_TEMPERATURE_error, [1.2, 2.0, np.nan])
    np.testing.assert_allclose(obs.ACARS_TEMPERATURE_error, [np.nan, np.nan, 0.5])
    np.testing.assert_allclose(obs.lat, 45)
    np.testing.assert_allclose(obs.lon, [90, 90, np.rad2deg(3)])
    np.testing.assert_array_equal(obs.level, 50000)
    flags = obs.RADIOSONDE_TEMPERATURE_qc  # missing for the other type, and so floats, as flag_values are then
    assert flags.dtype == flags.attrs["flag_values"].dtype == float
    assert obs.level.attrs["units"] == "Pa"
    np.testing.assert_array_equal(obs.time, np.array(["2019-03-01T00", "2019-03-01T01", "2019-03-01T00"], "M8[ns]"))


def test_a_sequence_is_known_by_its_first_line_whatever_its_name(write):
    path = write(SEQUENCE)
    obs = read_observations(path.rename(path.with_name("sequence.txt")), units=UNITS)
    assert obs.sizes == {"obs": 3}


def test_types_of_one_quantity_are_joined_and_stay_apart_by_source(write):
    names = {"t": ["RADIOSONDE_TEMPERATURE", "ACARS_TEMPERATURE"]}
    obs = read_observations(write(SEQUENCE), columns=names, units={"t": "K"})
    np.testing.assert_array_equal(obs.t, [280, 281, 282])
    np.testing.assert_array_equal(obs.t_qc, [0, 7, 0])
    meanings = obs.t_qc.attrs["flag_meanings"].split()
    assert meanings[0] == "good" and meanings[7] == "rejected_outlier_threshold"
    assert list(obs.source.values) == [*["RADIOSONDE_TEMPERATURE"] * 2, "ACARS_TEMPERATURE"]


def test_metadata_of_a_type_are_skipped(write):
    metadata = "gpsroref\n   1\n  0.0 0.0  0.0\n 3 5\n   7\n"
    path, name = write([FIRST | dict(value=300.0, kind=44, metadata=metadata), *SEQUENCE]), "GPSRO_REFRACTIVITY"
    obs = read_observations(path, variables=[name], units={name: "1"})
    assert obs[name].item() == 300 and obs[f"{name}_error"].item() == pytest.approx(1.2)


def test_surface_observations_have_no_level(write):
    obs = read_observations(write([FIRST | dict(which=-1, level=12.0)]), units=KELVIN)
    assert "level" not in obs.coords and obs.sizes == {"obs": 1}


def test_levels_of_two_kinds_are_told_apart(write):
    both = write([FIRST, FIRST | dict(which=-1, kind=22)])
    with pytest.raises(DataError, match=r"1 of 2 rows of 'obs_seq.final' .* cannot be used: 1 with no 'level'"):
        read_observations(both, units=UNITS)
    assert read_observations(both, units=KELVIN, variables=["RADIOSONDE_TEMPERATURE"]).sizes == {"obs": 1}


def test_a_model_of_one_dimension(write):
    block = BLOCK.replace("loc3d", "loc1d").replace("{lon}        {lat}         {level}     {which}", "{lon}")
    blocks = [FIRST | dict(lon=0.25, days=0, seconds=3600)]
    obs = read_observations(write(blocks, block=block), units={"RADIOSONDE_TEMPERATURE": "1"})
    assert obs.x.item() == 0.25 and obs.time.values[0] == np.timedelta64(1, "h")


@pytest.mark.parametrize(
    ("blocks", "change", "error", "message"),
    [
        ([FIRST | dict(kind=-7)], str, DataError, "observation 1 is of element 7 of a state vector"),
        ([FIRST | dict(kind=99)], str, ArchiveError, "is no whole observation sequence"),
        ([], str, DataError, "holds no observation"),
        ([FIRST], lambda text: text[: text.index("first:")], ArchiveError, "the header does not end with"),
        ([FIRST], lambda text: text[:-40], ArchiveError, "is no whole observation sequence"),
        (SEQUENCE, lambda text: text[: text.rindex("OBS")], ArchiveError, "holds 3 observations, its header says 4"),
        ([FIRST], lambda text: text.replace("loc3d", "locxyz"), DataError, "no place of the kinds loc3d and loc1d"),
    ],
)
def test_sequences_that_cannot_be_read(write, blocks, change, error, message):
    path = write(blocks)
    path.write_text(change(path.read_text()))
    with pytest.raises(error, match=message):
        read_observations(path, units=UNITS)


def test_a_sequence_without_values(write):
    header = HEADER.replace("num_copies:            2  num_qc:            2", "num_copies: 0 num_qc: 0")
    for name in ("prior ensemble mean\n", "NCEP BUFR observation\n", "NCEP QC index\n", "DART quality control\n"):
        header = header.replace(name, "")
    with pytest.raises(DataError, match="obs_seq.in"):
        read_observations(write([], header=header))


def test_units_and_names_are_asked_for(write):
    with pytest.raises(UnitsError, match=r"'RADIOSONDE_TEMPERATURE' has no units.*units="):
        read_observations(write(SEQUENCE))
    with pytest.raises(OptionError, match="columns= names 'RADIOSONDE_HUMIDITY'"):
        read_observations(write(SEQUENCE), columns={"q": "RADIOSONDE_HUMIDITY"})
