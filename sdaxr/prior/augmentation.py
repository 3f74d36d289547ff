"""Priors of states and observed quantities together: z = [x, H(x)] (Li, Dong & Zhang 2024, arXiv:2407.21314).

The observed quantities are variables of the prior, with one value for each state and grid point. They are named after
the operator and its output (``velocity_u``), and come last in the layout. Posteriors and forecasts leave them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array
import xarray as xr

from sdaxr import schema
from sdaxr.operators import Bound, Operator, Template, compose
from sdaxr.operators.base import operator_from_dict, steps_of
from sdaxr.schema import TIME, OperatorError, OptionError
from sdaxr.states.axes import ensemble_dimension


@dataclass(frozen=True)
class Augmentation:
    """Operators whose outputs are variables of a prior.

    Attributes
    ----------
    operators
        The operators H, by name.
    stored
        For each name, the variable of the prior for each output of H.
    """

    operators: Mapping[str, Operator]
    stored: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, operators: Mapping[str, Operator] | None, states: xr.Dataset) -> Augmentation:
        """The augmentation of ``states`` by ``operators``; None for no operators.

        Raises
        ------
        OptionError
            If H holds a Python function, does not give one value for each state and grid point, or its name is taken.
        OperatorError
            If H cannot be applied to the states.
        """
        stored: dict[str, dict[str, str]] = {}
        taken = {str(v) for v in states.variables}
        for name, operator in (operators or {}).items():
            if not operator.saveable:
                raise OptionError(
                    f"augment={name!r}: {operator} cannot be written to the prior's file; take operators without a "
                    "Python function"
                )
            bound = operator.bind(Template.from_dataset(_one(states)))
            for output, variable in bound.template.variables.items():
                sizes = {d: bound.template.sizes[d] for d in variable.dims}
                expected = {str(d): n for d, n in _one(states).sizes.items()}
                if sizes.get(TIME) is None or any(expected.get(d) != n for d, n in sizes.items()):
                    raise OptionError(
                        f"augment={name!r}: '{output}' has the dimensions {sizes}, expected one value for each "
                        f"state and point of {expected}; augment with the operator before subsample, coarsen or region"
                    )
            stored[name] = {output: f"{name}_{output}" for output in bound.template.variables}
            if clash := taken & set(stored[name].values()):
                raise OptionError(f"augment={name!r}: there is a variable {clash.pop()!r} already; take another name")
            taken |= set(stored[name].values())
        return cls(dict(operators or {}), stored)

    @classmethod
    def from_file(cls, about: Mapping[str, Any]) -> Augmentation:
        """The augmentation that `to_file` described."""
        operators = {name: operator_from_dict(one["operator"]) for name, one in about.items()}
        return cls(operators, {name: one["stored"] for name, one in about.items()})

    def to_file(self) -> dict[str, Any]:
        """JSON-ready metadata."""
        return {n: {"operator": o.to_dict(), "stored": dict(self.stored[n])} for n, o in self.operators.items()}

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the prior that are observed quantities."""
        return tuple(v for names in self.stored.values() for v in names.values())

    def apply(self, data: xr.Dataset, states: Sequence[str]) -> xr.Dataset:
        """Add the observed quantities of ``states`` to ``data``; lazily, block by block, where the states are lazy."""
        if not self.operators:
            return data
        # H is of the states, and not of what is constant.
        moving = [v for v in states if TIME in data[v].dims]
        return data.assign({v: a.variable for v, a in self._observed(data[moving]).items()})

    def without(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the states only, by variable."""
        return {v: a for v, a in fields.items() if v not in self.variables}

    def _observed(self, states: xr.Dataset) -> xr.Dataset:
        if not states.chunks:
            return self._computed(states)
        whole = [d for d in states.dims if d not in (TIME, ensemble_dimension(states))]
        states = states.chunk(dict.fromkeys(whole, -1)).unify_chunks()
        corner = self._computed(states.isel({d: slice(0, 1) for d in states.dims if d not in whole}).compute())
        sizes, chunks = states.sizes, states.chunksizes
        blank = {
            v: (
                a.dims,
                dask.array.zeros([sizes[d] for d in a.dims], a.dtype, chunks=tuple(chunks[d] for d in a.dims)),
                a.attrs,
            )
            for v, a in corner.items()
        }
        return xr.map_blocks(self._computed, states, template=xr.Dataset(blank, states.coords, corner.attrs))

    def _computed(self, states: xr.Dataset) -> xr.Dataset:
        seen = {name: operator.apply(states) for name, operator in self.operators.items()}
        outputs = {v: seen[name][output] for name, names in self.stored.items() for output, v in names.items()}
        return xr.Dataset({v: a.variable for v, a in outputs.items()}, states.coords)

    def channels(self, operator: Operator) -> Operator | None:
        """The operator on augmented states that equals ``operator`` on states.

        It selects the outputs of H, and applies the steps of ``operator`` that follow H. None if ``operator`` begins
        with no H of the prior.
        """
        steps = steps_of(operator)
        for name, own in self.operators.items():
            first = steps_of(own)
            if steps[: len(first)] == first:
                return compose(Channels(self.stored[name]), *steps[len(first) :])
        return None


@dataclass(frozen=True, repr=False)
class Channels(Operator):
    """Select observed quantities of an augmented state, under the names that H gives to its outputs."""

    stored: Mapping[str, str]

    name = "channels"
    linear = True
    saveable = False

    def bind(self, template: Template) -> Bound:
        missing = [v for v in self.stored.values() if v not in template.variables]
        if missing:
            raise OperatorError(f"channels: there is no variable {schema.nearest(missing[0], template.variables)}")
        out = template.with_variables({n: template.variables[v] for n, v in self.stored.items()})
        return Bound(out, lambda fields: {n: fields[v] for n, v in self.stored.items()})


def _one(states: xr.Dataset) -> xr.Dataset:
    ensemble = ensemble_dimension(states)
    return states if ensemble is None else states.isel({ensemble: 0}, drop=True)
