"""The inversion of potential vorticity against closed forms and the solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from layers import CELLS, DELTA, RD, SIDE, labelled, reference, turbulence, wave

from sdaxr import operators as op
from sdaxr.operators import Template
from sdaxr.schema import OperatorError

ALL = ("streamfunction", "u", "v", "vorticity")


def test_inversion_is_that_of_the_solver():
    q = turbulence()
    found = op.pv_inversion("streamfunction", "u", "v").apply(labelled(q).astype(float))
    expected = reference(q)
    for name, key in (("streamfunction", "p"), ("u", "u"), ("v", "v")):
        np.testing.assert_allclose(found[name], expected[key], atol=1e-9 * np.abs(expected[key]).max())


@pytest.mark.parametrize(("kx", "ky"), [(1, 0), (3, -2), (0, 5)])
def test_inversion_of_a_wave_in_each_layer(kx: int, ky: int):
    """psi = a cos and b cos in the layers: q by its definition, and back."""
    cosine, square = wave(kx, ky)
    upper = RD**-2 / (1 + DELTA)
    a, b = 3e3, -1e3
    q = np.stack([-square * a + upper * (b - a), -square * b + DELTA * upper * (a - b)])[:, None, None] * cosine
    found = op.pv_inversion(*ALL).apply(labelled(q).astype(float))
    psi = np.stack([a * cosine, b * cosine])
    np.testing.assert_allclose(found.streamfunction, psi, atol=1e-8)
    np.testing.assert_allclose(found.vorticity, -square * psi, atol=1e-17)
    at = (np.arange(CELLS) + 0.5) / CELLS * 2 * np.pi
    sine = np.sin(kx * at + ky * at[:, None]) * 2 * np.pi / SIDE
    np.testing.assert_allclose(found.u, np.stack([a, b])[:, None, None] * ky * sine, atol=1e-12)
    np.testing.assert_allclose(found.v, np.stack([a, b])[:, None, None] * -kx * sine, atol=1e-12)


def test_inversion_has_labels_and_units_and_keeps_the_order_of_dimensions():
    data = labelled(turbulence()).astype(np.float32)
    found = op.pv_inversion(*ALL).apply(data)
    assert list(found.data_vars) == list(ALL)
    assert [found[n].units for n in ALL] == ["m2 s-1", "m s-1", "m s-1", "s-1"]
    assert found.u.dims == ("layer", "y", "x") and found.u.dtype == np.float32
    turned = op.pv_inversion().apply(data.transpose("x", "layer", "y"))
    assert turned.u.dims == ("x", "layer", "y")
    np.testing.assert_allclose(turned.u.transpose(*found.u.dims), found.u, rtol=1e-4, atol=1e-6)


def test_two_times_are_not_layers():
    one = labelled(turbulence())
    pair = xr.concat([one, 2 * one], "time").assign_coords(time=[0.0, 1.0])
    found, alone = (op.pv_inversion("u").apply(data).u for data in (pair, one))
    for number in (0, 1):
        expected = (1 + number) * alone.values
        np.testing.assert_allclose(found.isel(time=number), expected, atol=1e-5 * np.abs(expected).max())


def test_inversion_is_linear_and_written_down():
    operator = op.pv_inversion("v", rd=2e4)
    assert operator.linear and op.from_json(operator.to_json()) == operator == op.parse("pv_inversion('v', rd=2e4)")
    bound = operator.bind(Template.from_dataset(labelled(turbulence())))
    q = torch.as_tensor(turbulence()).requires_grad_()
    other = torch.as_tensor(turbulence(1))
    together = bound({"q": q + 2 * other})["v"]
    torch.testing.assert_close(together, bound({"q": q})["v"] + 2 * bound({"q": other})["v"])
    (slope,) = torch.autograd.grad(bound({"q": q})["v"][0, 3, 4], q)
    expected = float(bound({"q": other})["v"][0, 3, 4])
    assert float((slope * other).sum()) == pytest.approx(expected)


def test_inversion_says_what_it_cannot_do():
    data = labelled(turbulence())
    for call, message in [
        (lambda: op.pv_inversion("w"), "there is no output"),
        (lambda: op.pv_inversion("u", "u"), "expected one or more, none of them twice"),
        (lambda: op.pv_inversion(rd=-1.0), "expected a positive number"),
        (lambda: op.pv_inversion(variable="pv").apply(data), "there is no variable"),
        (lambda: op.pv_inversion().apply(data.isel(layer=[0])), "expected one with two layers"),
        (lambda: op.pv_inversion().apply(data.isel(x=slice(1, None))), "take the whole domain"),
        (lambda: op.pv_inversion().apply(data.drop_vars("x")), "periodic=1"),
    ]:
        with pytest.raises(OperatorError, match=message):
            call()
