"""Templates of Datasets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import DataError, GridError


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


def test_arrays_have_the_shape_of_their_labels():
    template = op.Template.from_dataset(plane())
    arrays = template.arrays(plane())
    with pytest.raises(GridError, match=r"'v' has shape \(4, 8, 7\), expected {'time': 4, 'y': 8, 'x': 8}"):
        template.to_dataset(arrays | {"v": arrays["v"][..., 1:]})
    with pytest.raises(DataError, match=r"found the dimensions \['y', 'x'\] without size"):
        replace(template, coords={"time": template.coords["time"]}, sizes={})


def test_names_along_a_coarsened_dimension_have_no_mean():
    data = plane().assign_coords(town=("x", list("abcdefgh")), region=("y", np.arange(8.0)))
    found = op.coarsen(4).apply(data)
    assert "town" not in found.coords
    np.testing.assert_allclose(found.region, [1.5, 5.5])
