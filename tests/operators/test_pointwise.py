"""Functions of each value by itself, and the choice of variables."""

from __future__ import annotations

import numpy as np
import pytest
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_pointwise_values_and_units():
    data = plane()
    u = data["u"]
    for operator, expected in [
        (op.saturate(), u / (1 + np.abs(u))),
        (op.arctan(3.0), np.arctan(3 * u)),
        (op.sin(3.0, amplitude=2.0), 2 * np.sin(3 * u)),
    ]:
        found = operator.apply(data)["u"]
        np.testing.assert_allclose(found, expected)
        assert found.attrs["units"] == "1"
        assert "eastward velocity" in found.attrs["long_name"]
    found = op.scale(3.6, offset=-1.0, units="km h-1").apply(data)["u"]
    np.testing.assert_allclose(found, 3.6 * u - 1)
    assert found.attrs["units"] == "km h-1"
    assert op.scale(2).apply(data)["u"].attrs["units"] == "m s-1"
    with pytest.raises(OperatorError, match="factor is 'much', expected a finite number"):
        op.scale("much")


def test_select_orders_and_refuses():
    assert list(op.select("v", "u").apply(plane())) == ["v", "u"]
    with pytest.raises(OperatorError, match="no variable 'w'; expected one of u, v"):
        op.select("w").apply(plane())
    with pytest.raises(OperatorError, match="one or more names"):
        op.select()
