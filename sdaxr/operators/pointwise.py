"""Operators on each value by itself: select, saturate, arctan, sine, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdaxr import schema
from sdaxr.schema import OperatorError

from .base import Bound, Fields, Operator, register
from .template import Template, VariableTemplate


def identity() -> Operator:
    """Observe the state itself."""
    return Identity()


def select(*names: str) -> Operator:
    """Observe the variables ``names`` only, in that order."""
    return Select(tuple(names))


def saturate() -> Operator:
    """x / (1 + abs(x)): a sensor that saturates at 1. Dimensionless."""
    return Saturate()


def arctan(scale: float = 1.0) -> Operator:
    """arctan(scale x). Dimensionless; ``scale`` is in the inverse of the variable's units."""
    return Arctan(scale)


def sin(scale: float = 1.0, amplitude: float = 1.0) -> Operator:
    """amplitude sin(scale x). Dimensionless; ``scale`` is in the inverse of the variable's units."""
    return Sin(scale, amplitude)


def scale(factor: float, offset: float = 0.0, units: str | None = None) -> Operator:
    """factor x + offset, in ``units``; None leaves the units as they are."""
    return Scale(factor, offset, units)


@register
@dataclass(frozen=True, repr=False)
class Identity(Operator):
    """The state itself."""

    name = "identity"
    linear = True

    def bind(self, template: Template) -> Bound:
        return Bound(template, lambda fields: fields)


@register
@dataclass(frozen=True, repr=False)
class Select(Operator):
    """Some of the variables."""

    names: tuple[str, ...]

    name = "select"
    linear = True

    def __post_init__(self) -> None:
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or not all(isinstance(n, str) for n in names):
            raise OperatorError(f"select: found {self.names!r}, expected one or more names of variables")
        object.__setattr__(self, "names", names)

    def bind(self, template: Template) -> Bound:
        for name in self.names:
            check_variable("select", name, template)
        out = template.with_variables({n: template.variables[n] for n in self.names})
        return Bound(out, lambda fields: {n: fields[n] for n in self.names})


@register
@dataclass(frozen=True, repr=False)
class Saturate(Operator):
    """x / (1 + abs(x))."""

    name = "saturate"

    def bind(self, template: Template) -> Bound:
        return _pointwise(template, lambda x: x / (1 + x.abs()), "saturated")


@register
@dataclass(frozen=True, repr=False)
class Arctan(Operator):
    """arctan(scale x)."""

    scale: float = 1.0

    name = "arctan"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number("arctan", "scale", self.scale))

    def bind(self, template: Template) -> Bound:
        return _pointwise(template, lambda x: torch.atan(self.scale * x), "arctangent of")


@register
@dataclass(frozen=True, repr=False)
class Sin(Operator):
    """amplitude sin(scale x)."""

    scale: float = 1.0
    amplitude: float = 1.0

    name = "sin"

    def __post_init__(self) -> None:
        for key in ("scale", "amplitude"):
            object.__setattr__(self, key, number("sin", key, getattr(self, key)))

    def bind(self, template: Template) -> Bound:
        return _pointwise(template, lambda x: self.amplitude * torch.sin(self.scale * x), "sine of")


@register
@dataclass(frozen=True, repr=False)
class Scale(Operator):
    """factor x + offset."""

    factor: float
    offset: float = 0.0
    units: str | None = None

    name = "scale"

    def __post_init__(self) -> None:
        for key in ("factor", "offset"):
            object.__setattr__(self, key, number("scale", key, getattr(self, key)))

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether there is no offset: with one, the operator is affine."""
        return self.offset == 0

    def bind(self, template: Template) -> Bound:
        out = template
        if self.units is not None:
            units = str(self.units)
            out = template.with_variables({n: replace(v, units=units) for n, v in template.variables.items()})
        return Bound(out, _each(lambda x: self.factor * x + self.offset))


def number(operator: str, parameter: str, value: Any) -> float:
    """``value`` as a finite float.

    Raises
    ------
    OperatorError
        If it is not a finite number.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise OperatorError(f"{operator}: {parameter} is {value!r}, expected a finite number")
    return result


def check_variable(operator: str, name: str, template: Template) -> None:
    """Raise `OperatorError` if the fields have no variable ``name``."""
    if name not in template.variables:
        raise OperatorError(f"{operator}: there is no variable {schema.nearest(name, template.variables)}")


def _pointwise(template: Template, function: Callable[[Tensor], Tensor], word: str) -> Bound:
    def labels(name: str, variable: VariableTemplate) -> VariableTemplate:
        attrs = {k: v for k, v in variable.attrs.items() if k != "standard_name"}
        return replace(variable, units="1", attrs={**attrs, "long_name": f"{word} {variable.long_name or name}"})

    out = template.with_variables({n: labels(n, v) for n, v in template.variables.items()})
    return Bound(out, _each(function))


def _each(function: Callable[[Tensor], Tensor]) -> Callable[[Fields], Fields]:
    return lambda fields: {name: function(value) for name, value in fields.items()}
