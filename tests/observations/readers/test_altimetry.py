"""Along-track altimetry."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.read_observations import read_observations
from sdaxr.schema import DataError


def along_track():
    """Packed integers, as in files of the Copernicus Marine Service; the third measurement is missing."""
    since = {"units": "seconds since 2005-04-01", "standard_name": "time", "axis": "T"}
    lat, lon = (
        {"scale_factor": 1e-6, "standard_name": name, "units": units}
        for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east"))
    )
    metres = {"units": "m", "scale_factor": 1e-3, "_FillValue": np.int16(32767)}
    height = metres | {"standard_name": "sea_surface_height_above_sea_level"}
    levels = {
        "sla_filtered": ("time", np.int16([10, 20, 32767]), height),
        "sla_unfiltered": ("time", np.int16([12, 18, 32767]), height),
    }
    other = {
        "longitude": ("time", np.int32([5_000_000, 5_100_000, 5_200_000]), lon),
        "latitude": ("time", np.int32([40_000_000, 40_100_000, 40_200_000]), lat),
        "cycle": ("time", np.int16([118, 118, 118])),
        "track": ("time", np.int16([9, 9, 9])),
        "mdt": ("time", np.int16([100, 101, 102]), metres),
        "dac": ("time", np.int16([1, 2, 3]), metres),
    }
    return xr.Dataset(
        levels | other, {"time": ("time", [0.0, 1.0, 2.0], since)}, {"platform": "Jason-1", "Conventions": "CF-1.6"}
    )


@pytest.mark.parametrize("how", ["file", "object"])
def test_tracks_become_points(how, tmp_path):
    along_track().to_netcdf(tmp_path / "j1.nc")
    source = tmp_path / "j1.nc" if how == "file" else xr.open_dataset(tmp_path / "j1.nc")
    obs = read_observations(source, columns={"sla": "sla_unfiltered"}, errors={"sla": 0.03})
    assert set(obs.data_vars) == {"sla", "sla_error"} and obs.attrs["rows_without_values"] == 1
    np.testing.assert_allclose(obs.sla, [0.012, 0.018])
    np.testing.assert_allclose(obs.lat, [40.0, 40.1])
    assert list(obs.source.values) == ["Jason-1"] * 2 and obs.sla.attrs["units"] == "m"
    assert {"cycle", "track", "mdt", "dac"} <= set(obs.coords)
    assert obs.time.values[1] == np.datetime64("2005-04-01T00:00:01")


def test_one_measurement_is_not_used_twice():
    with pytest.raises(DataError, match=r"found \['sla_filtered', 'sla_unfiltered'\], the same measurement 2 times"):
        read_observations(xr.decode_cf(along_track()), errors=0.03)
    one = xr.decode_cf(along_track()).drop_vars("sla_filtered")
    assert "sla_unfiltered" in read_observations(one, errors=0.03)
