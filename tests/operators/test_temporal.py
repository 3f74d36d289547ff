"""Differences in time."""

from __future__ import annotations

import numpy as np
import pytest
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_time_difference_has_no_time():
    data = plane()
    found = op.time_difference(0, -1).apply(data)
    np.testing.assert_allclose(found["u"], data["u"][-1] - data["u"][0])
    assert "time" not in found.coords
    with pytest.raises(OperatorError, match="last is 4, but the window has 4 times"):
        op.time_difference(0, 4).apply(data)
    with pytest.raises(OperatorError, match="expected 'time' first"):
        op.time_difference().apply(data.isel(time=0, drop=True))


@pytest.mark.parametrize("position", [1.5, True, "last"])
def test_positions_are_whole_numbers(position):
    with pytest.raises(OperatorError, match=f"first is {position!r}, expected an index along time"):
        op.time_difference(position)
