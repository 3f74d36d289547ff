"""What is said of a Dataset."""

from __future__ import annotations

import numpy as np
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
