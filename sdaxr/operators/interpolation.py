"""Bilinear interpolation to stations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, check_dimensions, register
from sdaxr.operators.template import CoordTemplate, Template, without_period
from sdaxr.schema import OperatorError
from sdaxr.states.coordinates import TOLERANCE, spacing_of, wrapped

OUTSIDE = ("error", "drop")


def points(coords: Mapping[str, Sequence[float]], dim: str = "station", *, outside: str = "error") -> Operator:
    """Values at stations, by bilinear interpolation, also across the seam of a periodic grid.

    Parameters
    ----------
    coords
        Positions of the stations: one sequence for each dimension of the grid, all of equal length. Longitudes may be
        counted from -180 or from 0 degrees, whichever the grid has.
    dim
        Name of the new dimension.
    outside
        What happens to stations outside the grid: ``"error"`` raises, ``"drop"`` leaves them out and records their
        number in the attribute ``<dim>_outside_grid`` of the observations.
    """
    return Points({str(k): v for k, v in coords.items()}, dim, outside)  # type: ignore[misc]


@register
@dataclass(frozen=True, repr=False)
class Points(Operator):
    """Bilinear interpolation to stations, on (time, [layer], station); see `points`."""

    coords: dict[str, tuple[float, ...]]
    dim: str = "station"
    outside: str = "error"

    name = "points"
    linear = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "coords", positions("points", self.coords))
        check_outside("points", self.outside)

    def bind(self, template: Template) -> Bound:
        dims = tuple(self.coords)
        check_dimensions("points", dims, template)
        where = {d: np.asarray(v) for d, v in self.coords.items()}
        brackets = {d: bracket(template, d, where[d]) for d in dims}
        inside = np.logical_and.reduce([b.inside for b in brackets.values()])
        if self.outside == "error":
            refuse_outside("points", self.dim, where, template, inside)
        kept = np.flatnonzero(inside)
        labels = {d: CoordTemplate(where[d][kept], place_attrs(template, d), (self.dim,)) for d in dims}
        labels[self.dim] = CoordTemplate(kept, {"long_name": f"number of the {self.dim}"})
        return gather(template, {d: b.take(kept) for d, b in brackets.items()}, self.dim, labels, inside.size)


@dataclass(frozen=True)
class Bracket:
    """Two grid neighbours of each of n positions along one dimension; arrays of shape (n,).

    Attributes
    ----------
    lower, upper
        Indices of the neighbours.
    weight
        Weight of the upper neighbour, 0 to 1; the lower one has 1 - weight.
    inside
        Whether the position lies in the grid.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    def take(self, indices: np.ndarray) -> Bracket:
        """The neighbours of some of the positions."""
        return Bracket(self.lower[indices], self.upper[indices], self.weight[indices], self.inside[indices])


def bracket(template: Template, dim: str, where: np.ndarray) -> Bracket:
    """Grid neighbours of the positions ``where``, shape (n,), along ``dim``.

    A position is in the grid as far as `TOLERANCE` grid spacings beyond its edge.
    """
    values, period = template.line(dim), template.period(dim)
    order = np.argsort(values)
    grid = values[order]
    if period is not None:
        where = (where - grid[0]) % period + grid[0]
        grid, order = np.append(grid, grid[0] + period), np.append(order, order[0])
    else:
        where = wrapped(where, grid, template.turn(dim))
    slack = TOLERANCE * spacing_of(grid)
    inside = (where >= grid[0] - slack) & (where <= grid[-1] + slack)
    if grid.size == 1:
        zero = np.zeros(where.shape, int)
        return Bracket(zero, zero, np.zeros(where.shape), inside)
    upper = np.searchsorted(grid, where, "right").clip(1, grid.size - 1)
    weight = (where - grid[upper - 1]) / (grid[upper] - grid[upper - 1])
    return Bracket(order[upper - 1], order[upper], weight.clip(0.0, 1.0), inside)


