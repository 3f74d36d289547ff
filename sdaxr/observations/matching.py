"""Observations matched with the labels of an operator's output.

Times and points are matched by their labels; nothing is interpolated, converted or dropped silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from sdaxr import schema
from sdaxr.observations.places import OBS, Places, places_along
from sdaxr.observations.quality import flags_of, good_values
from sdaxr.observations.screening import DUPLICATE, FLAGGED, MISSING, USED, Screening
from sdaxr.observations.shared import Biases, biases_of
from sdaxr.operators import Template
from sdaxr.schema import DataError
from sdaxr.states import places as grids
from sdaxr.states.coordinates import turn_of
from sdaxr.states.names import auxiliary
from sdaxr.states.units import check_values

ERROR = "_error"


class Matched(dict[str, tuple[np.ndarray, np.ndarray]]):
    """Values and errors of each observed variable, on the whole template; NaN where not observed.

    Attributes
    ----------
    status
        Status of each value of the observations (`sdaxr.observations.screening`), int8, by variable; dimensions in the
        order of the template.
    """

    status: dict[str, np.ndarray]


@dataclass(frozen=True)
class Found:
    """The values of one variable that have a place in the operator's output.

    Attributes
    ----------
    where
        Their flat indices in the output, increasing, shape (n,).
    source
        Their flat indices in the observations, dimensions in the order of the template, shape (n,).
    values, errors
        Measured values and standard deviations of their whole errors, biases included
        (`sdaxr.observations.shared`), shape (n,).
    own_errors
        Standard deviations of the errors without biases, shape (n,).
    status
        Status of every value of the observations, int8, dimensions in the order of the template.
    biases
        Their biases; None where the errors have none.
    """

    where: np.ndarray
    source: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    own_errors: np.ndarray
    status: np.ndarray
    biases: Biases | None


def validate(observations: xr.Dataset, template: Template, screening: Screening | None = None) -> None:
    """Raise what `find` raises if ``observations`` do not fit the operator's output ``template``."""
    find(observations, template, screening)


def match(observations: xr.Dataset, template: Template, screening: Screening | None = None) -> Matched:
    """Observations and their errors as arrays with the labels of an operator's output; parameters and errors of `find`.

    Returns
    -------
    Matched
        For each observed variable, values and standard deviations of their whole errors, biases included, of shape
        ``template.shape(name)``.
    """
    out = Matched()
    out.status = {}
    for name, found in find(observations, template, screening).items():
        pair = []
        for values in (found.values, found.errors):
            full = np.full(template.shape(name), np.nan, np.result_type(values.dtype, np.float32))
            full.reshape(-1)[found.where] = values
            pair.append(full)
        out[name] = (pair[0], pair[1])
        out.status[name] = found.status
    return out


def find(
    observations: xr.Dataset,
    template: Template,
    screening: Screening | None = None,
    steps: xr.DataArray | None = None,
) -> dict[str, Found]:
    """The places of observations in an operator's output, by variable.

    Parameters
    ----------
    observations
        Grid or point form: some of the template's variables, at some of its times and points, in any order.
    template
        Labels of the operator's output on the assimilated window (``Bound.template``).
    screening
        What happens to values that lie outside, are flagged or are there twice; by default, `Screening` with its
        defaults.
    steps
        Times of the states, by which measurements outside the window are told from those off its steps.

    Raises
    ------
    DataError
        If a variable or dimension is unknown, an error is missing or not positive, a time is outside the window or
        between its steps, a value is there twice, or it is not known whether a flag is good.
    GridError
        If points are not among those of the template.
    UnitsError
        If units differ.
    """
    how = Screening() if screening is None else screening
    found: dict[str, Found] = {}
    places: dict[str, Places] = {}
    for name in observed_variables(observations):
        if name not in template.variables:
            raise DataError(
                f"the operator gives no variable {schema.nearest(name, template.variables)} Rename it, or drop it with "
                f"ds.drop_vars({name!r})"
            )
        value, error, status = _checked(observations, name, template, how)
        for dim in map(str, value.dims):
            if dim not in places:
                needed = _needed(value, status, dim)
                places[dim] = places_along(observations, dim, template, how, steps, needed)
        found[name] = _with_biases(_found(name, template, how, value, error, status, places), observations, value)
    _check_grids(observations, template)
    return found


