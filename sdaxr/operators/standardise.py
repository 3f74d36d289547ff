"""Standardised fields: (x - mean) / std of each variable, or of each layer of a variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, register
from sdaxr.operators.pointwise import check_variable, number
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import OperatorError

Numbers = float | Sequence[float]
ByVariable = Numbers | Mapping[str, Numbers]


def standardise(std: ByVariable, mean: ByVariable = 0.0, along: str = "layer") -> Operator:
    """(x - mean) / std, dimensionless: the input of operators that are defined for values of about unit size.

    Parameters
    ----------
    std, mean
        In the units of the variables: a number; a list of numbers, one for each index of ``along``; or a mapping of
        variables to these. ``std`` is positive. Variables that a mapping ``std`` does not name are left as they are;
        those that a mapping ``mean`` does not name have the mean 0.
    along
        Dimension of the lists.
    """
    return Standardise(std, mean, along)


def standardise_like(data: xr.Dataset, along: str = "layer") -> Operator:
    """`standardise` by the standard deviation of ``data``, for each variable and index of ``along``.

    The mean is not subtracted: the operator is linear.
    """
    found = {}
    for name, values in data.data_vars.items():
        std = values.std([d for d in values.dims if d != along])
        found[str(name)] = std.values.tolist() if along in values.dims else float(std)
    return Standardise(found, 0.0, along)


@register
@dataclass(frozen=True, repr=False)
class Standardise(Operator):
    """(x - mean) / std; see `standardise`."""

    std: ByVariable
    mean: ByVariable = 0.0
    along: str = "layer"

    name = "standardise"
    steady = True

    def __post_init__(self) -> None:
        for key in ("std", "mean"):
            given = getattr(self, key)
            named = isinstance(given, Mapping)
            value = {str(n): _numbers(key, v) for n, v in given.items()} if named else _numbers(key, given)
            object.__setattr__(self, key, value)
        for value in self.std.values() if isinstance(self.std, Mapping) else [self.std]:
            if np.min(value) <= 0:
                raise OperatorError(f"standardise: std is {value}, expected positive numbers")

    affine = True

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether the mean is zero; with another mean, the operator is affine."""
        return not any(np.any(v) for v in (self.mean.values() if isinstance(self.mean, Mapping) else [self.mean]))

    def bind(self, template: Template) -> Bound:
        for given in (self.std, self.mean):
            for name in given if isinstance(given, Mapping) else ():
                check_variable("standardise", name, template)
        functions: dict[str, Callable[[Tensor], Tensor]] = {}
        out = dict(template.variables)
        for name, variable in template.variables.items():
            if isinstance(self.std, Mapping) and name not in self.std:
                continue
            std, mean = (Constant(self._shaped(given, name, variable, template)) for given in (self.std, self.mean))
            functions[name] = _standardised(std, mean)
            attrs = {k: v for k, v in variable.attrs.items() if k != "standard_name"}
            attrs["long_name"] = f"standardised {variable.long_name or name}"
            out[name] = replace(variable, units="1", attrs=attrs)

        def function(fields: Fields) -> Fields:
            return {name: functions[name](x) if name in functions else x for name, x in fields.items()}

        return Bound(template.with_variables(out), function)

    def _shaped(self, given: ByVariable, name: str, variable: VariableTemplate, template: Template) -> np.ndarray:
        """The numbers of a variable, in a shape that broadcasts with it."""
        numbers = np.asarray(given.get(name, 0.0) if isinstance(given, Mapping) else given, float)
        if numbers.ndim == 0:
            return numbers
        if self.along not in variable.dims:
            raise OperatorError(
                f"standardise: '{name}' has no dimension {schema.nearest(self.along, variable.dims)} for the "
                f"{numbers.size} numbers; pass one number, or name the dimension with along="
            )
        if template.sizes[self.along] != numbers.size:
            raise OperatorError(
                f"standardise: found {numbers.size} numbers for '{name}', expected {template.sizes[self.along]}, one "
                f"for each index of '{self.along}'"
            )
        return numbers.reshape(-1, *[1] * (-axis_of(variable.dims, self.along) - 1))


def _standardised(std: Constant, mean: Constant) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - mean.like(x)) / std.like(x)


def _numbers(key: str, value: object) -> Numbers:
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return tuple(number("standardise", key, v) for v in value)
    return number("standardise", key, value)
