"""Single measurements, each with its own time and place: the point form of observations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sdaxr.operators.base import Bound, Operator, check_dimensions, register
from sdaxr.operators.interpolation import (
    Bracket,
    bracket,
    check_outside,
    gather,
    named_place,
    on_mesh,
    place_attrs,
    positions,
    refuse_outside,
)
from sdaxr.operators.template import CoordTemplate, Template
from sdaxr.schema import TIME, OperatorError, nearest, others
from sdaxr.states.coordinates import TOLERANCE, nearest_points, spacing_of
from sdaxr.states.time import elapsed, time_kind

IN_TIME = ("linear", "nearest")


def locations(
    coords: Mapping[str, Sequence[Any]],
    dim: str = "obs",
    *,
    outside: str = "error",
    time: str = "linear",
    tolerance: float = 0.0,
) -> Operator:
    """The state at single measurements: at the layer of each, by linear interpolation in time and bilinear in space.

    Parameters
    ----------
    coords
        Positions of the measurements: one sequence for each dimension of the state, all of equal length. Coordinates of
        other names, such as the height of a station, are not used. Times are model times, ISO dates, or seconds where
        the time of the state is a timedelta. Layers must be among those of the state.
    dim
        Name of the new dimension.
    outside
        What happens to measurements outside the grid or the window: ``"error"`` raises, ``"drop"`` leaves them out and
        records their number in the attribute ``<dim>_outside_grid``.
    time
        Measurements between two times of the state: ``"linear"`` interpolates between these, ``"nearest"`` takes the
        nearest time, if it is not further than ``tolerance``.
    tolerance
        With ``"nearest"``: largest distance of a measurement from the time that is taken, in seconds, or in model time.
    """
    return Locations({str(k): tuple(v) for k, v in coords.items()}, dim, outside, time, tolerance)


@register
@dataclass(frozen=True, repr=False)
class Locations(Operator):
    """Single measurements, on (obs): linear in time, exact in the layer, bilinear in space; see `locations`."""

    coords: dict[str, tuple[Any, ...]]
    dim: str = "obs"
    outside: str = "error"
    time: str = "linear"
    tolerance: float = 0.0

    name = "locations"
    linear = True

    def __post_init__(self) -> None:
        check_outside("locations", self.outside)
        if self.time not in IN_TIME:
            raise OperatorError(f"locations: time is {nearest(self.time, IN_TIME)}")
        if not isinstance(self.coords, Mapping) or TIME not in self.coords:
            raise OperatorError(f"locations: found coords={self.coords!r}, expected 'time' and positions")
        times = tuple(t if isinstance(t, str) else float(t) for t in self.coords[TIME])
        numbers = {d: v for d, v in self.coords.items() if d != TIME}
        checked = positions("locations", numbers, finite=False) if numbers else {}
        if any(len(v) != len(times) for v in checked.values()):
            raise OperatorError(
                f"locations: found {len(times)} times, expected one for each position in {list(checked)}"
            )
        object.__setattr__(self, "coords", {TIME: times, **checked})

    def bind(self, template: Template) -> Bound:
        times = _like(self.coords[TIME], template.coordinate(TIME))
        where = {TIME: times, **self._places(template)}
        return bind_locations(template, where, self.dim, outside=self.outside, time=self.time, tolerance=self.tolerance)

    def _places(self, template: Template) -> dict[str, np.ndarray]:
        """Positions along dimensions of the state, without other coordinates such as the height of a station."""
        names = places_in(template, [d for d in self.coords if d != TIME])
        if lost_places(template, names.values()):
            check_dimensions("locations", tuple(d for d in self.coords if d != TIME and d not in names), template)
        where = {name: np.asarray(self.coords[d]) for d, name in names.items()}
        for dim, values in where.items():
            if not np.isfinite(values).all():
                at = int(np.isfinite(values).argmin())
                raise OperatorError(
                    f"locations: '{dim}' of {self.dim} {at} is {values[at]}, expected a number; leave it out"
                )
        return where


def places_in(template: Template, names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that are places of the state, and what these places are called there (`named_place`)."""
    known = {name: place for name in names if (place := named_place(name, template)) is not None}
    grids = {p: template.coords[p].dims or () for p in known.values() if p not in template.sizes}
    return {n: p for n, p in known.items() if p in template.sizes or set(grids[p]) - set(known.values())}


def lost_places(template: Template, names: Iterable[str]) -> list[str]:
    """Horizontal dimensions along which the places ``names`` say nothing."""
    given = [template.coords[n].dims or (n,) if n in template.coords else (n,) for n in names]
    covered = {d for dims in given for d in dims}
    return sorted({d for name in template.variables for d in template.space(name)} - covered)


