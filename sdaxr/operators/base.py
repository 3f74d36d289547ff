"""Observation operators: their base class, their composition and their JSON.

An operator H maps physical fields to what an instrument would see of them. It is a frozen dataclass. Its fields are its
parameters, its JSON is ``{"op": name, **parameters}``, and ``first >> second`` applies ``first`` before ``second``.

`Operator.bind` resolves the labels once and returns a `Bound` operator: a differentiable torch function of tensors of
shape ``(..., *dims)``, with any number of leading batch dimensions.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.template import Template
from sdaxr.schema import OperatorError, OptionError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.validation import checked, fields_of

Fields = dict[str, Tensor]

REGISTRY: dict[str, type[Operator]] = {}

_T = TypeVar("_T", bound="type[Operator]")


@dataclass(frozen=True)
class Bound:
    """An operator with the labels of its output, ready to compute.

    Attributes
    ----------
    template
        Labels of the output.
    function
        The computation: variables of shape ``(..., *dims)`` in, variables of shape ``(..., *dims)`` out.
    """

    template: Template
    function: Callable[[Fields], Fields]

    def __call__(self, fields: Mapping[str, Tensor]) -> Fields:
        """H of ``fields``: physical values, with the labels that the operator was bound to."""
        return self.function(dict(fields))


@dataclass(frozen=True)
class Operator(ABC):
    """Base of all observation operators.

    Attributes
    ----------
    name
        Name of the operator in JSON.
    linear
        Whether H is linear.
    steady
        Whether H acts on each state by itself, in the same way at all times.
    saveable
        Whether the operator can be written as JSON.
    """

    name: ClassVar[str] = ""
    linear: ClassVar[bool] = False
    steady: ClassVar[bool] = False
    saveable: ClassVar[bool] = True

    @property
    def affine(self) -> bool:
        """Whether H is linear except for a constant: H(x) = A x + b."""
        return self.linear

    @abstractmethod
    def bind(self, template: Template) -> Bound:
        """Resolve the labels of the input; return the computation, with the labels of its output.

        Raises
        ------
        OperatorError
            If the operator cannot be applied to fields with these labels.
        """

    def apply(self, data: xr.Dataset) -> xr.Dataset:
        """H of a Dataset.

        Parameters
        ----------
        data
            Physical fields, with or without an ensemble dimension (member, trajectory). They are loaded.

        Returns
        -------
        xarray.Dataset
            The observed quantities, with the ensemble dimension of ``data`` and its floating point types.

        Raises
        ------
        OperatorError
            If the operator cannot be applied to ``data``.
        """
        ensemble = ensemble_dimension(data)
        one = data if ensemble is None else data.isel({ensemble: 0}, drop=True)
        bound = self.bind(template := Template.from_dataset(one))
        leading = [] if ensemble is None else [ensemble]
        fields = {n: _tensor(data[n].transpose(*leading, *v.dims).values) for n, v in template.variables.items()}
        with torch.no_grad():
            out = {name: value.numpy() for name, value in bound(fields).items()}
        if ensemble is None:
            return bound.template.to_dataset(out)
        members = [bound.template.to_dataset({k: v[i] for k, v in out.items()}) for i in range(data.sizes[ensemble])]
        joined = xr.concat(members, dim=ensemble, data_vars="all", coords="minimal", compat="override", join="override")
        along = {n: c for n, c in data.coords.items() if c.dims == (ensemble,)}
        return joined.assign_coords(along)

    def to_dict(self) -> dict[str, Any]:
        """The name and the parameters, except those that are None."""
        pairs = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {"op": self.name, **{k: v for k, v in pairs if v is not None}}

    def to_json(self) -> str:
        """The operator as JSON; `from_json` reads it.

        Raises
        ------
        OperatorError
            If the operator holds a Python function.
        """
        if not self.saveable:
            raise OperatorError(
                f"{self} holds a Python function, expected an operator that can be written as JSON; "
                "pass the operator itself where it is needed, operator=... (to assimilate, innovations or verify)"
            )
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Operator:
        """The operator with these parameters.

        Raises
        ------
        OperatorError
            If a parameter is unknown, missing or impossible.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key in parameters:
            if key not in fields:
                raise OperatorError(f"operator '{cls.name}' has no parameter {schema.nearest(key, fields)}")
        required = (dataclasses.MISSING, dataclasses.MISSING)
        missing = [n for n, f in fields.items() if (f.default, f.default_factory) == required and n not in parameters]
        if missing:
            raise OperatorError(
                f"operator '{cls.name}' lacks the parameter '{missing[0]}'; found {sorted(parameters)}, "
                f"expected {list(fields)}"
            )
        kinds = fields_of(cls)
        try:
            return cls(**{k: checked(k, v, kinds[k], owner=f"operator '{cls.name}'") for k, v in parameters.items()})
        except OptionError as error:
            raise OperatorError(str(error)) from error

    def __rshift__(self, other: Operator) -> Operator:
        if not isinstance(other, Operator):
            return NotImplemented
        return Compose((*steps_of(self), *steps_of(other)))

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={_short(v)}" for k, v in self.to_dict().items() if k != "op")
        return f"{self.name}({inner})"