def _check_grids(observations: xr.Dataset, template: Template) -> None:
    # Rows of a curvilinear grid have no labels; their latitudes and longitudes tell whether they are the same rows.
    known = {
        n: grids.Places(c.dims, c.values, c.attrs) for n, c in template.coords.items() if c.dims and c.values.ndim > 1
    }
    whole = {n: p for n, p in known.items() if all(observations.sizes.get(d) == template.sizes[d] for d in p.dims)}
    grids.check_places(observations, whole, of="the observations", like="the operator's output")


def observed_variables(observations: xr.Dataset) -> list[str]:
    """Names of the measured variables: all except errors, quality flags and ancillary variables.

    Raises
    ------
    DataError
        If there is none.
    """
    names = [str(n) for n in observations.data_vars]
    aside = {f"{n}{ERROR}" for n in names} | {flag for n in names for flag in flags_of(observations, n)}
    aside |= {a for n in names for a in str(observations[n].attrs.get("ancillary_variables", "")).split()}
    aside |= auxiliary(observations)
    found = [n for n in names if n not in aside]
    if not found:
        raise DataError(f"found the variables {names}, expected at least one measured variable and its '<name>_error'")
    return found


def _checked(
    observations: xr.Dataset, name: str, template: Template, screening: Screening
) -> tuple[xr.DataArray, xr.DataArray, np.ndarray]:
    # Value and broadcast error of one variable, dims in the template's order, and the status: used, missing, flagged.
    value, variable = observations[name], template.variables[name]
    if set(value.dims) != set(variable.dims):
        raise DataError(
            f"'{name}' has the dimensions {tuple(value.dims)}, expected {variable.dims}, those of the operator's "
            "output; select, rename or add what differs"
        )
    value = value.transpose(*variable.dims).compute()  # once, because what is opened lazily is read at each use
    check_values(name, value, "the observations")
    schema.check_units(name, value.attrs.get("units"), variable.units)
    label = f"{name}{ERROR}"
    if label not in observations:
        raise DataError(
            f"'{name}' has no '{label}', expected one standard deviation of its error; "
            f"set ds[{label!r}] = ... (a number, or values along some of {variable.dims})"
        )
    error = observations[label]
    check_values(label, error, "the observations")
    schema.check_units(label, error.attrs.get("units") or variable.units, variable.units)
    strange = [d for d in error.dims if d not in variable.dims]
    if strange:
        raise DataError(f"'{label}' has the dimensions {strange}, expected some of {variable.dims}")
    error = error.compute().broadcast_like(value).transpose(*variable.dims)
    good = good_values(observations, name, screening.good_of(name))
    status = np.where(value.isnull().values, MISSING, USED).astype(np.int8)
    if good is not None:
        passed = good.broadcast_like(value).transpose(*variable.dims).values
        status[(status == USED) & ~passed] = FLAGGED
    infinite = np.isinf(value.values) & (status == USED)
    if infinite.any():
        raise DataError(f"'{name}' has {int(infinite.sum())} infinite values; set them to NaN to leave them out")
    bad = (status == USED) & ~(np.isfinite(error.values) & (error.values > 0))
    if bad.any():
        raise DataError(
            f"'{label}' is {error.values[bad][0]} where '{name}' has a value, {int(bad.sum())} times; expected a "
            "finite standard deviation above 0; correct it, or set the value to NaN to leave it out"
        )
    return value, error, status


def _needed(value: xr.DataArray, status: np.ndarray, dim: str) -> np.ndarray:
    # Labels along `dim` that have a value. Those without one may lie anywhere.
    axis = value.get_axis_num(dim)
    return np.asarray((status == USED).any(tuple(a for a in range(status.ndim) if a != axis)))


