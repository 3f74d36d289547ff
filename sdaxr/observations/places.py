"""Where the labels of observations lie in an operator's output, along one dimension.

Times and points are matched by their labels; nothing is interpolated or converted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.screening import OFF_STEP, OUTSIDE, USED, Screening
from sdaxr.operators import Template
from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.coordinates import (
    TOLERANCE,
    describe_points,
    match_points,
    nearest_points,
    separation,
    spacing_of,
    turn_of,
    unrolled,
    wrapped,
)
from sdaxr.states.time import calendar_of, check_kind, elapsed, nearest_times, time_kind

OBS = "obs"

# Stations have no spacing to compare with. Text files give their positions with four digits or more.
_POSITION = 1e-4  # of the largest value of the coordinate, at least of 1


@dataclass(frozen=True)
class Places:
    """Places of the labels along one dimension of the observations.

    ``kept`` are the indices of those that are in the template, ``at`` their indices there; ``status`` is that of each
    label, int8: used, outside, or off the steps.
    """

    kept: np.ndarray
    at: np.ndarray
    status: np.ndarray

    @classmethod
    def of(cls, at: np.ndarray, status: np.ndarray | int = OUTSIDE) -> Places:
        """Labels with the places ``at``, -1 where they have none and ``status`` instead; shape (n,)."""
        kept = np.flatnonzero(at >= 0)
        return cls(kept, at[kept], np.where(at >= 0, USED, status).astype(np.int8))


def places_along(
    observations: xr.Dataset,
    dim: str,
    template: Template,
    screening: Screening,
    steps: xr.DataArray | None,
    needed: np.ndarray,
) -> Places:
    """The places of the labels of the dimension ``dim``.

    Parameters
    ----------
    observations, template, screening, steps
        As of `sdaxr.observations.matching.find`.
    needed
        Which labels have a value, shape (n,); others may lie anywhere.

    Raises
    ------
    DataError, GridError, UnitsError
        As `sdaxr.observations.matching.find`.
    """
    if dim == TIME:
        return _time_places(observations, template, screening, needed)
    found = _grid_places(observations, dim, template, screening, needed)
    _check_positions(observations, dim, template, found.kept, found.at)
    if dim == OBS and steps is not None and screening.time == "nearest" and (found.status != USED).any():
        off = off_steps(observations[TIME], steps, screening)
        return replace(found, status=np.where((found.status == OUTSIDE) & off, OFF_STEP, found.status))
    return found


def off_steps(times: xr.DataArray, steps: xr.DataArray, screening: Screening) -> np.ndarray:
    """Which times lie between the first and the last of ``steps``, but at none of them; shape (n,)."""
    asked, there = (elapsed(t, steps.values[0]) for t in (times, steps))
    _, distance = nearest_points(asked, there)
    apart = np.abs(distance) * spacing_of(there)
    near = (np.abs(distance) <= TOLERANCE) | (apart <= (screening.tolerance or 0.0))
    between = (asked >= there[0]) & (asked <= there[-1])
    return np.asarray(between & ~near)


def _time_places(observations: xr.Dataset, template: Template, screening: Screening, needed: np.ndarray) -> Places:
    if TIME not in observations.coords:
        raise DataError("'time' has no coordinate, expected times; add them with ds.assign_coords(time=...)")
    times, grid = observations[TIME], xr.DataArray(template.coordinate(TIME), dims=TIME, name=TIME)
    check_kind(times, time_kind(grid), of="the observations", like="the window", calendar=calendar_of(grid))
    units = template.coords[TIME].attrs.get("units")
    schema.check_units(TIME, times.attrs.get("units") or units, units)
    at, distance = nearest_times(times.values, grid.values)
    off = ~(np.abs(distance) <= TOLERANCE)
    beyond = off & (((at == 0) & (distance < 0)) | ((at == grid.size - 1) & (distance > 0)))
    for bad, what in ((off & ~beyond, "is off the steps of the window"), (beyond, "lies outside the window")):
        bad = bad & needed
        if bad.any() and screening.outside == "error":
            first = int(bad.argmax())
            raise DataError(
                f"the time {times.values[first]} {what} ({grid.values[0]} to {grid.values[-1]}), {int(bad.sum())} of "
                f"{times.size} do; the nearest step is {grid.values[at[first]]}; select or move the times, or pass "
                'outside="drop" to leave them out'
            )
    return Places.of(np.where(off, -1, at), np.where(beyond, OUTSIDE, OFF_STEP))


def _grid_places(
    observations: xr.Dataset, dim: str, template: Template, screening: Screening, needed: np.ndarray
) -> Places:
    own = dim in template.coords and template.coords[dim].dims is None
    grid = template.coords[dim].values if own else np.arange(template.sizes[dim])
    named = dim in observations.coords
    if own and not named and dim != OBS and observations.sizes[dim] == grid.size:
        return Places.of(np.arange(grid.size))
    if not named and dim != OBS and observations.sizes[dim] != grid.size:
        raise GridError(
            f"'{dim}' of the observations has {observations.sizes[dim]} points without a coordinate, the operator's "
            f"output has {grid.size}: which of them is not known; give all points, with NaN where nothing is observed, "
            f"label them as the prior does, or give measurements along '{OBS}' with latitude and longitude"
        )
    labels = labels_of(observations, dim)
    turn = template.turn(dim)
    at = match_points(labels, grid, turn)
    beyond = np.full(at.shape, labels.dtype.kind != "f")  # names and numbers of stations are there, or are not
    if labels.dtype.kind == "f" and grid.dtype.kind in "fiu" and template.period(dim) is None:
        beyond = ~_within(labels, unrolled(grid, turn), turn)
    bad = (at < 0) & needed & ~(beyond & (screening.outside == "drop"))
    if bad.any():
        raise GridError(
            f"'{dim}' of the observations ({describe_points(labels)}) has {int(bad.sum())} labels, "
            f"{labels[bad.argmax()]} the first, that are not on the grid of the operator's output "
            f"({describe_points(grid)}); interpolate to it, or observe the prior's grid with the operator that the "
            "observations were made with"
        )
    return Places.of(at)


def labels_of(observations: xr.Dataset, dim: str) -> np.ndarray:
    """Labels along a dimension; numbers from 0 on where there are none, or where measurements share a label."""
    if dim not in observations.coords or (dim == OBS and not observations.indexes[OBS].is_unique):
        return np.arange(observations.sizes[dim])
    return np.asarray(observations[dim].values)


def _within(labels: np.ndarray, grid: np.ndarray, turn: float | None) -> np.ndarray:
    slack, labels = TOLERANCE * spacing_of(grid), wrapped(labels, grid, turn)
    return np.asarray((labels >= grid.min() - slack) & (labels <= grid.max() + slack))


def _check_positions(observations: xr.Dataset, dim: str, template: Template, kept: np.ndarray, at: np.ndarray) -> None:
    # Stations are matched by number; their positions must then be the same.
    for name, coord in template.coords.items():
        if coord.dims != (dim,) or coord.values.dtype.kind not in "fiu" or name not in observations.coords:
            continue
        there = observations[name]
        if there.dims != (dim,) or there.dtype.kind not in "fiu":
            continue
        apart = separation(there.values[kept].astype(float), coord.values[at], turn_of(name, coord.attrs))
        bad = apart > _POSITION * max(1.0, float(np.abs(coord.values).max(initial=0.0)))
        if bad.any():
            i = int(bad.argmax())
            raise GridError(
                f"{dim} {observations[dim].values[kept[i]]} has {name}={there.values[kept[i]]} in the observations, "
                f"but the operator looks at {name}={coord.values[at[i]]}; give both the same {dim}s in the same order"
            )
