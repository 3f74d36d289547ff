"""Which observations are implausible."""

from __future__ import annotations

import numpy as np
import pytest
from instruments import make_truth, soundings

from sdaxr.observations.observe import operator_for
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.plausibility import FARTHEST, implausible_values
from sdaxr.operators import Template
from sdaxr.schema import DataError

TRUTH = make_truth()


def points(value, error=0.1):
    data = soundings(TRUTH, 3).copy(deep=True)
    data["u"].values[1] = value
    data["u_error"] = ("obs", [0.1, error, 0.1])
    return ObservedPoints.of(data, operator_for(data).bind(Template.from_dataset(TRUTH)).template)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1e20, 0.1, "u = 1e.20 m s-1 at time=.*, is 1e.20 standard deviations from the chain's mean of 0, the usual"),
        (-9999.0, 0.1, "the usual number for a missing value; expected at most 50"),
        (1.01 * FARTHEST, 0.1, "is 50 standard deviations from the chain's mean of 0; expected at most 50; correct"),
        (1.0, 1e-30, "has the error 1e-30, 1e-30 times the chain's standard deviation of 1; expected 1e-07 to 1e.06"),
        (1.0, 1e20, "has the error 1e.20, 1e.20 times the chain's standard deviation"),
    ],
)
def test_what_is_implausible_is_named(value, error, message):
    mean, scale = np.zeros(3), np.ones(3)
    with pytest.raises(DataError, match=f"observation 1, .*{message}"):
        implausible_values(points(value, error), mean, scale, whose="the chain's")
    found = implausible_values(points(value, error), mean, scale, whose="the chain's", strict=False)
    assert found.tolist() == [False, True, False]


def test_numbers_of_the_field_may_lie_near_a_marker():
    """A geopotential of 9999 m2 s-2 is no missing value where it is four standard deviations from the mean."""
    mean, scale = np.full(3, 9000.0), np.full(3, 250.0)
    at = points(9999.0)
    at.values[[0, 2]] = 9000.0
    assert not implausible_values(at, mean, scale, whose="the prior's").any()
