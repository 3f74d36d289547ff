"""The operator of the point form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from instruments import CALENDARS, make_truth

from sdaxr import operators as op
from sdaxr.operators import Template
from sdaxr.operators.measurements import Measurements
from sdaxr.schema import DataError, OperatorError


def measurements(truth: xr.Dataset, **coords: list[float]) -> Measurements:
    at = {"time": truth.time.values[[1, 3]], "y": [1.0, 2.0], "x": [0.5, 6.1]} | coords
    arrays = {n: xr.DataArray(v, dims="obs", name=n) for n, v in at.items()}
    return Measurements(arrays, "obs", np.array([7, 9]), "error", "linear", 0.0, np.ones(2, bool))


@pytest.mark.parametrize("times", CALENDARS)
def test_they_are_locations(times: str) -> None:
    truth = make_truth(times)
    found, json = measurements(truth).apply(truth), op.from_json(measurements(truth).to_json()).apply(truth)
    assert found.obs.values.tolist() == [7, 9]
    for name in "uv":
        np.testing.assert_array_equal(found[name], json[name])


def test_other_coordinates_say_nothing_of_the_place() -> None:
    truth = make_truth()
    found = measurements(truth, elevation=[1.0, np.nan]).apply(truth)
    xr.testing.assert_identical(found, measurements(truth).apply(truth))


def test_some_of_them() -> None:
    truth = make_truth()
    whole, one = measurements(truth), measurements(truth).take(np.array([1]))
    np.testing.assert_array_equal(one.apply(truth).u, whole.apply(truth).u[1:])
    assert one.outside == "drop" and one.apply(truth).obs.values.tolist() == [9]


def test_places_that_are_needed() -> None:
    truth = make_truth()
    with pytest.raises(OperatorError, match=r"no position along 'x', found the coordinates \['time', 'y'\]"):
        whole = measurements(truth)
        replace(whole, coords={n: c for n, c in whole.coords.items() if n != "x"}).apply(truth)
    lost = measurements(truth, x=[np.nan, 1.0])
    with pytest.raises(OperatorError, match="'x' of measurement 0 is nan, expected a value"):
        lost.apply(truth)
    assert replace(lost, needed=np.array([False, True])).apply(truth).obs.values.tolist() == [9]


def test_calendars_have_to_be_the_same() -> None:
    truth = make_truth("cftime")
    times = xr.date_range("2001-02-27", periods=6, freq="12h", calendar="360_day", use_cftime=True)
    with pytest.raises(DataError, match="the measurements have the calendar '360_day', those of the states 'noleap'"):
        measurements(truth.assign_coords(time=times)).bind(Template.from_dataset(truth))
