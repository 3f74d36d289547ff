"""Templates of Datasets."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import GridError


def test_time_comes_first_whatever_the_order_of_the_data():
    data = plane()
    turned = data.transpose("x", "time", "y")
    assert op.identity().apply(turned)["u"].dims[0] == "time"
    xr.testing.assert_allclose(op.coarsen(4).apply(turned).transpose("time", "y", "x"), op.coarsen(4).apply(data))


def test_a_dimension_without_coordinate_is_fine():
    data = xr.Dataset({"x": (("time", "site"), np.arange(12.0).reshape(2, 6))}, {"time": [0.0, 1.0]})
    np.testing.assert_array_equal(op.subsample(2).apply(data)["x"], data["x"][:, ::2])
    assert "site" not in op.coarsen(2).apply(data).coords
    with pytest.raises(GridError, match="'site' has no coordinate"):
        op.points({"site": [1.0]}).apply(data)
