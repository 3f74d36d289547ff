"""Observations without the points where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.bias import with_bias
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.screening import GROSS_ERROR, MISSING, USED, Screening
from sdaxr.operators import Template
from sdaxr.schema import DataError, GridError

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


@pytest.mark.parametrize("correlated", [False, True])
def test_errors_share_the_biases_of_their_sources(correlated: bool) -> None:
    data = with_bias(network(), {"a": 0.3}, by="site")
    expected = np.diag([0.1, 0.1, 0.2, 0.5]) ** 2 + np.zeros((4, 4))
    if correlated:
        data["a_error"].attrs["correlation_scales"] = '{"time": 2.0}'
        expected[0, 1] = expected[1, 0] = 0.01 * np.exp(-1.0)
    expected[:2, :2] += 0.09
    expected[2, 2] += 0.09
    points = ObservedPoints.of(data, template())
    np.testing.assert_allclose(points.errors, np.sqrt(expected.diagonal()))
    np.testing.assert_allclose(points.own_errors, [0.1, 0.1, 0.2, 0.5])
    chosen = np.array([True, False, True, True])
    for part, matrix in ((points, expected), (points.select(chosen), expected[np.ix_(chosen, chosen)])):
        assert (part.correlation is None) != correlated and (part.shared is None) == correlated
        found = part.shared.dense() if part.shared else part.correlation * part.errors * part.errors[:, None]
        np.testing.assert_allclose(found, matrix, atol=1e-15)
    assert points.shared is points.shared, "built once"


def test_an_output_is_taken_at_the_observations() -> None:
    points = ObservedPoints.of(network(), template())
    output = xr.Dataset(
        {"a": (("site", "member", "time"), np.arange(12.0).reshape(2, 2, 3)), "b": ("time", [7.0, 8.0, 9.0])}
    ).assign(b=lambda d: d.b.expand_dims(member=2))
    np.testing.assert_allclose(points.predicted(output, ["member"]), [[0, 2, 8, 9], [3, 5, 11, 9]])
    with pytest.raises(GridError, match="expected \\(3, 2\\) along"):
        points.predicted(output.isel(time=slice(2)), ["member"])
