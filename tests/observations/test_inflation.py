"""Larger errors for some networks."""

from __future__ import annotations

import numpy as np
import pytest
from instruments import make_truth
from measurements import measured

from sdaxr import operators as op
from sdaxr.observations.inflation import inflate
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, OptionError

OBS = measured(50.0, 0.0, [1.0, 2.0, 3.0], errors=[1.0, 2.0, 3.0], source=["a", "b", "c"])


def test_all_errors_or_those_of_a_source():
    np.testing.assert_array_equal(inflate(OBS, 2.0).t2m_error, [2, 4, 6])
    made = inflate(OBS, {"b": 3.0, "c": 0.5})
    np.testing.assert_array_equal(made.t2m_error, [1, 6, 1.5])
    assert made.t2m_error.attrs == OBS.t2m_error.attrs and OBS.t2m_error.values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(made.t2m, OBS.t2m)


def test_errors_of_a_grid_keep_their_form():
    grid = observe(make_truth(), op.identity(), error=0.1)
    made = inflate(grid, 2.0)
    assert made.u_error.dims == grid.u_error.dims
    np.testing.assert_allclose(made.u_error, 0.2)


@pytest.mark.parametrize(
    ("factor", "by", "error", "message"),
    [
        (0.0, "source", OptionError, "factor=0.0, expected a positive number"),
        ({"a": -1.0}, "source", OptionError, r"factor\['a'\]=-1.0"),
        ({"d": 2.0}, "source", OptionError, "factor= names 'd'; expected one of a, b, c"),
        ({"a": 2.0}, "station", DataError, "expected 'station'; pass by="),
    ],
)
def test_impossible_factors(factor, by, error, message):
    with pytest.raises(error, match=message):
        inflate(OBS, factor, by=by)
