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
def test_locations_are_exact_at_the_times_of_the_state(kind):
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


def test_locations_are_linear_in_time():
    data = plane()
    at = {"x": data.x.values[[2, 2, 2]], "y": data.y.values[[3, 3, 3]]}
    series = data["u"].isel(x=2, y=3).values
    found = op.locations({"time": [0.25, 0.2, 0.2000001], **at}).apply(data)["u"].values
    np.testing.assert_allclose(found, [0.75 * series[1] + 0.25 * series[2], series[1], series[1]], rtol=1e-6)


def test_locations_take_the_nearest_time_within_the_tolerance():
    data = plane()
    at = {"time": [0.25, 0.38], "x": data.x.values[[2, 2]], "y": data.y.values[[3, 3]]}
    series = data["u"].isel(x=2, y=3).values
    found = op.locations(at, time="nearest", tolerance=0.06).apply(data)["u"].values
    np.testing.assert_allclose(found, series[[1, 2]], rtol=1e-6)
    with pytest.raises(OperatorError, match=r"'time' of obs 0 is 0.25 and is further than the tolerance"):
        op.locations(at, time="nearest", tolerance=0.04).apply(data)
    dropped = op.locations(at, time="nearest", tolerance=0.04, outside="drop").apply(data)
    assert dropped.attrs == {"obs_outside_grid": 1} and dropped.obs.values.tolist() == [1]
    with pytest.raises(OperatorError, match="time is 'cubic'; expected one of linear, nearest"):
        op.locations(at, time="cubic")


def test_locations_refuse_times_outside():
    at = {"x": [1.0, 1.0], "y": [2.0, 2.0]}
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
