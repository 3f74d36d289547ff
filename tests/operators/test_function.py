"""A function of the user's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from grids import plane

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def speed(fields):
    return {"speed": (fields["u"] ** 2 + fields["v"] ** 2).sqrt()}


def test_a_function_of_ones_own():
    data = plane()
    operator = op.function(speed, units={"speed": "m s-1"}) >> op.coarsen(4)
    found = operator.apply(data)["speed"]
    np.testing.assert_allclose(found, np.hypot(data["u"], data["v"]).coarsen(x=4, y=4).mean())
    assert found.attrs["units"] == "m s-1"
    mean = op.function(lambda f: {"u": f["u"].mean(-1)}, units={"u": "m s-1"}, dims={"u": ("time", "y")})
    assert mean.apply(data)["u"].dims == ("time", "y")
    same = op.function(lambda f: {n: v**3 for n, v in f.items()})
    np.testing.assert_allclose(same.apply(data)["v"], data["v"] ** 3)

    def thinner(template):
        return replace(template.take("x", slice(0, 4)), attrs={})

    cut = op.function(lambda f: {n: v[..., :4] for n, v in f.items()}, template=thinner)
    assert cut.apply(data).sizes["x"] == 4


def test_a_function_cannot_be_saved():
    operator = op.vorticity() >> op.function(lambda f: f, name="mine")
    with pytest.raises(OperatorError, match=r"can be written as JSON.*operator="):
        operator.to_json()
    with pytest.raises(OperatorError, match=r"Python function 'mine'.*operator="):
        op.from_json(json.dumps(operator.to_dict()))


def test_a_function_that_returns_something_else_is_refused():
    with pytest.raises(OperatorError, match=r"'speed' returned .* expected .*units=, dims= or template="):
        op.function(speed).apply(plane())
    with pytest.raises(OperatorError, match="returned"):
        op.function(lambda f: {"u": f["u"].mean(-1)}, units={"u": "1"}).apply(plane())
    with pytest.raises(OperatorError, match="no dimension 'z'"):
        op.function(speed, dims={"speed": ("time", "z")}).apply(plane())
    with pytest.raises(OperatorError, match="expected a function"):
        op.function(3)
