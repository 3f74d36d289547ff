"""Operators that act on each value by itself: identity, select, saturate, arctan, sine, scale."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Fields, Operator, register
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import OperatorError, OptionError
from sdaxr.states.validation import Number, checked


def identity() -> Operator:
    """The state itself."""
    return Identity()


def select(*names: str) -> Operator:
    """The variables ``names`` only, in this order."""
    return Select(tuple(names))


def saturate() -> Operator:
    """x / (1 + abs(x)), dimensionless: a sensor that saturates at -1 and 1."""
    return Saturate()


def arctan(scale: float = 1.0) -> Operator:
    """arctan(scale x), dimensionless; ``scale`` is in the inverse units of x."""
    return Arctan(scale)


def sin(scale: float = 1.0, amplitude: float = 1.0) -> Operator:
    """amplitude sin(scale x), dimensionless; ``scale`` is in the inverse units of x."""
    return Sin(scale, amplitude)


def scale(factor: float, offset: float = 0.0, units: str | None = None) -> Operator:
    """factor x + offset, in ``units``. None: in the units of x, whatever the factor is."""
    return Scale(factor, offset, units)


@register
@dataclass(frozen=True, repr=False)
class Identity(Operator):
    """The state itself."""

    name = "identity"
    linear = True
    steady = True

    def bind(self, template: Template) -> Bound:
        return Bound(template, lambda fields: fields)


@register
@dataclass(frozen=True, repr=False)
class Select(Operator):
    """Some of the variables."""

    names: tuple[str, ...]

    name = "select"
    linear = True
    steady = True

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


@dataclass(frozen=True, repr=False)
class Elementwise(Operator):
    """Base of operators that apply one function to each value.

    Attributes
    ----------
    word
        First words of the ``long_name`` of the output, before the name of the variable.
    """

    word: ClassVar[str] = ""
    steady: ClassVar[bool] = True

    @abstractmethod
    def function(self, x: Tensor) -> Tensor:
        """The function of each value of ``x``, a tensor of any shape."""

    def bind(self, template: Template) -> Bound:
        """Resolve the labels; the output is dimensionless, and described by ``word``."""

        def labels(name: str, variable: VariableTemplate) -> VariableTemplate:
            attrs = {k: v for k, v in variable.attrs.items() if k != "standard_name"}
            return replace(
                variable, units="1", attrs={**attrs, "long_name": f"{self.word} {variable.long_name or name}"}
            )

        out = template.with_variables({n: labels(n, v) for n, v in template.variables.items()})
        return Bound(out, self._each)

    def _each(self, fields: Fields) -> Fields:
        return {name: self.function(value) for name, value in fields.items()}


@register
@dataclass(frozen=True, repr=False)
class Saturate(Elementwise):
    """x / (1 + abs(x))."""

    name = "saturate"
    word = "saturated"

    def function(self, x: Tensor) -> Tensor:
        """x / (1 + abs(x)) of each value; any shape."""
        return x / (1 + x.abs())


@register
@dataclass(frozen=True, repr=False)
class Arctan(Elementwise):
    """arctan(scale x)."""

    scale: float = 1.0

    name = "arctan"
    word = "arctangent of"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number("arctan", "scale", self.scale))

    def function(self, x: Tensor) -> Tensor:
        """arctan(scale x) of each value; any shape."""
        return torch.atan(self.scale * x)


@register
@dataclass(frozen=True, repr=False)
class Sin(Elementwise):
    """amplitude sin(scale x)."""

    scale: float = 1.0
    amplitude: float = 1.0

    name = "sin"
    word = "sine of"

    def __post_init__(self) -> None:
        for key in ("scale", "amplitude"):
            object.__setattr__(self, key, number("sin", key, getattr(self, key)))

    def function(self, x: Tensor) -> Tensor:
        """amplitude sin(scale x) of each value; any shape."""
        return self.amplitude * torch.sin(self.scale * x)


@register
@dataclass(frozen=True, repr=False)
class Scale(Elementwise):
    """factor x + offset."""

    factor: float
    offset: float = 0.0
    units: str | None = None

    name = "scale"

    def __post_init__(self) -> None:
        for key in ("factor", "offset"):
            object.__setattr__(self, key, number("scale", key, getattr(self, key)))

    affine = True

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether the offset is zero; with another offset, the operator is affine."""
        return self.offset == 0

    def bind(self, template: Template) -> Bound:
        out = template
        if self.units is not None:
            units = str(self.units)
            out = template.with_variables({n: replace(v, units=units) for n, v in template.variables.items()})
        return Bound(out, self._each)

    def function(self, x: Tensor) -> Tensor:
        """factor x + offset of each value; any shape."""
        return self.factor * x + self.offset


def number(operator: str, parameter: str, value: object) -> float:
    """``value`` as a finite float.

    Raises
    ------
    OperatorError
        If ``value`` is not a finite number.
    """
    try:
        return float(checked(parameter, value, Number))
    except OptionError as error:
        raise OperatorError(f"{operator}: {parameter} is {schema.shown(value)}, expected a finite number") from error


def check_variable(operator: str, name: str, template: Template) -> None:
    """Raise `OperatorError` if the fields have no variable ``name``."""
    if name not in template.variables:
        raise OperatorError(f"{operator}: there is no variable {schema.nearest(name, template.variables)}")
