"""Biases from the attributes of errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.shared import bias_attributes, biases_of, converted_bias, sources_of
from sdaxr.schema import DataError

GRID = xr.Dataset(
    {"t": (("time", "x"), np.zeros((2, 3))), "t_error": ((), 0.5)},
    {"source": ("x", ["b", "a", "b"]), "height": ("x", [0.0, 1.0, 2.0]), "hour": ("time", [0, 12]), "angle": 3.0},
)


def biased(by: str | None, **deviations: float) -> xr.Dataset:
    return GRID.assign(t_error=GRID.t_error.assign_attrs(bias_attributes({"constant": 2.0} | deviations, by)))


def test_predictors_and_sources_of_values_on_a_grid() -> None:
    data = biased("source", height=0.5, hour=0.1, angle=1.0)
    found = biases_of(data, "t", "t_error", np.array([0, 2, 4]), ("time", "x"))
    assert found is not None and found.sources == ["a", "b"] and found.number.tolist() == [1, 1, 0]
    expected = [[1, 0, 0, 3], [1, 2, 0, 3], [1, 1, 12, 3]]
    np.testing.assert_allclose(found.predictors, expected)
    np.testing.assert_allclose(found.variance, np.square(np.array(expected) * [2.0, 0.5, 0.1, 1.0]).sum(1))
    other = biases_of(data, "t", "t_error", np.array([0, 4, 3]), ("x", "time"))
    assert other is not None
    np.testing.assert_allclose(other.predictors, [[1, 0, 0, 3], [1, 2, 0, 3], [1, 1, 12, 3]])


def test_some_values_have_the_sources_that_are_left() -> None:
    found = biases_of(biased("source"), "t", "t_error", np.arange(6), ("time", "x"))
    assert found is not None and found.sources == ["a", "b"]
    left = found.select(np.array([True, False, True, True, False, False]))
    assert left.sources == ["b"] and left.number.tolist() == [0, 0, 0]
    np.testing.assert_allclose(left.loadings, 2.0)


def test_sources_are_numbered_for_the_whole_coordinate() -> None:
    entries, number = sources_of(GRID, "t", "source", np.array([0, 3]), ("time", "x"))
    assert entries == ["a", "b"] and number.tolist() == [1, 1]
    assert sources_of(GRID, "t", None, np.array([0, 3]), ("time", "x"))[0] == ["all"]


def test_a_bias_in_other_units() -> None:
    attrs = biased("source", height=0.5).t_error.attrs
    assert converted_bias(attrs, "t_error", 100.0) == bias_attributes({"constant": 200.0, "height": 50.0}, "source")
    assert converted_bias({}, "t_error", 100.0) == {}
    assert biases_of(GRID, "t", "t_error", np.arange(6), ("time", "x")) is None


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"bias": "large"}, "the bias of 't_error' has the standard deviation 'large' for 'constant'"),
        ({"bias_predictors": "height"}, "'bias_predictors' of 't_error' is 'height', expected a JSON object"),
        (
            {"bias_predictors": '{"height": -1.0}'},
            "standard deviation -1.0 for 'height', expected a number above 0",
        ),
        ({"bias_predictors": '["height"]'}, r"the standard deviation \['height'\] for 'bias_predictors'"),
        ({"bias_by": "ship"}, "expected 'ship'; pass by= one of them"),
    ],
)
def test_attributes_that_cannot_be_read(attrs: dict[str, Any], message: str) -> None:
    data = biased("source")
    data["t_error"].attrs |= attrs
    with pytest.raises(DataError, match=message):
        biases_of(data, "t", "t_error", np.arange(6), ("time", "x"))
