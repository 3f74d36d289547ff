"""The operator of observations in the point form: the state at the time and place of each measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.operators.base import Bound, Operator
from sdaxr.operators.locations import bind_locations, lost_places, places_in, write_times
from sdaxr.operators.template import Template
from sdaxr.schema import TIME, OperatorError, others
from sdaxr.states.time import calendar_of, check_kind, time_kind


@dataclass(frozen=True, repr=False, eq=False)
class Measurements(Operator):
    """`sdaxr.operators.locations` with arrays in the place of JSON, at those coordinates that the state has, too.

    Other coordinates, such as an elevation or the number of a station, say nothing of the place in the state.

    Attributes
    ----------
    coords
        Coordinates of the measurements, 1-D; ``time`` among them.
    dim, labels
        Name and labels of their dimension.
    outside, time, tolerance
        As of `sdaxr.operators.locations`.
    needed
        Which measurements must lie inside where ``outside`` is ``"error"``, shape (n,).
    """

    coords: Mapping[str, xr.DataArray]
    dim: str
    labels: np.ndarray
    outside: str
    time: str
    tolerance: float
    needed: np.ndarray

    name = "locations"
    linear = True

    def bind(self, template: Template) -> Bound:
        times = self.coords[TIME]
        grid = xr.DataArray(template.coordinate(TIME), dims=TIME, name=TIME)
        check_kind(times, time_kind(grid), of="the measurements", like="the states", calendar=calendar_of(grid))
        names = {TIME: TIME} | places_in(template, [n for n in self.coords if n != TIME])
        self._check_places(template, names.values())
        where = {
            p: self.coords[n].values if n == TIME else self.coords[n].values.astype(float) for n, p in names.items()
        }
        for name, place in names.items():
            values = where[place]
            absent = np.flatnonzero(~self.coords[name].notnull().values & self.needed)
            if absent.size:
                raise OperatorError(
                    f"'{name}' of measurement {absent[0]}{others(absent.size - 1)} is {values[absent[0]]}, expected a "
                    "value; leave the measurement out"
                )
        return bind_locations(
            template, where, self.dim, labels=self.labels,
            outside=self.outside, time=self.time, tolerance=self.tolerance, needed=self.needed,
        )  # fmt: skip

    def _check_places(self, template: Template, names: Iterable[str]) -> None:
        lost = lost_places(template, names)
        if lost:
            raise OperatorError(
                f"the measurements have no position along {', '.join(map(repr, lost))}, found the coordinates "
                f"{list(self.coords)} along '{self.dim}'; add it with ds.assign_coords, or rename what it is called "
                f"there, ds.rename({{...: {lost[0]!r}}})"
            )

    def take(self, rows: np.ndarray) -> Measurements:
        """The operator of some of the measurements, given by their numbers; those outside are left out."""
        coords = {name: c[rows] for name, c in self.coords.items()}
        return replace(self, coords=coords, labels=self.labels[rows], needed=self.needed[rows], outside="drop")

    def to_dict(self) -> dict[str, Any]:
        """The operator `locations` with the same coordinates."""
        coords = {n: write_times(c) if n == TIME else tuple(c.values.tolist()) for n, c in self.coords.items()}
        return {
            "op": self.name,
            "coords": coords,
            **{key: getattr(self, key) for key in ("dim", "outside", "time", "tolerance")},
        }

    def __repr__(self) -> str:
        return f"measurements({', '.join(self.coords)})"
