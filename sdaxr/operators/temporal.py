"""Operators along time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from sdaxr.operators.base import Bound, Fields, Operator, register
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import TIME, OperatorError


def time_difference(first: int = 0, last: int = -1) -> Operator:
    """The state at index ``last`` along time minus the state at index ``first``; the output has no time.

    Observed to be zero with a small error, the difference closes a trajectory to a loop.
    """
    return TimeDifference(first, last)


@register
@dataclass(frozen=True, repr=False)
class TimeDifference(Operator):
    """The difference of the states at two times; see `time_difference`."""

    first: int = 0
    last: int = -1

    name = "time_difference"
    linear = True

    def __post_init__(self) -> None:
        for key in ("first", "last"):
            value = getattr(self, key)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise OperatorError(f"time_difference: {key} is {value!r}, expected an index along time")
            object.__setattr__(self, key, int(value))

    def bind(self, template: Template) -> Bound:
        length = template.sizes.get(TIME)
        if length is None or any(v.dims[:1] != (TIME,) for v in template.variables.values()):
            raise OperatorError(
                f"time_difference: found the dimensions {list(template.sizes)}, expected 'time' first in every variable"
            )
        for key, value in (("first", self.first), ("last", self.last)):
            if not -length <= value < length:
                raise OperatorError(f"time_difference: {key} is {value}, but the window has {length} times")
        axes = {n: -len(v.dims) for n, v in template.variables.items()}

        def difference(x: Tensor, axis: int) -> Tensor:
            return x.select(axis, self.last) - x.select(axis, self.first)

        def function(fields: Fields) -> Fields:
            return {name: difference(value, axes[name]) for name, value in fields.items()}

        return Bound(template.with_variables({n: _labels(n, v) for n, v in template.variables.items()}), function)


def _labels(name: str, variable: VariableTemplate) -> VariableTemplate:
    attrs = {k: v for k, v in variable.attrs.items() if k != "standard_name"}
    attrs["long_name"] = f"difference in time of {variable.long_name or name}"
    return replace(variable, dims=variable.dims[1:], attrs=attrs)
