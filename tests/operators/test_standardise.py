"""Fields in units of their standard deviations."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_fields_are_standardised_layer_by_layer():
    layers = ("time", "layer", "y", "x"), np.random.default_rng(0).normal(2.0, 3.0, (4, 2, 8, 8))
    data = plane(size=8, times=4).assign(q=(*layers, {"units": "s-1", "long_name": "potential vorticity"}))
    data = data.assign_coords(layer=[1, 2])
    found = op.standardise({"q": [2.0, 4.0]}, {"q": [1.0, 0.0]}).apply(data)
    expected = (data.q - xr.DataArray([1.0, 0.0], dims="layer")) / xr.DataArray([2.0, 4.0], dims="layer")
    np.testing.assert_allclose(found.q, expected)
    assert (found.q.attrs["units"], found.u.attrs["units"]) == ("1", "m s-1")
    assert found.q.attrs["long_name"] == "standardised potential vorticity"
    by_data = op.standardise_like(data[["q", "u"]])
    unit = by_data.apply(data)
    np.testing.assert_allclose(unit.q.std(["time", "y", "x"]), [1.0, 1.0])
    np.testing.assert_allclose(unit.u.std(), 1.0)
    assert unit.v.identical(data.v)
    assert op.from_json(by_data.to_json()) == by_data
    for wrong, told in [
        (dict(std={"w": 1.0}), "no variable 'w'"),
        (dict(std={"q": [1.0, 2.0, 3.0]}), "found 3 numbers for 'q', expected 2"),
        (dict(std=[1.0, 2.0]), "'u' has no dimension 'layer'"),
        (dict(std={"q": [1.0, 0.0]}), r"std is \(1.0, 0.0\), expected positive"),
        (dict(std="much"), "std is 'much', expected a finite number"),
    ]:
        with pytest.raises(OperatorError, match=told):
            op.standardise(**wrong).apply(data)
