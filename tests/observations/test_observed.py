"""Observations without the points where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.screening import GROSS_ERROR, MISSING, USED, Screening
from sdaxr.operators import Template
from sdaxr.schema import DataError

TIMES = np.arange(3.0)


def network() -> xr.Dataset:
    """Two variables at some of the times 0, 1, 2 and sites 0, 1."""
    a = ("time", "site"), np.array([[1.0, np.nan], [3.0, 4.0]])
    data = {"a": a, "a_error": ("site", [0.1, 0.2]), "b": ("time", [np.nan, 7.0]), "b_error": ((), 0.5)}
    return xr.Dataset(data, {"time": [0.0, 2.0], "site": [0, 1]})


def template() -> Template:
    blank = {"a": (("time", "site"), np.zeros((3, 2))), "b": ("time", np.zeros(3))}
    return Template.from_dataset(xr.Dataset(blank, {"time": TIMES, "site": [0, 1]}))


def test_values_and_errors_stand_one_variable_after_the_other() -> None:
    points = ObservedPoints.of(network(), template())
    assert points.count == 4
    assert {name: index.tolist() for name, index in points.where.items()} == {"a": [0, 4, 5], "b": [2]}
    np.testing.assert_allclose(points.values, [1.0, 3.0, 4.0, 7.0])
    np.testing.assert_allclose(points.errors, [0.1, 0.1, 0.2, 0.5])
    assert points.families.tolist() == ["gaussian"] * 4 and points.correlation is None


def test_families_and_correlations_belong_to_each_observation() -> None:
    data = network()
    data["b_error"].attrs["distribution"] = "laplace"
    data["a_error"].attrs["correlation_scales"] = '{"time": 2.0}'
    points = ObservedPoints.of(data, template())
    assert points.families.tolist() == ["gaussian"] * 3 + ["laplace"]
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = np.exp(-1.0)
    np.testing.assert_allclose(points.correlation, expected)


def test_some_of_them_are_selected() -> None:
    points = ObservedPoints.of(network(), template()).select(np.array([False, True, False, True]))
    assert {name: index.tolist() for name, index in points.where.items()} == {"a": [4], "b": [2]}
    np.testing.assert_allclose(points.values, [3.0, 7.0])
    np.testing.assert_allclose(points.errors, [0.1, 0.5])


def test_what_lies_outside_is_refused_or_left_out() -> None:
    late = network().assign_coords(time=[0.0, 5.0])
    with pytest.raises(DataError, match="lies outside the window"):
        ObservedPoints.of(late, template())
    assert ObservedPoints.of(late, template(), Screening(outside="drop")).values.tolist() == [1.0]


def test_what_is_rejected_has_a_reason() -> None:
    points = ObservedPoints.of(network(), template())
    left = points.reject(np.array([False, True, False, True]), GROSS_ERROR)
    assert left.values.tolist() == [1.0, 4.0]
    assert left.status["a"].tolist() == [[USED, MISSING], [GROSS_ERROR, USED]]
    assert left.status["b"].tolist() == [MISSING, GROSS_ERROR]
    assert points.status["b"].tolist() == [MISSING, USED], "the original is left as it is"
    assert points.reject(np.zeros(4, bool), GROSS_ERROR) is points


def test_an_observation_is_described_by_number_value_and_place() -> None:
    points = ObservedPoints.of(network(), template())
    assert points.describe(2) == "observation 3, a = 4 at time=2.0, site=1,"
    assert points.describe(3) == "observation 1, b = 7 at time=2.0,"