def bind_locations(
    template: Template,
    where: Mapping[str, np.ndarray],
    dim: str,
    *,
    outside: str,
    time: str = "linear",
    tolerance: float = 0.0,
    labels: np.ndarray | None = None,
    needed: np.ndarray | None = None,
) -> Bound:
    """The operator `locations` for the fields of ``template``.

    Parameters
    ----------
    template
        Labels of the state.
    where
        Positions by dimension, shape (n,) each; times are of the kind of those of the state.
    dim, outside, time, tolerance
        As of `locations`.
    labels
        Labels of the measurements, shape (n,); by default their numbers, from 0 on.
    needed
        Which measurements must lie inside where ``outside`` is ``"error"``, shape (n,); by default all.

    Raises
    ------
    OperatorError
        If measurements that are needed lie outside.
    """
    layers = {template.layer(name) for name in template.variables}
    brackets = {TIME: _at_time(template, where[TIME], time, tolerance)}
    mesh = on_mesh(template, where)
    for name in where:
        if name != TIME and name in template.sizes:
            find = _at_layer if name in layers else bracket
            brackets[name] = find(template, name, where[name])
    inside = np.logical_and.reduce([b.inside for b in brackets.values()] + [m.inside for m in mesh])
    if outside == "error":
        _refuse(brackets, where, template, dim, needed)
        if mesh:
            at = {n: v for n, v in where.items() if n not in template.sizes}
            refuse_outside(
                "locations", dim, at, template, mesh[0].inside if needed is None else mesh[0].inside | ~needed
            )
    kept = np.flatnonzero(inside)
    coords = {d: CoordTemplate(v[kept], place_attrs(template, d), (dim,)) for d, v in where.items()}
    coords[dim] = CoordTemplate(kept if labels is None else labels[kept], {"long_name": "label of the measurement"})
    around = [m.take(kept) for m in mesh]
    return gather(template, {d: b.take(kept) for d, b in brackets.items()}, dim, coords, inside.size, around)


def _refuse(
    brackets: Mapping[str, Bracket],
    where: Mapping[str, np.ndarray],
    template: Template,
    dim: str,
    needed: np.ndarray | None,
) -> None:
    for name, found in brackets.items():
        bad = np.flatnonzero(~found.inside if needed is None else ~found.inside & needed)
        if bad.size == 0:
            continue
        first, values = where[name][bad[0]], template.coordinate(name)
        off = name == TIME and values.min() <= first <= values.max()
        lies = "is further than the tolerance from the times" if off else "lies outside the grid or the times"
        raise OperatorError(
            f"locations: '{name}' of {dim} {bad[0]}{others(bad.size - 1)} is {first} and {lies} of the state; expected "
            f"{values.min()} to {values.max()}; correct them, or pass "
            'outside="drop" to leave them out'
        )


def write_times(times: xr.DataArray) -> tuple[Any, ...]:
    """Times in the form of JSON: model times, ISO dates, or seconds in the place of timedeltas."""
    kind = time_kind(times)
    if kind == "float":
        return tuple(map(float, times.values))
    if kind == "timedelta":
        return tuple((times.values / np.timedelta64(1, "ns") * 1e-9).tolist())
    return tuple(map(str, times.values)) if kind == "datetime" else tuple(t.isoformat() for t in times.values)


def _at_time(template: Template, times: np.ndarray, time: str, tolerance: float) -> Bracket:
    grid = template.coordinate(TIME)
    asked, there = (elapsed(xr.DataArray(t, dims=TIME, name=TIME), grid[0]) for t in (times, grid))
    index, distance = nearest_points(asked, there)
    steps = np.abs(distance) * spacing_of(there)
    if time == "nearest":
        inside = (steps <= tolerance) | (np.abs(distance) <= TOLERANCE)
        return Bracket(index, index, np.zeros(index.shape), inside)
    other = np.where(distance > 0, index + 1, index - 1).clip(0, grid.size - 1)
    exact = np.abs(distance) <= TOLERANCE
    gap = np.abs(there[other] - there[index])
    weight = np.divide(steps, gap, out=np.zeros(steps.shape), where=~exact & (gap > 0))
    return Bracket(index, other, weight, exact | ((other != index) & np.isfinite(distance)))


def _at_layer(template: Template, dim: str, where: np.ndarray) -> Bracket:
    index, distance = nearest_points(where, template.coordinate(dim))
    return Bracket(index, index, np.zeros(index.shape), np.abs(distance) <= TOLERANCE)


def _like(times: Sequence[Any], grid: np.ndarray) -> np.ndarray:
    """Times of `write_times` as values that can be compared with those of the grid."""
    kind = time_kind(xr.DataArray(grid, dims=TIME, name=TIME))
    text = any(isinstance(t, str) for t in times)
    if text != (kind in ("datetime", "cftime")):
        raise OperatorError(
            f"locations: found the time {times[0]!r}, but the state's time is of kind {kind} ({grid[0]} to {grid[-1]}"
            "); give both the same kind of time"
        )
    if kind == "float":
        return np.asarray(times, float)
    if kind == "timedelta":
        return np.asarray(np.round(np.asarray(times, float) * 1e9), "timedelta64[ns]")
    if kind == "datetime":
        return np.asarray(pd.to_datetime(list(times), format="ISO8601"))
    parts = [list(map(int, re.findall(r"\d+", t))) for t in times]
    return np.array([type(grid[0])(*p[:6]) for p in parts], dtype=object)
