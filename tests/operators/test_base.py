"""What all operators promise (labels, gradients, linearity, JSON), and composition."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from grids import plane, values

from sdaxr import operators as op
from sdaxr.schema import OperatorError

OPERATORS = [
    op.identity(),
    op.select("v"),
    op.coarsen(4),
    op.coarsen(2, dims="y"),
    op.subsample(2, offset=1),
    op.subsample(3),
    op.region(x=(-1.0, 1.0), y=(1.0, 4.0)),
    op.points({"x": [0.1, 6.2, 3.0], "y": [1.0, 2.0, 6.25]}),
    op.locations({"time": [0.2, 0.6], "x": [0.1, 6.2], "y": [1.0, 2.0]}),
    op.vorticity(),
    op.saturate(),
    op.arctan(2.0),
    op.sin(0.5, amplitude=2.0),
    op.scale(2.0, offset=1.0, units="km h-1"),
    op.scale(3.0),
    op.standardise({"u": 2.0}),
    op.standardise(0.5, mean={"v": 1.0}) >> op.arctan(3.0),
    op.time_difference(),
    op.time_difference(1, 2),
    op.vorticity() >> op.coarsen(4) >> op.saturate(),
]
each = pytest.mark.parametrize("operator", OPERATORS, ids=str)


@each
def test_gradients_are_those_of_finite_differences(operator):
    template, fields = values(plane(size=8, times=4))
    bound = operator.bind(template)

    def flat(*tensors):
        out = bound(dict(zip(fields, tensors, strict=True)))
        return torch.cat([v.flatten() for v in out.values()])

    inputs = [v.requires_grad_() for v in fields.values()]
    assert torch.autograd.gradcheck(flat, inputs, fast_mode=True)


@each
def test_the_output_has_the_shape_of_its_labels(operator):
    template, fields = values(plane(dtype=np.float32))
    bound = operator.bind(template)
    batch = {n: v[None, None].expand(2, 3, *v.shape) for n, v in fields.items()}
    out = bound(batch)
    assert list(out) == list(bound.template.variables)
    for name, value in out.items():
        assert value.dtype == torch.float32
        assert tuple(value.shape) == (2, 3, *bound.template.shape(name))
        torch.testing.assert_close(value[1, 2], bound(fields)[name])


@each
def test_linear_operators_are_linear_and_have_an_adjoint(operator):
    template, x = values(plane(seed=1))
    _, y = values(plane(seed=2))
    bound = operator.bind(template)
    left = bound({n: 2 * x[n] - 3 * y[n] for n in x})
    right = {n: 2 * a - 3 * b for (n, a), b in zip(bound(x).items(), bound(y).values(), strict=True)}
    same = all(torch.allclose(left[n], right[n], atol=1e-10) for n in left)
    assert same == operator.linear
    if operator.linear:
        # <H x, w> = <x, H^T w>, H^T by reverse differentiation at another point.
        w = {n: torch.randn(v.shape, generator=torch.Generator().manual_seed(0)).to(v) for n, v in left.items()}
        at = {n: v.requires_grad_() for n, v in y.items()}
        total = sum((v * w[n]).sum() for n, v in bound(at).items())
        adjoint = torch.autograd.grad(total, list(at.values()), allow_unused=True)
        inner = sum((x[n] * a).sum() for n, a in zip(at, adjoint, strict=True) if a is not None)
        torch.testing.assert_close(inner, sum((v * w[n]).sum() for n, v in bound(x).items()))


@each
def test_json_makes_an_equal_operator(operator):
    text = operator.to_json()
    again = op.from_json(text)
    assert again == operator
    assert again.to_json() == text
    assert op.parse(text) == operator
    xr.testing.assert_identical(again.apply(plane()), operator.apply(plane()))


@each
def test_members_are_observed_one_by_one(operator):
    both = xr.concat([plane(seed=0), plane(seed=1)], "member").assign_coords(member=[4, 7])
    observed = operator.apply(both)
    assert list(observed.member.values) == [4, 7]
    xr.testing.assert_allclose(observed.isel(member=1, drop=True), operator.apply(plane(seed=1)))


@each
def test_labels_survive_a_round_trip(operator):
    observed = operator.apply(plane())
    template = op.Template.from_dataset(observed)
    xr.testing.assert_identical(template.to_dataset(template.arrays(observed)), observed)


def test_composition_is_associative_and_flat():
    a, b, c = op.vorticity(), op.coarsen(4), op.saturate()
    assert (a >> b) >> c == a >> (b >> c) == op.compose(a, b, c)
    xr.testing.assert_identical((a >> b >> c).apply(plane()), c.apply(b.apply(a.apply(plane()))))
    assert json.loads((a >> b).to_json())["steps"][1] == {"op": "coarsen", "factor": 4}
    assert op.compose(a) == a
    with pytest.raises(OperatorError, match="expected at least one"):
        op.compose()
    with pytest.raises(TypeError, match="unsupported operand"):
        a >> 3


def test_layers_pass_through():
    data = plane(layers=2)
    assert op.coarsen(4).apply(data)["u"].dims == ("time", "layer", "y", "x")
    at = op.points({"x": [1.0], "y": [2.0]}).apply(data)
    assert at["u"].dims == ("time", "layer", "station")
    one = op.points({"x": [1.0], "y": [2.0]}).apply(data.isel(layer=1))
    np.testing.assert_allclose(at["u"].isel(layer=1), one["u"])
    w = op.vorticity().apply(data)["vorticity"]
    np.testing.assert_allclose(w.isel(layer=0), op.vorticity().apply(data.isel(layer=0))["vorticity"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an operator such as"),
        ('{"op": "coarse", "factor": 2}', "no operator 'coarse'.*Did you mean 'coarsen'"),
        ('{"op": "coarsen", "factr": 2}', "no parameter 'factr'.*Did you mean 'factor'"),
        ('{"op": "coarsen"}', "lacks the parameter 'factor'"),
        ('{"op": "compose", "steps": []}', "'steps', a list of operators"),
        ('{"op": "scale", "factor": null}', "factor=None for operator .scale., expected a number"),
    ],
)
def test_bad_json_is_explained(text, message):
    with pytest.raises(OperatorError, match=message):
        op.from_json(text)
