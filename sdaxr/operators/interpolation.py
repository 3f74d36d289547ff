"""Bilinear interpolation to stations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sdaxr import schema
from sdaxr.operators.base import Bound, Constant, Fields, Operator, axis_of, check_dimensions, register
from sdaxr.operators.mesh import Corners, corners
from sdaxr.operators.template import CoordTemplate, Template, without_period
from sdaxr.schema import OperatorError
from sdaxr.states.axes import is_latitude, is_longitude
from sdaxr.states.coordinates import TOLERANCE, spacing_of, wrapped

OUTSIDE = ("error", "drop")


def points(coords: Mapping[str, Sequence[float]], dim: str = "station", *, outside: str = "error") -> Operator:
    """Values at stations, by bilinear interpolation, also across the seam of a periodic grid.

    On curvilinear grids, and on the cells of a mesh, the interpolation is linear in triangles.

    Parameters
    ----------
    coords
        Positions of the stations: one sequence for each dimension of the grid, all of equal length; or latitudes and
        longitudes, where the points of the grid have these as coordinates (`sdaxr.operators.mesh`). Longitudes may be
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
    steady = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "coords", positions("points", self.coords))
        check_outside("points", self.outside)

    def bind(self, template: Template) -> Bound:
        names = {d: named_place(d, template) or d for d in self.coords}
        check_dimensions("points", tuple(d for d in names.values() if d not in template.coords), template)
        where = {names[d]: np.asarray(v) for d, v in self.coords.items()}
        mesh = on_mesh(template, where)
        brackets = {d: bracket(template, d, v) for d, v in where.items() if d in template.sizes}
        inside = np.logical_and.reduce([b.inside for b in brackets.values()] + [m.inside for m in mesh])
        if self.outside == "error":
            refuse_outside("points", self.dim, where, template, inside)
        kept = np.flatnonzero(inside)
        labels = {d: CoordTemplate(v[kept], place_attrs(template, d), (self.dim,)) for d, v in where.items()}
        labels[self.dim] = CoordTemplate(kept, {"long_name": f"number of the {self.dim}"})
        around = [m.take(kept) for m in mesh]
        return gather(template, {d: b.take(kept) for d, b in brackets.items()}, self.dim, labels, inside.size, around)


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
    mesh: Sequence[Corners] = (),
) -> Bound:
    """The bound operator that replaces the dimensions of ``brackets`` and ``mesh`` by ``dim``, the last dimension.

    ``labels`` are the coordinates along ``dim``. ``asked`` counts all positions, those that were dropped included.
    """
    joint = [d for m in mesh for d in m.dims]
    replaced = {*brackets, *joint}
    plans: dict[str, tuple[tuple[int, ...], Constant, Constant]] = {}
    variables = {}
    for name, variable in template.variables.items():
        here = (*(d for d in variable.dims if d in brackets), *(d for d in joint if d in variable.dims))
        if here and len(here) < len(replaced):
            raise OperatorError(
                f"'{name}' has the dimensions {variable.dims}, expected all or none of {sorted(replaced)}"
            )
        variables[name] = variable
        if here:
            indices, weights = _corners([_along(d, brackets[d]) for d in here if d in brackets] + [*mesh], template)
            plans[name] = (
                tuple(axis_of(variable.dims, d) for d in here),
                Constant(indices),
                Constant(weights),
            )
            rest = tuple(d for d in variable.dims if d not in replaced)
            variables[name] = replace(variable, dims=(*rest, dim))
    size = len(next(iter(labels.values())).values)
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
    ends = {d: (np.nanmin(c), np.nanmax(c)) for d in where for c in [template.coords[d].values]}
    grid = ", ".join(f"{d} from {low:g} to {high:g}" for d, (low, high) in ends.items())
    raise OperatorError(
        f"{operator}: {dim} {bad[0]} ({position}) lies outside the grid ({grid}), and so do {bad.size - 1} others of "
        f'{inside.size}; correct the positions, or pass outside="drop" to leave them out'
    )


def positions(operator: str, coords: object, *, finite: bool = True) -> dict[str, tuple[float, ...]]:
    """Positions as tuples of floats.

    Raises
    ------
    OperatorError
        If there are none, they are not numbers, not ``finite`` ones, or their counts differ.
    """
    if not isinstance(coords, Mapping) or not coords:
        raise OperatorError(f"{operator}: found coords={coords!r}, expected {{dimension: positions}}")
    try:
        out = {str(d): tuple(map(float, np.ravel(np.asarray(v, float)))) for d, v in coords.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise OperatorError(f"{operator}: the positions are not numbers ({error})") from error
    lengths = {d: len(v) for d, v in out.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise OperatorError(
            f"{operator}: found {lengths} positions, expected one number, at least 1, for all dimensions"
        )
    for dim, values in out.items():
        if finite and not np.isfinite(values).all():
            raise OperatorError(
                f"{operator}: position {np.flatnonzero(~np.isfinite(values))[0]} of '{dim}' is not finite"
            )
    return out


def named_place(name: str, template: Template) -> str | None:
    """The dimension, or the latitude or longitude of grid points, that ``name`` is: by name, else by what it is."""
    grids = {n for n, c in template.coords.items() if c.dims and all(d in template.sizes for d in c.dims)}
    if name in template.sizes or name in grids:
        return name
    found = []
    for role in (r for r in (is_latitude, is_longitude) if r(name)):
        found += [n for n, c in template.coords.items() if role(n, c.attrs) and (n in template.sizes or n in grids)]
    return found[0] if len(found) == 1 else None


def on_mesh(template: Template, where: Mapping[str, np.ndarray]) -> list[Corners]:
    """Grid points around places on a grid whose points have latitudes and longitudes: one `Corners`, or none."""
    given = {n: template.coords[n] for n in where if n not in template.sizes and n in template.coords}
    north = [n for n, c in given.items() if is_latitude(n, c.attrs)]
    east = [n for n, c in given.items() if is_longitude(n, c.attrs)]
    if not given:
        return []
    if len(north) != 1 or len(east) != 1 or given[north[0]].dims != given[east[0]].dims:
        raise OperatorError(f"found places along {list(given)}, expected a latitude and a longitude of the same points")
    latitude, longitude = given[north[0]], given[east[0]]
    return [corners(latitude.dims or (), latitude.values, longitude.values, where[north[0]], where[east[0]])]


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


def _along(dim: str, b: Bracket) -> Corners:
    return Corners((dim,), np.stack([b.lower, b.upper]), np.stack([1 - b.weight, b.weight]), b.inside)


def _corners(parts: Sequence[Corners], template: Template) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and weights of the corners of the cell around each position, shape (corner, position) each."""
    sizes = [math.prod(template.sizes[d] for d in part.dims) for part in parts]
    sides = list(itertools.product(*(range(len(part.weights)) for part in parts)))
    shape = (len(sides), *parts[0].inside.shape)
    indices, weights = np.zeros(shape, int), np.ones(shape)
    for index, weight, chosen in zip(indices, weights, sides, strict=True):
        for part, size, side in zip(parts, sizes, chosen, strict=True):
            index *= size
            index += part.indices[side]
            weight *= part.weights[side]
    # 0 times NaN is NaN: where a corner has no weight, the index is that of the heaviest corner.
    heaviest = np.take_along_axis(indices, weights.argmax(0)[None], 0)
    np.copyto(indices, heaviest, where=weights == 0)
    used = weights.any(1)
    return (indices, weights) if used.all() else (indices[used], weights[used])
