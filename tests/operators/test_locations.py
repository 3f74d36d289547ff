"""Values at places and times."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from grids import plane

from sdaxr import operators as op
from sdaxr.operators.locations import write_times
from sdaxr.schema import OperatorError


@pytest.mark.parametrize("kind", ["float", "timedelta", "datetime", "cftime"])
def test_locations_are_exact_in_time(kind):
    data = plane(layers=2)
    times = {
        "float": data.time.values,
        "timedelta": np.arange(4) * np.timedelta64(90, "m").astype("m8[ns]"),
        "datetime": np.datetime64("2019-03-01", "ns") + np.arange(4) * np.timedelta64(90, "m"),
        "cftime": xr.date_range("2001-02-27", periods=4, freq="D", calendar="noleap", use_cftime=True),
    }[kind]
    data = data.assign_coords(time=times)
    at = {"time": write_times(data.time[[3, 1]]), "layer": [2, 1], "x": data.x[[2, 5]], "y": data.y[[0, 7]]}
    operator = op.from_json(op.locations(at).to_json())
    found = operator.apply(data)["u"]
    assert found.dims == ("obs",)
    np.testing.assert_allclose(found, [data["u"][3, 1, 0, 2], data["u"][1, 0, 7, 5]])
    np.testing.assert_array_equal(found.time, data.time[[3, 1]])


def test_locations_refuse_times_off_the_step_and_outside():
    at = {"x": [1.0, 1.0], "y": [2.0, 2.0]}
    with pytest.raises(OperatorError, match=r"time 0.3 of measurement 1 is not a step .* nearest step is 0\.2"):
        op.locations({"time": [0.2, 0.3], **at}).apply(plane())
    outside = {"time": [0.2, 0.8], **at}
    with pytest.raises(OperatorError, match=r"'time' of obs 1 is 0\.8"):
        op.locations(outside).apply(plane())
    assert op.locations(outside, outside="drop").apply(plane()).attrs == {"obs_outside_grid": 1}
    with pytest.raises(OperatorError, match="same kind of time"):
        op.locations({"time": ["2019-03-01"] * 2, **at}).apply(plane())
    with pytest.raises(OperatorError, match="expected 'time'"):
        op.locations(at)


def test_times_and_positions_are_as_many():
    with pytest.raises(OperatorError, match=r"found 2 times, expected one for each position in \['x', 'y'\]"):
        op.locations({"time": [0.2, 0.4], "x": [1.0], "y": [2.0]})
