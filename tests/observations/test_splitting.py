"""Observations that are withheld."""

from __future__ import annotations

import numpy as np
import pytest
from instruments import make_truth, with_sites
from measurements import measured

from sdaxr.observations.splitting import split
from sdaxr.schema import DataError, OptionError

LAT = np.repeat([50.0, 51.0, 52.0, 53.0, 54.0], 4)
STATIONS = measured(LAT, 0.0, np.arange(20.0), hours=np.tile(np.arange(4), 5), station=np.repeat(list("abcde"), 4))


@pytest.mark.parametrize("obs", [STATIONS, STATIONS.drop_vars("station")])
def test_stations_are_withheld_as_a_whole(obs):
    assimilated, withheld = split(obs, 0.4, seed=3)
    assert (assimilated.sizes["obs"], withheld.sizes["obs"]) == (12, 8)
    assert not set(assimilated.lat.values) & set(withheld.lat.values)
    np.testing.assert_array_equal(np.sort(np.r_[assimilated.t2m, withheld.t2m]), obs.t2m)
    again = split(obs, 0.4, seed=3)[1]
    np.testing.assert_array_equal(again.t2m, withheld.t2m)
    assert {tuple(split(obs, 0.4, seed=s)[1].t2m.values) for s in range(5)} != {tuple(withheld.t2m.values)}


def test_single_measurements_and_dimensions():
    assimilated, withheld = split(STATIONS, 0.25, by="obs")
    assert (assimilated.sizes["obs"], withheld.sizes["obs"]) == (15, 5)
    sites = with_sites(make_truth())
    assimilated, withheld = split(sites, 0.01)
    assert (assimilated.sizes["station"], withheld.sizes["station"]) == (2, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fraction": 1.0}, OptionError, "fraction is 1.0, expected a number between 0 and 1"),
        ({"fraction": 0.5, "seed": -1}, OptionError, "seed=-1"),
        ({"fraction": 0.5, "by": "ship"}, DataError, "expected 'ship'; pass by="),
    ],
)
def test_impossible_splits(options, error, message):
    with pytest.raises(error, match=message):
        split(STATIONS, **options)


def test_a_single_station_cannot_be_split():
    with pytest.raises(DataError, match="found 1 entry of 'station'"):
        split(STATIONS.isel(obs=slice(4)), 0.5)
