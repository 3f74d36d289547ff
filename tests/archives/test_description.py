"""What is said of a Dataset."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.configuration import config_attrs
from sdaxr.archives.description import describe, format_facts, provenance
from sdaxr.archives.format import COMPLETE, FAILED, PENDING


def test_units_are_counted_by_their_status() -> None:
    status = ("trajectory", np.array([COMPLETE, COMPLETE, PENDING, FAILED, 7], np.int8))
    data = xr.Dataset({"x": (("trajectory", "time"), np.zeros((5, 2)), {"units": "1"})}, {"status": status})
    facts = describe(data)
    assert facts["kind"] == "trajectories" and facts["trajectory"] == "5"
    assert facts["status"] == "complete 2, pending 1, failed 1, 7 1"
    assert format_facts({"a": "1", "long": "2"}) == "a     1\nlong  2"


def test_provenance_shows_the_configuration_once_and_no_bookkeeping() -> None:
    attrs = config_attrs({"seed": 1, "steps": 4}) | {"seed": 1, "title": "x" * 200}
    facts = provenance(xr.Dataset(attrs=attrs))
    assert facts["configuration"] == "steps: 4" and facts["seed"] == "1"
    assert set(facts) == {"seed", "title", "configuration"} and len(facts["title"]) == 100


@pytest.mark.parametrize(
    ("part", "space"),
    [
        ({}, "y 8 (periodic), x 8 (periodic)"),
        ({"x": slice(0, 4)}, "y 8 (periodic), x 4"),
        ({"x": slice(0, 7), "y": [0]}, "y 1, x 7"),
        ({"x": slice(0, None, 2)}, "y 8 (periodic), x 4 (periodic)"),
    ],
)
def test_a_cut_of_a_periodic_domain_is_not_called_periodic(
    trajectories: xr.Dataset, part: dict[str, slice], space: str
) -> None:
    assert describe(trajectories.isel(part))["space"] == space


def test_longitudes_are_called_periodic_around_the_globe() -> None:
    lon = np.arange(0.0, 360.0, 90.0)
    data = xr.Dataset({"t": (("time", "lon"), np.zeros((2, 4)))}, {"time": [0.0, 1.0], "lon": lon})
    assert describe(data)["space"] == "lon 4 (periodic)"
    assert describe(data.isel(lon=slice(0, 3)))["space"] == "lon 3"