def register(cls: _T) -> _T:
    """Class decorator: `from_json` finds the operator by its ``name``."""
    REGISTRY[cls.name] = cls
    return cls


@register
@dataclass(frozen=True, repr=False)
class Compose(Operator):
    """Operators that are applied one after the other."""

    steps: tuple[Operator, ...]

    name = "compose"

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether every step is linear."""
        return all(step.linear for step in self.steps)

    @property
    def affine(self) -> bool:
        """Whether every step is linear except for a constant."""
        return all(step.affine for step in self.steps)

    @property
    def steady(self) -> bool:  # type: ignore[override]
        """Whether every step acts on each state by itself, in the same way at all times."""
        return all(step.steady for step in self.steps)

    @property
    def saveable(self) -> bool:  # type: ignore[override]
        """Whether every step can be written as JSON."""
        return all(step.saveable for step in self.steps)

    def bind(self, template: Template) -> Bound:
        bounds = []
        for step in self.steps:
            bounds.append(step.bind(template))
            template = bounds[-1].template

        def function(fields: Fields) -> Fields:
            for bound in bounds:
                fields = bound(fields)
            return fields

        return Bound(template, function)

    def to_dict(self) -> dict[str, Any]:
        return {"op": self.name, "steps": [step.to_dict() for step in self.steps]}

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Operator:
        steps = parameters.get("steps")
        if set(parameters) != {"steps"} or not isinstance(steps, list | tuple) or not steps:
            raise OperatorError(
                f"operator 'compose' has the parameters {dict(parameters)}, expected 'steps', a list of operators"
            )
        return compose(*(operator_from_dict(step) for step in steps))

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.steps))


def compose(*operators: Operator) -> Operator:
    """The operators applied one after the other: ``first >> second >> ...``.

    Raises
    ------
    OperatorError
        If there is no operator.
    """
    if not operators:
        raise OperatorError(
            "compose() has no operator, expected at least one; operators.identity() observes the state itself"
        )
    steps = tuple(step for operator in operators for step in steps_of(operator))
    return steps[0] if len(steps) == 1 else Compose(steps)


def steps_of(operator: Operator) -> tuple[Operator, ...]:
    """The operators that ``operator`` is composed of, or the operator itself."""
    return operator.steps if isinstance(operator, Compose) else (operator,)


def operator_from_dict(description: object) -> Operator:
    """The operator described by ``{"op": name, **parameters}``.

    Raises
    ------
    OperatorError
        If the name or a parameter is unknown, or a parameter is missing or impossible.
    """
    if not isinstance(description, Mapping) or "op" not in description:
        raise OperatorError(
            f'found {schema.shown(description)}, expected an operator such as {{"op": "coarsen", "factor": 8}}'
        )
    name = description["op"]
    if not isinstance(name, str) or name not in REGISTRY:
        raise OperatorError(f"there is no operator {schema.nearest(str(name), REGISTRY)}")
    return REGISTRY[name].from_dict({k: v for k, v in description.items() if k != "op"})


def from_json(text: str) -> Operator:
    """The operator that `Operator.to_json` wrote.

    Raises
    ------
    OperatorError
        If the text is not JSON, names an unknown operator or parameter, or describes a Python function.
    """
    try:
        description = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    # A number of too many digits is a ValueError.
    except (TypeError, ValueError, RecursionError) as error:
        raise OperatorError(
            f"found {schema.shown(text)}, which is not JSON ({error}); expected for example "
            '{"op": "coarsen", "factor": 8}'
        ) from error
    return operator_from_dict(description)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"found a key twice in {[key for key, _ in pairs]}")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


class Constant:
    """An array that an operator needs; it is copied once to each device and floating point type."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = np.asarray(values)
        self._cache: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """The array on the device of ``tensor``; floating point numbers have the type of ``tensor``, too."""
        dtype = tensor.dtype if self._values.dtype.kind == "f" else torch.long
        key = (tensor.device, dtype)
        if key not in self._cache:
            self._cache[key] = torch.as_tensor(self._values, dtype=dtype, device=tensor.device)
        return self._cache[key]


def axis_of(dims: tuple[str, ...], dim: str) -> int:
    """Axis of ``dim``, counted from the end, so that leading batch dimensions do not change it."""
    return dims.index(dim) - len(dims)


def check_dimensions(name: str, dims: tuple[str, ...], template: Template) -> None:
    """Raise `OperatorError` unless each of ``dims`` is a dimension of some variable."""
    for dim in dims:
        if dim not in template.sizes:
            raise OperatorError(f"{name}: there is no dimension {schema.nearest(dim, template.sizes)}")


def _tensor(values: np.ndarray) -> Tensor:
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64 if values.dtype.kind in "iu" else np.float32)
    values = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(values, order="C"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
