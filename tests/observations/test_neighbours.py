"""The buddy check of titanlib."""

from __future__ import annotations

import numpy as np
import pytest
from measurements import measured

from sdaxr.observations import neighbours
from sdaxr.observations.neighbours import buddy_check
from sdaxr.schema import DataError, OptionError

LAT = np.linspace(50, 50.5, 8)


def network(**options):
    """Eight stations at two hours; the fourth is wrong at the first hour, the sixth lies high and is colder."""
    values = 280 + 0.1 * np.arange(8.0)
    both = np.r_[values, values + 5]
    both[3] += 30
    heights = np.where(np.arange(8) == 5, 1000.0, 0.0)
    return measured(np.tile(LAT, 2), 0.0, both, hours=np.repeat([0, 1], 8), elevation=np.tile(heights, 2))


def test_what_does_not_fit_is_left_out():
    pytest.importorskip("titanlib")
    obs = network()
    made = buddy_check(obs, km=100)
    np.testing.assert_array_equal(made.t2m, np.delete(obs.t2m.values, 3))
    assert made.attrs["observations_failed_buddy_check"] == 1


def test_a_bad_value_is_no_neighbour():
    pytest.importorskip("titanlib")
    flags = ("obs", np.where(np.arange(16) == 3, 4, 1).astype("i1"), {"conventions": "Argo"})
    made = buddy_check(network().assign(t2m_qc=flags), km=100)
    assert made.attrs["observations_failed_buddy_check"] == 0 and made.attrs["observations_flagged"] == 1


def test_with_few_neighbours_nothing_is_checked():
    pytest.importorskip("titanlib")
    assert buddy_check(network(), km=100, neighbours=8).sizes == {"obs": 16}
    assert buddy_check(network(), km=1).sizes == {"obs": 16}


def test_the_height_of_a_station_explains_its_temperature():
    pytest.importorskip("titanlib")
    obs = network()
    obs["t2m"] = obs.t2m - 0.0065 * obs.elevation
    assert buddy_check(obs, km=100).sizes == {"obs": 13}
    assert buddy_check(obs, km=100, height=2000.0, gradient=-0.0065).sizes == {"obs": 15}
    with pytest.raises(DataError, match="needs the coordinate 'elevation' without gaps, found None"):
        buddy_check(obs.drop_vars("elevation"), km=100, height=100.0)


def test_without_titanlib(monkeypatch):
    monkeypatch.setattr(neighbours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"needs titanlib.*pip install 'sdaxr\[quality\]'"):
        buddy_check(network(), km=100)


@pytest.mark.parametrize(
    "options", [{"km": 0}, {"km": 1, "threshold": 0}, {"km": 1, "least": 0}, {"km": 1, "neighbours": 0}]
)
def test_impossible_options(options):
    with pytest.raises(OptionError, match="expected"):
        buddy_check(network(), **options)
