"""Single measurements, each with its own time and place: the point form of observations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from sdaxr.schema import TIME, OperatorError
from sdaxr.states.coordinates import TOLERANCE, nearest_points
from sdaxr.states.time import nearest_times, time_kind


def locations(coords: Mapping[str, Sequence[Any]], dim: str = "obs", *, outside: str = "error") -> Operator:
    """The state at single measurements: at the time and layer of each, by bilinear interpolation in space.

    Parameters
    ----------
    coords
        Positions of the measurements: one sequence for each dimension of the state, all of equal length. Coordinates of
        other names, such as the height of a station, are not used. Times are model times, ISO dates, or seconds where
        the time of the state is a timedelta. Times and layers must be among those of the state.
    dim
        Name of the new dimension.
    outside
        What happens to measurements outside the grid or the window: ``"error"`` raises, ``"drop"`` leaves them out and
        records their number in the attribute ``<dim>_outside_grid``.
    """
    return Locations({str(k): tuple(v) for k, v in coords.items()}, dim, outside)


@register
@dataclass(frozen=True, repr=False)
class Locations(Operator):
    """Single measurements, on (obs): exact in time and layer, bilinear in space; see `locations`."""

    coords: dict[str, tuple[Any, ...]]
    dim: str = "obs"
    outside: str = "error"

    name = "locations"
    linear = True

    def __post_init__(self) -> None:
        check_outside("locations", self.outside)
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
        layers, mesh = {template.layer(name) for name in template.variables}, on_mesh(template, where)
        brackets = {TIME: _at_time(template, times)}
        for dim in where:
            if dim != TIME and dim in template.sizes:
                brackets[dim] = (
                    _at_layer(template, dim, where[dim]) if dim in layers else bracket(template, dim, where[dim])
                )
        inside = np.logical_and.reduce([b.inside for b in brackets.values()] + [m.inside for m in mesh])
        if self.outside == "error":
            self._refuse(brackets, where, template)
            if mesh:
                at = {d: v for d, v in where.items() if d not in template.sizes}
                refuse_outside("locations", self.dim, at, template, mesh[0].inside)
        kept = np.flatnonzero(inside)
        labels = {d: CoordTemplate(v[kept], place_attrs(template, d), (self.dim,)) for d, v in where.items()}
        labels[self.dim] = CoordTemplate(kept, {"long_name": "number of the measurement"})
        around = [m.take(kept) for m in mesh]
        return gather(template, {d: b.take(kept) for d, b in brackets.items()}, self.dim, labels, inside.size, around)

    def _places(self, template: Template) -> dict[str, np.ndarray]:
        """Positions along dimensions of the state, without other coordinates such as the height of a station."""
        names = {d: named_place(d, template) for d in self.coords if d != TIME}
        places = {name: np.asarray(self.coords[d]) for d, name in names.items() if name is not None}
        grids = {n: template.coords[n].dims or () for n in places if n not in template.sizes}
        covered = {*places, *(d for dims in grids.values() for d in dims)}
        if {d for name in template.variables for d in template.space(name)} - covered:
            check_dimensions("locations", tuple(d for d, name in names.items() if name is None), template)
        where = {n: v for n, v in places.items() if n in template.sizes or set(grids[n]) - set(places)}
        for dim, values in where.items():
            if not np.isfinite(values).all():
                at = int(np.isfinite(values).argmin())
                raise OperatorError(
                    f"locations: '{dim}' of {self.dim} {at} is {values[at]}, expected a number; leave it out"
                )
        return where

    def _refuse(self, brackets: Mapping[str, Bracket], where: Mapping[str, np.ndarray], template: Template) -> None:
        for dim, found in brackets.items():
            bad = np.flatnonzero(~found.inside)
            if bad.size == 0:
                continue
            values = template.coordinate(dim)
            raise OperatorError(
                f"locations: '{dim}' of {self.dim} {bad[0]} is {where[dim][bad[0]]}, and {bad.size - 1} others of "
                f"{found.inside.size} lie outside too; expected {values.min()} to {values.max()}; correct them, or "
                'pass outside="drop" to leave them out'
            )


def write_times(times: xr.DataArray) -> tuple[Any, ...]:
    """Times in the form of JSON: model times, ISO dates, or seconds in the place of timedeltas."""
    kind = time_kind(times)
    if kind == "float":
        return tuple(map(float, times.values))
    if kind == "timedelta":
        return tuple((times.values / np.timedelta64(1, "ns") * 1e-9).tolist())
    return tuple(map(str, times.values)) if kind == "datetime" else tuple(t.isoformat() for t in times.values)


def _at_time(template: Template, times: np.ndarray) -> Bracket:
    grid = template.coordinate(TIME)
    index, distance = nearest_times(times, grid)
    edge = ((index == 0) & (distance < 0)) | ((index == grid.size - 1) & (distance > 0))
    off = np.abs(distance) > TOLERANCE
    between = np.flatnonzero(off & ~edge)
    if between.size:
        at = between[0]
        raise OperatorError(
            f"locations: the time {times[at]} of measurement {at} is not a step of the state, nor are the times "
            f"of {between.size - 1} others; its nearest step is {grid[index[at]]}; move the measurements to the steps, "
            "or leave them out"
        )
    return Bracket(index, index, np.zeros(index.shape), ~off)


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