def _found(
    name: str,
    template: Template,
    screening: Screening,
    value: xr.DataArray,
    error: xr.DataArray,
    status: np.ndarray,
    places: Mapping[str, Places],
) -> Found:
    along = [places[str(d)] for d in value.dims]
    for axis, place in enumerate(along):
        lost = place.status.reshape([-1 if a == axis else 1 for a in range(status.ndim)])
        status = np.where((status == USED) & (lost != USED), lost, status)
    kept = np.ix_(*(p.kept for p in along))
    there = status[kept] == USED
    flat = np.arange(status.size).reshape(status.shape)[kept][there]
    at = np.arange(int(np.prod(template.shape(name), dtype=int))).reshape(template.shape(name))[
        np.ix_(*(p.at for p in along))
    ]
    where = at[there]
    order = np.argsort(where, kind="stable")
    where, flat = where[order], flat[order]
    twice = _repeated(template, name, where)
    if twice.any() and (screening.duplicates == "error" or (screening.duplicates == "keep" and OBS not in value.dims)):
        raise DataError(_twice(name, template, where, flat, twice))
    if screening.duplicates != "keep":
        status.reshape(-1)[flat[twice]] = DUPLICATE
        where, flat = where[~twice], flat[~twice]
    values, errors = (a.values.reshape(-1)[flat] for a in (value, error))
    return Found(where, flat, values, errors, errors, status, None)


def _with_biases(found: Found, observations: xr.Dataset, value: xr.DataArray) -> Found:
    # The one place where an error gets the variance of its bias: all that uses errors gets them from here.
    biases = biases_of(observations, str(value.name), f"{value.name}{ERROR}", found.source, list(map(str, value.dims)))
    if biases is None:
        return found
    return replace(found, errors=np.sqrt(found.own_errors.astype(float) ** 2 + biases.variance), biases=biases)


def keys_of(template: Template, name: str, where: np.ndarray) -> pd.DataFrame:
    """What tells places of the output apart: a column for each dimension; for measurements, for each coordinate.

    Parameters
    ----------
    template
        Labels of the output.
    name
        A variable.
    where
        Flat indices of the places in the output of the variable, shape (n,).
    """
    dims = template.variables[name].dims
    columns: dict[str, np.ndarray] = {"": where}
    if dims:
        columns = dict(zip(dims, np.unravel_index(where, template.shape(name)), strict=True))
    if OBS in columns:
        number = columns.pop(OBS)
        listed = {n: c.values for n, c in template.coords.items() if c.dims == (OBS,)}
        if not listed:
            return pd.DataFrame(columns | {OBS: number})
        for label, values in listed.items():
            turn = turn_of(label, template.coords[label].attrs)
            columns[label] = values[number] if turn is None else np.round(values[number] % turn, 9)
    return pd.DataFrame(columns)


def _repeated(template: Template, name: str, where: np.ndarray) -> np.ndarray:
    # Which places are there before, shape (n,).
    return np.asarray(keys_of(template, name, where).duplicated())


def _twice(name: str, template: Template, where: np.ndarray, source: np.ndarray, twice: np.ndarray) -> str:
    keys = keys_of(template, name, where)
    second = int(twice.argmax())
    first = int((keys == keys.iloc[second]).all(axis=1).argmax())
    return (
        f"'{name}' is there twice at {describe_place(template, name, where[second])}: observations {source[first]} and "
        f"{source[second]}{schema.others(int(twice.sum()) - 1)}; average them, or pass "
        "screening={'duplicates': 'drop'} to use the first of each"
    )


def describe_place(template: Template, name: str, where: int) -> str:
    """Time and position of the value of ``name`` with the flat index ``where`` in the output, for messages."""
    dims, parts = template.variables[name].dims, []
    index = dict(zip(dims, np.unravel_index(int(where), template.shape(name)), strict=True)) if dims else {}
    for label, coord in template.coords.items():
        along = coord.dims or (label,)
        if set(along) <= set(index) and label != OBS:
            value = coord.values[tuple(index[d] for d in along)]
            shown = np.datetime_as_string(value, "auto") if isinstance(value, np.datetime64) else value
            parts.append(f"{label}={shown}")
    return ", ".join(parts) or "the same place"
