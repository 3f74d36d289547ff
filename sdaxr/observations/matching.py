"""Observations matched with the labels of an operator's output.

Times and points are matched by their labels; nothing is interpolated, converted or dropped silently.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.operators import Template
from sdaxr.schema import TIME, DataError, GridError, OptionError
from sdaxr.states.coordinates import (
    TOLERANCE,
    describe_points,
    match_points,
    separation,
    spacing_of,
    turn_of,
    unrolled,
    wrapped,
)
from sdaxr.states.names import auxiliary
from sdaxr.states.places import Places, check_places
from sdaxr.states.time import check_kind, nearest_times, time_kind
from sdaxr.states.units import check_decoded

OBS = "obs"
ERROR = "_error"

_QUALITY = "_qc"
# Stations have no spacing to compare with. Text files give their positions with four digits or more.
_POSITION = 1e-4  # of the largest value of the coordinate, at least of 1


class Matched(dict[str, tuple[np.ndarray, np.ndarray]]):
    """Values and errors of each observed variable, on the whole template; NaN where not observed.

    Attributes
    ----------
    dropped
        Number of values of each variable that lie outside and are left out; only with ``outside="drop"``.
    """

    dropped: dict[str, int]


def validate(observations: xr.Dataset, template: Template, *, outside: str = "error") -> None:
    """Raise what `match` raises if ``observations`` do not fit the operator's output ``template``."""
    match(observations, template, outside=outside)


def match(observations: xr.Dataset, template: Template, *, outside: str = "error") -> Matched:
    """Observations and their errors as arrays with the labels of an operator's output.

    Parameters
    ----------
    observations
        Grid or point form: some of the template's variables, at some of its times and points, in any order.
    template
        Labels of the operator's output on the assimilated window (``Bound.template``).
    outside
        ``"error"``, or ``"drop"`` for times outside the window and points outside the grid.

    Returns
    -------
    Matched
        For each observed variable, values and errors of shape ``template.shape(name)``.

    Raises
    ------
    DataError
        If a variable or dimension is unknown, an error is missing or not positive, a time is outside the window or
        between its steps, or a label is repeated.
    GridError
        If points are not among those of the template.
    UnitsError
        If units differ.
    OptionError
        If ``outside`` is unknown.
    """
    if outside not in ("error", "drop"):
        raise OptionError(f"outside is {schema.nearest(outside, ('error', 'drop'))}")
    out, places = Matched(), {}
    out.dropped = {}
    for name in observed_variables(observations):
        if name not in template.variables:
            raise DataError(
                f"the operator gives no variable {schema.nearest(name, template.variables)} Rename it, or drop it with "
                f"ds.drop_vars({name!r})"
            )
        value, error = _checked(observations, name, template)
        for dim in map(str, value.dims):
            if dim not in places:
                places[dim] = _places(observations, dim, template, outside)
        kept, at = zip(*(places[str(d)] for d in value.dims), strict=True) if value.dims else ((), ())
        grids = {n: Places(c.dims, c.values, c.attrs) for n, c in template.coords.items() if c.dims and len(c.dims) > 1}
        whole = {n: p for n, p in grids.items() if all(observations.sizes.get(d) == template.sizes[d] for d in p.dims)}
        check_places(observations, whole, of="the observations", like="the operator's output")
        pair = []
        for source in (value, error):
            full = np.full(template.shape(name), np.nan, np.result_type(value.dtype, np.float32))
            full[np.ix_(*at)] = source.values[np.ix_(*kept)]
            pair.append(full)
        pair[1][np.isnan(pair[0])] = np.nan
        out[name] = (pair[0], pair[1])
        lost = int(np.isfinite(value.values).sum() - np.isfinite(pair[0]).sum())
        if lost:
            out.dropped[name] = lost
    return out


def observed_variables(observations: xr.Dataset) -> list[str]:
    """Names of the measured variables: all except errors, quality flags and ancillary variables.

    Raises
    ------
    DataError
        If there is none.
    """
    names = [str(n) for n in observations.data_vars]
    aside = {n for n in names if any(n == f"{m}{end}" for m in names for end in (ERROR, _QUALITY))}
    aside |= {a for n in names for a in str(observations[n].attrs.get("ancillary_variables", "")).split()}
    aside |= auxiliary(observations)
    found = [n for n in names if n not in aside]
    if not found:
        raise DataError(f"found the variables {names}, expected at least one measured variable and its '<name>_error'")
    return found