def gather(
    template: Template,
    brackets: Mapping[str, Bracket],
    dim: str,
    labels: Mapping[str, CoordTemplate],
    asked: int,
) -> Bound:
    """The bound operator that replaces the dimensions of ``brackets`` by ``dim``, the last dimension.

    ``labels`` are the coordinates along ``dim``. ``asked`` counts all positions, those that were dropped included.
    """
    replaced = set(brackets)
    plans: dict[str, tuple[tuple[int, ...], Constant, Constant]] = {}
    variables = {}
    for name, variable in template.variables.items():
        here = tuple(d for d in variable.dims if d in replaced)
        if here and len(here) < len(replaced):
            raise OperatorError(
                f"'{name}' has the dimensions {variable.dims}, expected all or none of {sorted(replaced)}"
            )
        variables[name] = variable
        if here:
            sizes = [template.sizes[d] for d in here]
            indices, weights = _corners([brackets[d] for d in here], sizes)
            plans[name] = (
                tuple(axis_of(variable.dims, d) for d in here),
                Constant(indices),
                Constant(weights),
            )
            rest = tuple(d for d in variable.dims if d not in replaced)
            variables[name] = replace(variable, dims=(*rest, dim))
    size = len(next(iter(brackets.values())).lower)
    coords = {n: c for n, c in template.coords.items() if not replaced & set((n,) if c.dims is None else c.dims)}
    attrs = {**template.attrs, **({f"{dim}_outside_grid": asked - size} if asked > size else {})}
    out = Template(variables, {**coords, **labels}, {**template.sizes, dim: size}, attrs)

    def function(fields: Fields) -> Fields:
        return {n: _interpolate(x, *plans[n]) if n in plans else x for n, x in fields.items()}

    return Bound(out, function)


def refuse_outside(
    operator: str, dim: str, where: Mapping[str, np.ndarray], template: Template, inside: np.ndarray
) -> None:
    """Raise `OperatorError` if a position lies outside the grid; the message names the first one."""
    if inside.all():
        return
    bad = np.flatnonzero(~inside)
    position = ", ".join(f"{d}={v[bad[0]]:g}" for d, v in where.items())
    grid = ", ".join(f"{d} from {template.coordinate(d).min():g} to {template.coordinate(d).max():g}" for d in where)
    raise OperatorError(
        f"{operator}: {dim} {bad[0]} ({position}) lies outside the grid ({grid}), and so do {bad.size - 1} others of "
        f'{inside.size}; correct the positions, or pass outside="drop" to leave them out'
    )


def positions(operator: str, coords: object) -> dict[str, tuple[float, ...]]:
    """Positions as tuples of floats.

    Raises
    ------
    OperatorError
        If there are none, they are not finite numbers, or their counts differ.
    """
    if not isinstance(coords, Mapping) or not coords:
        raise OperatorError(f"{operator}: found coords={coords!r}, expected {{dimension: positions}}")
    try:
        out = {str(d): tuple(map(float, np.ravel(np.asarray(v, float)))) for d, v in coords.items()}
    except (TypeError, ValueError) as error:
        raise OperatorError(f"{operator}: the positions are not numbers ({error})") from error
    lengths = {d: len(v) for d, v in out.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise OperatorError(
            f"{operator}: found {lengths} positions, expected one number, at least 1, for all dimensions"
        )
    for dim, values in out.items():
        if not np.isfinite(values).all():
            raise OperatorError(
                f"{operator}: position {np.flatnonzero(~np.isfinite(values))[0]} of '{dim}' is not finite"
            )
    return out


def place_attrs(template: Template, dim: str) -> dict[Any, Any]:
    """Attributes of the coordinate ``dim`` where it is not a dimension: without axis and period."""
    return {k: v for k, v in without_period(template.coords[dim].attrs).items() if k != "axis"}


def check_outside(operator: str, outside: str) -> None:
    """Raise `OperatorError` unless ``outside`` is one of `OUTSIDE`."""
    if outside not in OUTSIDE:
        raise OperatorError(f"{operator}: outside is {schema.nearest(outside, OUTSIDE)}")


def _interpolate(x: Tensor, axes: tuple[int, ...], indices: Constant, weights: Constant) -> Tensor:
    flat = x.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))
    return (flat[..., indices.like(x)] * weights.like(x)).sum(-2)


def _corners(brackets: Sequence[Bracket], sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and weights of the corners of the cell around each position, shape (corner, position) each."""
    shape = (2 ** len(brackets), *brackets[0].lower.shape)
    indices, weights = np.zeros(shape, int), np.ones(shape)
    for index, weight, sides in zip(indices, weights, itertools.product((0, 1), repeat=len(brackets)), strict=True):
        for b, size, side in zip(brackets, sizes, sides, strict=True):
            index *= size
            index += b.upper if side else b.lower
            weight *= b.weight if side else 1 - b.weight
    # 0 times NaN is NaN: where a corner has no weight, the index is that of the heaviest corner.
    heaviest = np.take_along_axis(indices, weights.argmax(0)[None], 0)
    np.copyto(indices, heaviest, where=weights == 0)
    used = weights.any(1)
    return (indices, weights) if used.all() else (indices[used], weights[used])
