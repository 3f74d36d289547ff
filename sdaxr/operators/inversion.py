r"""Inversion of quasi-geostrophic potential vorticity in two layers.

.. math:: q_1 = \nabla^2 \psi_1 + F_1 (\psi_2 - \psi_1), \qquad q_2 = \nabla^2 \psi_2 + F_2 (\psi_1 - \psi_2)

with :math:`F_1 = r_d^{-2} / (1 + \delta)` and :math:`F_2 = \delta F_1`. On a doubly periodic plane, these are two
equations for each wave: for its amplitudes in the two layers. Then :math:`u = -\partial_y \psi`,
:math:`v = \partial_x \psi` and :math:`\zeta = \nabla^2 \psi`, in Fourier space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sdaxr import schema
from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, register
from sdaxr.operators.pointwise import check_variable, number
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import OperatorError
from sdaxr.states.axes import upright
from sdaxr.states.units import power, quotient

OUTPUTS = {
    "streamfunction": "streamfunction",
    "u": "velocity along x",
    "v": "velocity along y",
    "vorticity": "relative vorticity",
}


def pv_inversion(*outputs: str, variable: str = "q", rd: float = 15e3, delta: float = 0.25) -> Operator:
    """Linear functions of potential vorticity: streamfunction, velocities and relative vorticity of both layers.

    Parameters
    ----------
    *outputs
        Some of ``"streamfunction"``, ``"u"``, ``"v"``, ``"vorticity"``; by default ``"u", "v"``.
    variable
        Anomaly of potential vorticity, with a dimension of two layers (the upper one first) and two periodic, evenly
        spaced dimensions. The values are physical: the inversion mixes the layers, so that layers which are normalised
        one by one have another inversion.
    rd
        Deformation radius, in the units of the coordinates. Default: that of the system ``quasigeostrophic``, in m.
    delta
        Ratio of the layers' thicknesses, upper to lower.
    """
    return PVInversion(outputs or ("u", "v"), variable, rd, delta)


@register
@dataclass(frozen=True, repr=False)
class PVInversion(Operator):
    """Inversion of potential vorticity; see `pv_inversion`."""

    outputs: tuple[str, ...] = ("u", "v")
    variable: str = "q"
    rd: float = 15e3
    delta: float = 0.25

    name = "pv_inversion"
    linear = True
    steady = True

    def __post_init__(self) -> None:
        outputs = (self.outputs,) if isinstance(self.outputs, str) else tuple(self.outputs)
        for output in outputs:
            if output not in OUTPUTS:
                raise OperatorError(f"pv_inversion: there is no output {schema.nearest(output, OUTPUTS)}")
        if not outputs or len(set(outputs)) < len(outputs):
            raise OperatorError(f"pv_inversion: found the outputs {outputs}, expected one or more, none of them twice")
        object.__setattr__(self, "outputs", outputs)
        for key in ("rd", "delta"):
            value = number("pv_inversion", key, getattr(self, key))
            if value <= 0:
                raise OperatorError(f"pv_inversion: {key} is {value:g}, expected a positive number")
            object.__setattr__(self, key, value)

    def bind(self, template: Template) -> Bound:
        check_variable("pv_inversion", self.variable, template)
        q = template.variables[self.variable]
        y, x = self._plane(template)
        layers = [d for d in q.dims if d not in (schema.TIME, y, x) and template.sizes[d] == 2]
        if len(layers) != 1:
            raise OperatorError(
                f"pv_inversion: '{self.variable}' has the dimensions { {d: template.sizes[d] for d in q.dims} }, "
                f"expected one with two layers beside '{y}' and '{x}'"
            )
        axes = tuple(axis_of(q.dims, d) for d in (layers[0], y, x))
        kx, ky = self._wavenumber(template, x), self._wavenumber(template, y)
        inverse = Constant(self._inverse(kx, ky))
        factors = {
            n: (Constant(f.real), Constant(f.imag)) for n, f in self._factors(kx, ky).items() if n in self.outputs
        }
        size = template.sizes[y], template.sizes[x]

        def function(fields: Fields) -> Fields:
            q = fields[self.variable].movedim(axes, (-3, -2, -1))
            spectrum = torch.fft.rfft2(q)
            # (to, from, ky, kx) times (..., from, ky, kx)
            psi = (inverse.like(q) * spectrum.unsqueeze(-4)).sum(-3)
            out = {}
            for name in self.outputs:
                real, imaginary = (part.like(q) for part in factors[name])
                out[name] = torch.fft.irfft2(torch.complex(real, imaginary) * psi, s=size).movedim((-3, -2, -1), axes)
            return out

        labels = self._labels(q, template.coords[x].attrs.get("units", ""))
        return Bound(template.with_variables({n: labels[n] for n in self.outputs}), function)

    def _plane(self, template: Template) -> tuple[str, str]:
        space = [d for d in template.variables[self.variable].dims if template.period(d) is not None]
        if len(space) != 2 or len({template.coords[d].attrs.get("units") for d in space}) != 1:
            raise OperatorError(
                f"pv_inversion: the periodic dimensions of '{self.variable}' are {space}, expected two of the same "
                "units, y and x; take the whole domain, with equal steps, and give its coordinates the attributes "
                "periodic=1 and period"
            )
        return upright(space, {d: template.coords[d].attrs for d in space})

    def _wavenumber(self, template: Template, dim: str) -> np.ndarray:
        values, period = template.line(dim), template.period(dim)
        assert period is not None  # `_plane` chose periodic dimensions only
        if values[-1] < values[0]:
            raise OperatorError(
                f"pv_inversion: '{dim}' falls from {values[0]:g} to {values[-1]:g}, expected a rising coordinate; "
                f"reverse it with ds.isel({dim}=slice(None, None, -1))"
            )
        return 2 * np.pi * np.fft.fftfreq(values.size, period / values.size)

    def _inverse(self, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        """Matrices from q to psi, one for each wave: (to layer, from layer, ky, kx); zero for the mean."""
        half = kx[: kx.size // 2 + 1]
        square = ky[:, None] ** 2 + half**2
        upper = self.rd**-2 / (1 + self.delta)
        lower = self.delta * upper
        ones = np.ones_like(square)
        matrix = np.array([[-(square + upper), upper * ones], [lower * ones, -(square + lower)]])
        # In closed form and double precision: for q in s-1 and lengths in m, the entries differ by orders of magnitude.
        determinant = square * (square + upper + lower)
        adjugate = np.array([[matrix[1, 1], -matrix[0, 1]], [-matrix[1, 0], matrix[0, 0]]])
        inverse: np.ndarray = np.divide(adjugate, determinant, out=np.zeros_like(adjugate), where=determinant > 0)
        return inverse

    @staticmethod
    def _factors(kx: np.ndarray, ky: np.ndarray) -> dict[str, np.ndarray]:
        """Factors from psi to each output, one for each wave: (ky, kx)."""
        half = np.abs(kx[: kx.size // 2 + 1])
        along_y, along_x = (np.broadcast_to(a, (ky.size, half.size)).astype(complex) for a in (ky[:, None], half))
        return {
            "streamfunction": np.ones_like(along_x),
            "u": -1j * along_y,
            "v": 1j * along_x,
            "vorticity": -(along_x**2 + along_y**2),
        }

    def _labels(self, q: VariableTemplate, length: str) -> dict[str, VariableTemplate]:
        seconds = power(q.units, -1)
        velocity = quotient(length, seconds)
        units = {
            "streamfunction": quotient(power(length, 2), seconds),
            "u": velocity,
            "v": velocity,
            "vorticity": power(q.units, 1),
        }
        return {n: VariableTemplate(q.dims, units[n], {"long_name": OUTPUTS[n]}) for n in OUTPUTS}
