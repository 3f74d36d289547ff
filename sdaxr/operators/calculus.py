"""Vorticity of a velocity, on a plane or on a sphere.

On a plane, zeta = dv/dx - du/dy. On a sphere of radius R, with longitude lambda and latitude phi,

    zeta = (dv/dlambda - d(u cos phi)/dphi) / (R cos phi).

The derivative at a point is that of the parabola through three neighbouring points: central differences inside the grid
and across the seam of a periodic dimension, one-sided differences of second order at the edges of a bounded one. The
spacing may vary. R is `sdaxr.states.coordinates.EARTH_RADIUS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, register
from sdaxr.operators.pointwise import check_variable
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import OperatorError
from sdaxr.states.axes import is_latitude, is_longitude, upright
from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.states.units import quotient

# The CF standard name of the vorticity, by that of the velocity along x.
_STANDARD_NAMES = {
    "eastward_wind": "atmosphere_relative_vorticity",
    "x_wind": "atmosphere_relative_vorticity",
    "eastward_sea_water_velocity": "ocean_relative_vorticity",
    "sea_water_x_velocity": "ocean_relative_vorticity",
}

POLE = 89.99
"""In degrees: nearer to a pole, there is no vorticity, which is divided by cos(latitude), less than 2e-4 there."""


def vorticity(u: str = "u", v: str = "v") -> Operator:
    """Vorticity dv/dx - du/dy of a velocity, as the variable ``vorticity``; see `sdaxr.operators.calculus`.

    Parameters
    ----------
    u, v
        Variables with the velocity along x (eastward) and along y (northward), in the same units. The vorticity has
        these units per unit of length: that of the coordinates on a plane, m on a sphere.
    """
    return Vorticity(u, v)


@register
@dataclass(frozen=True, repr=False)
class Vorticity(Operator):
    """Vorticity of the velocity ``u``, ``v``; see `vorticity`."""

    u: str = "u"
    v: str = "v"

    name = "vorticity"
    linear = True
    steady = True

    def bind(self, template: Template) -> Bound:
        for name in (self.u, self.v):
            check_variable("vorticity", name, template)
        y, x = self._axes(template)
        dims = template.variables[self.u].dims
        spherical = is_latitude(y, template.coords[y].attrs)
        dx, dy = _Derivative(template, x, dims), _Derivative(template, y, dims)
        out = template.with_variables({"vorticity": self._labels(template, y, x, spherical)})
        if not spherical:
            return Bound(out, lambda fields: {"vorticity": dx(fields[self.v]) - dy(fields[self.u])})

        cosine = _cosine(template.coordinate(y), y, trailing=-axis_of(dims, y) - 1)
        metres_per_degree = np.pi / 180 * EARTH_RADIUS

        def function(fields: Fields) -> Fields:
            cos = cosine.like(fields[self.u])
            return {"vorticity": (dx(fields[self.v]) - dy(fields[self.u] * cos)) / (metres_per_degree * cos)}

        return Bound(out, function)

    def _axes(self, template: Template) -> tuple[str, str]:
        u, v = template.variables[self.u], template.variables[self.v]
        space = template.space(self.u)
        if u.dims != v.dims or len(space) != 2:
            raise OperatorError(
                f"vorticity: '{self.u}' has the dimensions {u.dims} and '{self.v}' has {v.dims}; expected the same "
                "dimensions for both, two of them horizontal"
            )
        schema.check_units(self.v, v.units or None, u.units or None, "the velocity")
        attrs = {d: template.coords[d].attrs if d in template.coords else {} for d in space}
        y, x = upright(space, attrs)
        if is_latitude(y, attrs[y]) != is_longitude(x, attrs[x]):
            raise OperatorError(
                f"vorticity: found the grid ('{y}', '{x}'), expected y and x on a plane, or latitude and longitude"
            )
        return y, x

    def _labels(self, template: Template, y: str, x: str, spherical: bool) -> VariableTemplate:
        u = template.variables[self.u]
        lengths = ["m", "m"] if spherical else [template.coords[d].attrs.get("units", "") for d in (y, x)]
        if lengths[0] != lengths[1]:
            raise OperatorError(
                f"vorticity: '{y}' has units {lengths[0]!r} and '{x}' has units {lengths[1]!r}; expected the same units"
            )
        attrs = {"long_name": "vorticity"}
        if u.attrs.get("standard_name") in _STANDARD_NAMES:
            attrs["standard_name"] = _STANDARD_NAMES[u.attrs["standard_name"]]
        return VariableTemplate(u.dims, quotient(u.units, str(lengths[0])), attrs)


def difference_stencil(values: np.ndarray, period: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of the three-point derivative at each point of a grid.

    Parameters
    ----------
    values
        Strictly monotonic coordinate, shape (n,), with n >= 3.
    period
        Length of the period; None where the dimension is bounded.

    Returns
    -------
    indices, weights
        Shape (3, n) each. The derivative of f at point i is ``sum(weights[:, i] * f[indices[:, i]])``.
    """
    n = values.size
    at = np.arange(n)
    indices = at + np.array([[-1], [0], [1]])
    if period is None:
        indices = indices + (indices[0] < 0) - (indices[2] >= n)
        points = values[indices]
    else:
        turns, indices = indices // n, indices % n
        points = values[indices] + turns * period * np.sign(values[-1] - values[0])
    a, b, c = points
    x = values
    weights = np.stack(
        [
            (2 * x - b - c) / ((a - b) * (a - c)),
            (2 * x - a - c) / ((b - a) * (b - c)),
            (2 * x - a - b) / ((c - a) * (c - b)),
        ]
    )
    return indices, weights


class _Derivative:
    """Derivative along ``dim`` of tensors whose last dimensions are ``dims``."""

    def __init__(self, template: Template, dim: str, dims: tuple[str, ...]) -> None:
        values = template.line(dim)
        steps = np.diff(values)
        if values.size < 3 or not (np.all(steps > 0) or np.all(steps < 0)):
            raise OperatorError(f"vorticity: '{dim}' is {values}, expected at least three values, rising or falling")
        indices, weights = difference_stencil(values, template.period(dim))
        self._axis = axis_of(dims, dim)
        shape = (-1, *[1] * (-self._axis - 1))
        self._indices = [Constant(i) for i in indices]
        self._weights = [Constant(w.reshape(shape)) for w in weights]

    def __call__(self, field: Tensor) -> Tensor:
        terms = (
            field.index_select(self._axis, i.like(field)) * w.like(field)
            for i, w in zip(self._indices, self._weights, strict=True)
        )
        return sum(terms)  # type: ignore[return-value]


def _cosine(latitude: np.ndarray, name: str, trailing: int) -> Constant:
    if np.any(np.abs(latitude) > POLE):
        raise OperatorError(
            f"vorticity: '{name}' contains a pole ({np.abs(latitude).max():g} degrees), where the components have no "
            f"direction; cut it off first, operators.region({name}=(-89, 89)) >> operators.vorticity()"
        )
    return Constant(np.cos(np.deg2rad(latitude.astype(float))).reshape(-1, *[1] * trailing))
