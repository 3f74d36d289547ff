"""IODA, as a file with groups and as a DataTree."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.read_observations import read_observations
from sdaxr.schema import DataError

MISSING = np.float32(-3.3687953e38)


def ioda(processed=False, channels=False):
    """Three locations, at the second of which nothing is measured."""
    dims = ("Location", "Channel") if channels else ("Location",)

    def field(values, attrs=None, dtype=np.float32):
        values = np.asarray(values, dtype)
        return (dims, np.stack([values, values + 1], 1) if channels else values, attrs or {})

    name = "brightnessTemperature" if channels else "airTemperature"
    meta = {
        "latitude": ("Location", np.float32([50, 51, 52]), {"units": "degrees_north"}),
        "longitude": ("Location", np.float32([0, 1, 2]), {"units": "degrees_east"}),
        "dateTime": ("Location", np.int64([0, 3600, 7200]), {"units": "seconds since 2019-03-01T00:00:00Z"}),
        "stationIdentification": ("Location", ["03772", "03773", "EGLL"]),
        "stationElevation": ("Location", np.float32([10, 20, 30]), {"units": "m"}),
    }
    value = [280, MISSING, 282]
    groups = {
        "/": xr.Dataset({"Location": ("Location", [0, 1, 2])} | ({"Channel": ("Channel", [4, 5])} if channels else {})),
        "/MetaData": xr.Dataset(meta),
        "/ObsValue": xr.Dataset({name: field(value, {"units": "K"})}),
        "/ObsError": xr.Dataset({name: field([1.0, MISSING, 2.0], {"units": "K"})}),
        "/PreQC": xr.Dataset({name: field([2, 3, 9], dtype=np.int32)}),
    }
    if processed:
        groups |= {
            "/EffectiveError0": xr.Dataset({name: field([9.0, MISSING, 9.0])}),
            "/EffectiveError1": xr.Dataset({name: field([1.5, MISSING, MISSING])}),
            "/EffectiveQC1": xr.Dataset({name: field([0, 10, 19], dtype=np.int32)}),
            "/hofx1": xr.Dataset({name: field([279, MISSING, 290])}),
        }
    return xr.DataTree.from_dict(groups)


@pytest.fixture(params=["file", "tree"])
def source(request, tmp_path):
    def of(tree):
        if request.param == "tree":
            return tree
        tree.to_netcdf(tmp_path / "obs.nc4")
        return tmp_path / "obs.nc4"

    return of


def test_groups_become_the_point_form(source):
    obs = read_observations(source(ioda()), columns={"t2m": "airTemperature"})
    np.testing.assert_array_equal(obs.t2m, [280, 282])
    np.testing.assert_array_equal(obs.t2m_error, [1, 2])
    np.testing.assert_array_equal(obs.t2m_qc, [2, 9])
    np.testing.assert_array_equal(obs.time, np.array(["2019-03-01T00", "2019-03-01T02"], "M8[ns]"))
    np.testing.assert_array_equal(obs.lat, [50, 52])
    assert list(obs.station.values) == ["03772", "EGLL"] and obs.attrs["rows_without_values"] == 1
    assert obs.t2m.attrs["units"] == "K" and "stationElevation" in obs.coords
    assert "flag_meanings" not in obs.t2m_qc.attrs  # PreQC has no meaning that all providers share.


def test_what_jedi_has_processed(source):
    obs = read_observations(source(ioda(processed=True)))
    # The last outer loop; a value that was rejected has the error that it came with.
    np.testing.assert_array_equal(obs.airTemperature_error, [1.5, 2.0])
    np.testing.assert_array_equal(obs.airTemperature_qc, [0, 19])
    attrs = obs.airTemperature_qc.attrs
    meanings = dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))
    assert meanings[0] == "pass" and meanings[19] == "rejected_fguess"


def test_channels_are_rows(source):
    obs = read_observations(source(ioda(channels=True)))
    np.testing.assert_array_equal(obs.brightnessTemperature, [280, 281, 282, 283])
    np.testing.assert_array_equal(obs.Channel, [4, 5, 4, 5])
    np.testing.assert_array_equal(obs.lat, [50, 50, 52, 52])


def test_no_values():
    tree = ioda()
    tree["ObsValue"] = xr.DataTree(xr.Dataset())
    with pytest.raises(DataError, match="'ObsValue' is empty"):
        read_observations(tree)
