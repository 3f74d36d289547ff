"""Operators over the sea part of what they see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr import operators as op
from sdaxr.operators import Operator, Template
from sdaxr.operators.sea import AtSea, SeaPart

FIELD = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
SEA = np.array([[True, True, False, False], [True, False, False, False]])


def fields() -> xr.Dataset:
    return xr.Dataset({"t": (("y", "x"), np.where(SEA, FIELD, np.nan))}, {"y": [0.0, 1.0], "x": np.arange(4.0)})


def seen(operator: Operator) -> np.ndarray:
    return AtSea(operator, {"t": SEA}).apply(fields())["t"].values


def test_an_average_is_that_of_the_sea() -> None:
    np.testing.assert_allclose(seen(op.coarsen(2)), [[(1 + 2 + 5) / 3, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(seen(op.coarsen(2) >> op.scale(10.0)), [[(1 + 2 + 5) / 0.3, np.nan]], rtol=1e-6)


def test_an_interpolation_is_that_of_the_sea() -> None:
    points = op.points({"y": [0.0, 0.0, 0.5, 0.0], "x": [0.5, 1.25, 0.5, 2.5]})
    np.testing.assert_allclose(seen(points), [1.5, 2.0, (1 + 2 + 5) / 3, np.nan], rtol=1e-6)


@pytest.mark.parametrize("operator", [op.arctan(), op.function(lambda f: {"t": f["t"] - 1.0})], ids=repr)
def test_other_operators_have_no_sea_part(operator: Operator) -> None:
    bound = operator.bind(Template.from_dataset(fields()))
    assert SeaPart.of(operator, bound, {"t": torch.as_tensor(SEA)}) is None
    np.testing.assert_array_equal(seen(operator), operator.apply(fields())["t"])


def test_the_gradient_at_sea_is_finite_whatever_is_on_land() -> None:
    bound = op.coarsen(2).bind(Template.from_dataset(fields()))
    part = SeaPart.of(op.coarsen(2), bound, {"t": torch.as_tensor(SEA)})
    x = torch.zeros(2, 4, requires_grad=True)
    part({"t": x})["t"].sum().backward()
    np.testing.assert_allclose(x.grad, SEA / 3, rtol=1e-6)