def _checked(observations: xr.Dataset, name: str, template: Template) -> tuple[xr.DataArray, xr.DataArray]:
    # Value and broadcast error of one variable, dims in the template's order.
    value, variable = observations[name], template.variables[name]
    if set(value.dims) != set(variable.dims):
        raise DataError(
            f"'{name}' has the dimensions {tuple(value.dims)}, expected {variable.dims}, those of the operator's "
            "output; select, rename or add what differs"
        )
    value = value.transpose(*variable.dims)
    check_decoded(name, value.attrs, "the observations")
    schema.check_units(name, value.attrs.get("units"), variable.units)
    label = f"{name}{ERROR}"
    if label not in observations:
        raise DataError(
            f"'{name}' has no '{label}', expected one standard deviation of its error; "
            f"set ds[{label!r}] = ... (a number, or values along some of {variable.dims})"
        )
    error = observations[label]
    schema.check_units(label, error.attrs.get("units") or variable.units, variable.units)
    strange = [d for d in error.dims if d not in variable.dims]
    if strange:
        raise DataError(f"'{label}' has the dimensions {strange}, expected some of {variable.dims}")
    error = error.broadcast_like(value).transpose(*variable.dims)
    if np.isinf(value.values).any():
        raise DataError(
            f"'{name}' has {int(np.isinf(value.values).sum())} infinite values; set them to NaN to leave them out"
        )
    bad = np.isfinite(value.values) & ~(np.isfinite(error.values) & (error.values > 0))
    if bad.any():
        raise DataError(
            f"'{label}' is {error.values[bad][0]} where '{name}' has a value, {int(bad.sum())} times; expected a "
            "finite standard deviation above 0; correct it, or set the value to NaN to leave it out"
        )
    return value, error


def _places(observations: xr.Dataset, dim: str, template: Template, outside: str) -> tuple[np.ndarray, np.ndarray]:
    # Positions along `dim` in the observations that are kept, and where they go in the template.
    if dim == TIME:
        kept, at = _time_places(observations, template, outside)
    else:
        kept, at = _grid_places(observations, dim, template, outside)
    if len(np.unique(at)) != len(at):
        twice = kept[np.flatnonzero(np.bincount(at)[at] > 1)[0]]
        label = observations[dim].values[twice]
        raise DataError(f"the label {label} of '{dim}' is there more than once; average the values, or keep one")
    if dim != TIME:
        _check_positions(observations, dim, template, kept, at)
    return kept, at


def _time_places(observations: xr.Dataset, template: Template, outside: str) -> tuple[np.ndarray, np.ndarray]:
    if TIME not in observations.coords:
        raise DataError("'time' has no coordinate, expected times; add them with ds.assign_coords(time=...)")
    times, grid = observations[TIME], xr.DataArray(template.coordinate(TIME), dims=TIME, name=TIME)
    check_kind(times, time_kind(grid), of="the observations", like="the window")
    units = template.coords[TIME].attrs.get("units")
    schema.check_units(TIME, times.attrs.get("units") or units, units)
    at, distance = nearest_times(times.values, grid.values)
    off = ~(np.abs(distance) <= TOLERANCE)
    beyond = off & (((at == 0) & (distance < 0)) | ((at == grid.size - 1) & (distance > 0)))
    for bad, what in ((off & ~beyond, "is off the steps of the window"), (beyond, "lies outside the window")):
        if bad.any() and not (outside == "drop" and bad is beyond):
            first = int(bad.argmax())
            hint = ', or pass outside="drop" to leave them out' if bad is beyond else ""
            raise DataError(
                f"the time {times.values[first]} {what} ({grid.values[0]} to {grid.values[-1]}), {int(bad.sum())} of "
                f"{times.size} do; the nearest step is {grid.values[at[first]]}; select or move the times{hint}"
            )
    kept = np.flatnonzero(~off)
    return kept, at[kept]


def _grid_places(observations: xr.Dataset, dim: str, template: Template, outside: str) -> tuple[np.ndarray, np.ndarray]:
    own = dim in template.coords and template.coords[dim].dims is None
    grid = template.coords[dim].values if own else np.arange(template.sizes[dim])
    named = dim in observations.coords
    if own and not named and dim != OBS and observations.sizes[dim] == grid.size:
        return np.arange(grid.size), np.arange(grid.size)
    if not named and dim != OBS and observations.sizes[dim] != grid.size:
        raise GridError(
            f"'{dim}' of the observations has {observations.sizes[dim]} points without a coordinate, the operator's "
            f"output has {grid.size}: which of them is not known; give all points, with NaN where nothing is observed, "
            f"label them as the prior does, or give measurements along '{OBS}' with latitude and longitude"
        )
    labels = observations[dim].values if named else np.arange(observations.sizes[dim])
    turn = template.turn(dim)
    at = match_points(labels, grid, turn)
    beyond = np.full(at.shape, labels.dtype.kind != "f")  # names and numbers of stations are there, or are not
    if labels.dtype.kind == "f" and grid.dtype.kind in "fiu" and template.period(dim) is None:
        beyond = ~_within(labels, unrolled(grid, turn), turn)
    bad = (at < 0) & ~(beyond & (outside == "drop"))
    if bad.any():
        raise GridError(
            f"'{dim}' of the observations ({describe_points(labels)}) has {int(bad.sum())} labels, "
            f"{labels[bad.argmax()]} the first, that are not on the grid of the operator's output "
            f"({describe_points(grid)}); interpolate to it, or observe the prior's grid with the operator that the "
            "observations were made with"
        )
    kept = np.flatnonzero(at >= 0)
    return kept, at[kept]


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
