"""Thinning, against distances on the sphere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from measurements import measured

from sdaxr.observations.thinning import thin
from sdaxr.schema import DataError, OptionError


def kilometres(lat, lon):
    """Great circles between all pairs, by the haversine formula."""
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    half = (
        np.sin((phi[:, None] - phi) / 2) ** 2
        + np.cos(phi[:, None]) * np.cos(phi) * np.sin((lam[:, None] - lam) / 2) ** 2
    )
    return 2 * 6371.229 * np.arcsin(np.sqrt(half))


def test_no_two_are_close_and_none_is_left_out_without_reason():
    draw = np.random.default_rng(0)
    lat, lon = draw.uniform(-90, 90, 400), draw.uniform(-180, 180, 400)
    obs = measured(lat, lon, np.arange(400.0), errors=draw.uniform(1, 2, 400))
    made = thin(obs, km=1500)
    apart = kilometres(made.lat.values, made.lon.values)
    assert apart[~np.eye(made.sizes["obs"], dtype=bool)].min() >= 1500
    everywhere, kept = kilometres(lat, lon), made.t2m.values.astype(int)
    for i in set(range(400)) - set(kept):
        better = [j for j in kept if everywhere[i, j] < 1500 and obs.t2m_error[j] <= obs.t2m_error[i]]
        assert better, f"{i} was left out without a better neighbour"
    assert made.attrs["observations_thinned"] == 400 - made.sizes["obs"]


def test_a_bad_value_does_not_push_out_a_good_one():
    obs = measured(50.0, [0.0, 0.1], [99.0, 2.0], errors=[0.1, 1.0])
    made = thin(obs.assign(t2m_qc=("obs", np.array([4, 1], "i1"), {"conventions": "Argo"})), km=50)
    assert made.t2m.item() == 2.0
    assert (made.attrs["observations_flagged"], made.attrs["observations_thinned"]) == (1, 0)


def test_the_seam_and_the_poles_are_no_borders():
    assert thin(measured(0.0, [179.9, -179.9], [1.0, 2.0]), km=50).sizes == {"obs": 1}
    assert thin(measured(89.9, [0.0, 180.0], [1.0, 2.0]), km=50).sizes == {"obs": 1}
    assert thin(measured(0.0, [0.0, 180.0], [1.0, 2.0]), km=15_000).sizes == {"obs": 2}


@pytest.mark.parametrize(
    ("per", "expected"), [(None, [0, 1, 2, 3]), ("90min", [0, 2]), (np.timedelta64(150, "m"), [0, 3])]
)
def test_times_are_compared_within_a_duration(per, expected):
    obs = measured(50.0, 0.0, [0.0, 1.0, 2.0, 3.0], hours=[0, 1, 2, 3])
    np.testing.assert_array_equal(thin(obs, km=10, per=per).t2m, expected)


def test_space_and_time_are_a_box():
    # Half of each distance away: close in both, so that one is left out; neither distance alone is enough.
    places = {"near": (50.0, 0.5), "far in space": (51.0, 0.5), "far in time": (50.0, 1.5)}
    sizes = {
        n: thin(measured([50.0, lat], 0.0, [1.0, 2.0], hours=[0, h]), km=60, per="1h").sizes["obs"]
        for n, (lat, h) in places.items()
    }
    assert sizes == {"near": 1, "far in space": 2, "far in time": 2}
    almost = measured([50.0, 50.5], 0.0, [1.0, 2.0], hours=[0, 0.95])
    assert thin(almost, km=60, per="1h").sizes == {"obs": 1}  # 55.6 km and 0.95 h


def test_each_variable_is_thinned_by_itself():
    obs = measured([50.0, 50.1], 0.0, [1.0, np.nan]).assign(u=("obs", [np.nan, 2.0], {"units": "m"}), u_error=1.0)
    assert thin(obs, km=100).sizes == {"obs": 2}


def test_a_plane_in_metres():
    at = {"time": ("obs", [0.0, 0.0, 0.5]), "x": ("obs", [0.0, 900.0, 900.0], {"units": "m"})}
    obs = xr.Dataset({"u": ("obs", [1.0, 2.0, 3.0]), "u_error": 0.1}, at)
    np.testing.assert_array_equal(thin(obs, km=1).u, [1, 3])
    np.testing.assert_array_equal(thin(obs, km=1, per=1.0).u, [1])


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda o: o, {"km": 0}, OptionError, "km=0, expected a positive number of km"),
        (lambda o: o, {"km": 1, "per": "soon"}, OptionError, "per='soon', expected a duration such as '1h'"),
        (lambda o: o, {"km": 1, "per": 2.0}, OptionError, "per=2.0"),
        (lambda o: o, {"km": 1, "per": "-1h"}, OptionError, "above 0"),
        (lambda o: o.rename(obs="station"), {"km": 1}, DataError, "thin: found the dimensions"),
        (lambda o: o.rename(lat="y", lon="x").drop_attrs(), {"km": 1}, DataError, "'y' and 'x' in m or km"),
    ],
)
def test_what_cannot_be_thinned(change, options, error, message):
    with pytest.raises(error, match=message):
        thin(change(measured(50.0, [0.0, 1.0], [1.0, 2.0])), **options)


def test_a_swath_is_thinned_in_the_time_of_what_is_kept():
    lat, lon = map(np.ravel, np.meshgrid(np.linspace(40, 50, 300), np.linspace(0, 10, 300)))
    made = thin(measured(lat, lon, np.ones(lat.size)), km=100)
    pairs = itertools.combinations(range(made.sizes["obs"]), 2)
    apart = kilometres(made.lat.values, made.lon.values)
    assert min(apart[i, j] for i, j in pairs) >= 100 and made.sizes["obs"] > 50
