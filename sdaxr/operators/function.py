"""A Python function of the user as an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Fields, Operator, register
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import OperatorError


def function(
    fn: Callable[[Fields], Mapping[str, Tensor]],
    *,
    units: Mapping[str, str] | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    template: Template | Callable[[Template], Template] | None = None,
    name: str | None = None,
) -> Operator:
    """A differentiable torch function as an operator, which cannot be saved.

    Parameters
    ----------
    fn
        Takes the physical fields, a dict of tensors of shape ``(..., *dims)`` with any number of leading batch
        dimensions. Returns the observed quantities in the same form. Gradients are taken through it: use torch
        operations only, none in place, and none that mixes the batch dimensions.
    units
        ``{variable: units}`` of the output. None: the variables and their units are those of the input.
    dims
        ``{variable: dimensions}`` of the output, which are dimensions of the input. Default: the dimensions of the
        input variable of the same name; without one, those of the first variable.
    template
        Labels of the output where ``units`` and ``dims`` do not describe them, such as a new grid: a `Template`, or a
        function from the `Template` of the input to that of the output.
    name
        Name of the function in the provenance. Default: the name of ``fn``.

    Raises
    ------
    OperatorError
        If ``fn`` cannot be called.

    Examples
    --------
    >>> speed = function(lambda f: {"speed": (f["u"]**2 + f["v"]**2 + 1e-12).sqrt()}, units={"speed": "m s-1"})
    """
    if not callable(fn):
        raise OperatorError(f"function: found {fn!r}, expected a function of a dict of tensors")
    label = str(name or getattr(fn, "__name__", type(fn).__name__))
    return Function(fn, label, dict(units) if units else None, dict(dims) if dims else None, template)


@register
@dataclass(frozen=True, repr=False)
class Function(Operator):
    """A Python function as an operator; see `function`."""

    fn: Callable[[Fields], Mapping[str, Tensor]]
    label: str
    units: dict[str, str] | None = None
    dims: dict[str, tuple[str, ...]] | None = None
    template: Template | Callable[[Template], Template] | None = None

    name = "function"
    saveable = False

    def bind(self, template: Template) -> Bound:
        out = self._labels(template)
        shapes = {name: out.shape(name) for name in out.variables}

        def checked(fields: Fields) -> Fields:
            values = dict(self.fn(fields))
            found = {n: tuple(v.shape[v.ndim - len(shapes.get(n, ())) :]) for n, v in values.items()}
            if found != shapes:
                raise OperatorError(
                    f"function '{self.label}' returned {found}, expected {shapes}; describe its output with "
                    "units=, dims= or template="
                )
            return values

        return Bound(out, checked)

    def to_dict(self) -> dict[str, Any]:
        return {"op": self.name, "name": self.label}

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Operator:
        label = parameters.get("name", "")
        raise OperatorError(
            f"the operator holds the Python function '{label}', which cannot be read from a file; "
            "pass the operator itself, operator=... (to assimilate, innovations or verify)"
        )

    def _labels(self, template: Template) -> Template:
        if self.template is not None:
            return self.template if isinstance(self.template, Template) else self.template(template)
        if self.units is None and self.dims is None:
            return template
        first = next(iter(template.variables.values()))
        variables = {}
        for name in dict.fromkeys([*(self.units or {}), *(self.dims or {})]):
            before = template.variables.get(name)
            dims = tuple((self.dims or {}).get(name, (before or first).dims))
            for dim in dims:
                if dim not in template.sizes:
                    raise OperatorError(
                        f"function '{self.label}': there is no dimension {schema.nearest(dim, template.sizes)}"
                    )
            units = (self.units or {}).get(name, before.units if before else "")
            attrs = dict(before.attrs) if before else {"long_name": name}
            variables[name] = VariableTemplate(dims, units, attrs)
        return template.with_variables(variables)
