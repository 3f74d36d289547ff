"""Operators on the grid: block means, subsampling, a region."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, check_dimensions, register
from sdaxr.operators.template import Template, VariableTemplate
from sdaxr.schema import TIME, OperatorError, shown
from sdaxr.states.coordinates import TOLERANCE, spacing_of, wrapped

_HORIZONTAL = 2  # most horizontal dimensions of a variable
_Bound = Any  # a number, a date, or a date as text


def coarsen(factor: int, dims: str | tuple[str, ...] | None = None) -> Operator:
    """Means over blocks of ``factor`` grid points along ``dims`` (None: the horizontal dimensions).

    The coordinate of a block is the mean of those of its points. A periodic dimension stays periodic.
    """
    return Coarsen(factor, dims)  # type: ignore[arg-type]


def subsample(stride: int, offset: int = 0, dims: str | tuple[str, ...] | None = None) -> Operator:
    """Every ``stride``-th grid point along ``dims`` (None: the horizontal dimensions), from the index ``offset`` on."""
    return Subsample(stride, offset, dims)  # type: ignore[arg-type]


def region(**bounds: tuple[Any, Any]) -> Operator:
    """The grid points whose coordinates lie within bounds.

    Parameters
    ----------
    **bounds
        ``dimension=(low, high)``, both included, in the units of the coordinate; dates as text. The coordinate may
        rise or fall. A date as text is the period that it names, as in xarray: up to ``"2019-03-02"`` is up to the end
        of that day, up to ``"2019-03"`` up to the end of the month. On a circle, of longitudes for example, the region
        goes from low up to high, also across the seam: ``lon=(-10, 5)`` and ``lon=(350, 5)`` are the same 15 degrees,
        on the globe and on a part of it.
    """
    return Region(bounds)


class _Along(Operator):
    """An operator along ``dims``. None: those of space."""

    dims: tuple[str, ...] | None

    @property
    def steady(self) -> bool:  # type: ignore[override]
        """Whether the operator acts along dimensions of space only."""
        return TIME not in (self.dims or ())


@register
@dataclass(frozen=True, repr=False)
class Coarsen(_Along):
    """Block means; see `coarsen`."""

    factor: int
    dims: tuple[str, ...] | None = None

    name = "coarsen"
    linear = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole("coarsen", "factor", self.factor, 1))
        object.__setattr__(self, "dims", names(self.dims))

    def bind(self, template: Template) -> Bound:
        plan = _plan("coarsen", self.dims, template)
        out = template
        for dim in dict.fromkeys(d for dims in plan.values() for d in dims):
            size = template.sizes[dim]
            if size % self.factor:
                raise OperatorError(
                    f"coarsen: factor {self.factor} does not divide the {size} points of '{dim}'; expected a "
                    f"divisor of {size}; or cut the grid first, with operators.region or ds.isel"
                )
            out = out.block_mean(dim, self.factor)
        out = out.with_variables({n: _averaged(v, plan.get(n, ())) for n, v in template.variables.items()})

        def mean(x: Tensor, axis: int, _: str) -> Tensor:
            return torch.unflatten(x, axis, (-1, self.factor)).mean(axis)

        return Bound(out, _along(plan, template, mean))


@register
@dataclass(frozen=True, repr=False)
class Subsample(_Along):
    """Every n-th grid point; see `subsample`."""

    stride: int
    offset: int = 0
    dims: tuple[str, ...] | None = None

    name = "subsample"
    linear = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", whole("subsample", "stride", self.stride, 1))
        object.__setattr__(self, "offset", whole("subsample", "offset", self.offset, 0))
        object.__setattr__(self, "dims", names(self.dims))

    def bind(self, template: Template) -> Bound:
        plan = _plan("subsample", self.dims, template)
        out = template
        for dim in dict.fromkeys(d for dims in plan.values() for d in dims):
            size = template.sizes[dim]
            if self.offset >= size:
                raise OperatorError(
                    f"subsample: offset {self.offset} is beyond the {size} points of '{dim}', expected 0 to {size - 1}"
                )
            out = out.take(dim, slice(self.offset, None, self.stride))

        def every(x: Tensor, axis: int, _: str) -> Tensor:
            return x.movedim(axis, -1)[..., self.offset :: self.stride].movedim(-1, axis)

        return Bound(out, _along(plan, template, every))


@register
@dataclass(frozen=True, repr=False)
class Region(Operator):
    """The grid points in a box of coordinate values; see `region`."""

    bounds: dict[str, tuple[Any, Any]]

    name = "region"
    linear = True

    def __post_init__(self) -> None:
        if not isinstance(self.bounds, Mapping) or not self.bounds:
            raise OperatorError(f"region: found {self.bounds!r}, expected bounds such as region(x=(0.0, 3.0))")
        for dim, pair in self.bounds.items():
            if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2:
                raise OperatorError(f"region: the bounds of '{dim}' are {pair!r}, expected (low, high)")
        plain = {str(d): (_plain(low), _plain(high)) for d, (low, high) in self.bounds.items()}
        object.__setattr__(self, "bounds", plain)

    @property
    def steady(self) -> bool:  # type: ignore[override]
        """Whether the bounds are those of space only."""
        return TIME not in self.bounds

    def to_dict(self) -> dict[str, Any]:
        return {"op": self.name, **{d: list(pair) for d, pair in self.bounds.items()}}

    @classmethod
    def from_dict(cls, parameters: Mapping[str, Any]) -> Operator:
        return cls(dict(parameters))

    def bind(self, template: Template) -> Bound:
        check_dimensions("region", tuple(self.bounds), template)
        out, chosen = template, {}
        for dim, (low, high) in self.bounds.items():
            indices, values = _inside(template, dim, low, high)
            chosen[dim] = Constant(indices)
            out = out.take(dim, indices)
            out = replace(out, coords={**out.coords, dim: replace(out.coords[dim], values=values)})
        plan = {n: tuple(d for d in self.bounds if d in v.dims) for n, v in template.variables.items()}
        return Bound(out, _along(plan, template, lambda x, axis, dim: x.index_select(axis, chosen[dim].like(x))))


def whole(operator: str, parameter: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``.

    Raises
    ------
    OperatorError
        If ``value`` is not a whole number, or is smaller than ``least``.
    """
    whole_number = isinstance(value, SupportsIndex) and not isinstance(value, bool)
    if not whole_number or not least <= int(value) < 1 << 63:  # type: ignore[call-overload]
        raise OperatorError(f"{operator}: {parameter} is {shown(value)}, expected a whole number of at least {least}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def names(dims: str | Iterable[object] | None) -> tuple[str, ...] | None:
    """Names of dimensions as a tuple; None stays None."""
    if dims is None:
        return None
    return (dims,) if isinstance(dims, str) else tuple(map(str, dims))


def _plan(operator: str, dims: tuple[str, ...] | None, template: Template) -> dict[str, tuple[str, ...]]:
    """For each variable, those of its dimensions along which the operator acts."""
    if dims is not None:
        check_dimensions(operator, dims, template)
        return {n: tuple(d for d in dims if d in v.dims) for n, v in template.variables.items()}
    plan = {n: template.space(n) for n in template.variables}
    if not any(plan.values()):
        raise OperatorError(
            f"{operator}: found the dimensions {list(template.sizes)}, expected a horizontal one; name the "
            "dimensions along which the operator acts with dims=..."
        )
    for name, along in plan.items():
        labels = [d for d in along if d in template.coords and template.coords[d].values.dtype.kind in "OSU"]
        if len(along) > _HORIZONTAL or labels:
            raise OperatorError(
                f"{operator}: found the dimensions {list(along)} of '{name}'"
                + (f", of which {labels} have labels that are no numbers" if labels else "")
                + ", expected at most two horizontal ones; name the dimensions along which the operator acts with "
                "dims=..."
            )
    return plan


def _along(
    plan: Mapping[str, tuple[str, ...]], template: Template, function: Callable[[Tensor, int, str], Tensor]
) -> Callable[[Fields], Fields]:
    axes = {n: [(axis_of(template.variables[n].dims, d), d) for d in dims] for n, dims in plan.items()}

    def apply(fields: Fields) -> Fields:
        out = {}
        for name, value in fields.items():
            for axis, dim in axes[name]:
                value = function(value, axis, dim)
            out[name] = value
        return out

    return apply


def _averaged(variable: VariableTemplate, dims: tuple[str, ...]) -> VariableTemplate:
    if not dims:
        return variable
    method = " ".join(f"{d}:" for d in dims) + " mean"
    before = variable.attrs.get("cell_methods")
    return replace(variable, attrs={**variable.attrs, "cell_methods": f"{before} {method}" if before else method})


def _plain(value: object) -> str | float:
    if isinstance(value, str):
        return value
    if isinstance(value, np.datetime64 | pd.Timestamp):
        # In full: an instant, not the day that its short text would name.
        return str(pd.Timestamp(value).to_datetime64().astype("datetime64[us]"))
    try:
        return float(value)  # type: ignore[arg-type]  # values that are not numbers raise
    except (TypeError, ValueError) as error:
        raise OperatorError(f"region: the bound {value!r} is neither a number nor a date as text") from error


def _inside(template: Template, dim: str, low: _Bound, high: _Bound) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points within the bounds, and their coordinates, which stay monotonic across a seam."""
    values = template.coordinate(dim)
    if isinstance(low, str) or isinstance(high, str) or values.dtype.kind in "MmO":
        first, last = _period(dim, values, low), _period(dim, values, high)
        (begin, _), (_, end) = (last, first) if first[0] >= last[1] else (first, last)
        found = np.flatnonzero((values >= begin) & (values < end))
    else:
        turn = template.turn(dim)
        if high < low:
            low, high = (high, low) if turn is None else (low, high + turn)
        whole_circle = template.period(dim) is not None
        found, values = _around(template, dim, low, high) if whole_circle else _on_line(template, dim, low, high)
    if found.size == 0:
        raise OperatorError(
            f"region: no point of '{dim}' lies between {low} and {high}; the grid goes from {values.min()} to "
            f"{values.max()}"
        )
    return found, values[found]


def _on_line(template: Template, dim: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points between ``low`` and ``high`` on a line or a part of a circle, and all coordinates."""
    values, line, turn = template.coordinate(dim), template.line(dim), template.turn(dim)
    distance = np.abs(line - wrapped(np.array((low + high) / 2), line, turn))
    if turn is not None:
        distance = np.minimum(distance, np.abs(distance - turn))
    found = np.flatnonzero(distance <= (high - low) / 2 + TOLERANCE * spacing_of(line))
    return found, values if np.array_equal(line, values) else line


def _around(template: Template, dim: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points on a circle from ``low`` up to ``high``, and all coordinates, counted as in the region."""
    values, period = template.coordinate(dim), template.period(dim)
    assert period is not None
    width = high - low
    if width >= period:
        return np.arange(values.size), values
    slack = TOLERANCE * spacing_of(values)
    distance = (values - low + slack) % period - slack
    found = np.flatnonzero(distance <= width + slack)
    gap = np.flatnonzero(np.diff(found) > 1)
    if gap.size == 0:
        return found, values
    return np.roll(found, -(gap[0] + 1)), values + period * np.round((low + distance - values) / period)


def _period(
    dim: str, values: np.ndarray, bound: _Bound
) -> tuple[np.datetime64, np.datetime64] | tuple[np.timedelta64, np.timedelta64]:
    """Begin and end of the period that a bound names: of a day, where there is no time of day. The end is not in it."""
    try:
        if values.dtype.kind == "M":
            begin = np.datetime64(bound)
            # In the unit of the text: "2019-03" is a month.
            return begin, begin + np.ones((), begin.dtype.str.replace("M8", "m8"))[()]
        if values.dtype.kind == "m":
            distance = np.timedelta64(pd.Timedelta(bound).to_timedelta64())
            return distance, distance + np.timedelta64(1, "ns")
    except ValueError as error:
        raise OperatorError(f"region: the bound {bound!r} of '{dim}' cannot be read ({error})") from error
    raise OperatorError(
        f"region: the bound {bound!r} does not compare with the {values.dtype} values of '{dim}'; "
        f"select them on the data, ds.sel({dim}=slice(...))"
    )
