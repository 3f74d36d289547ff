"""Correlated errors of observations, which the observations say themselves.

``<variable>_error`` may carry the attribute ``correlation_scales``: a JSON object that maps coordinates to e-folding
distances, in the units of the coordinate (seconds where time is a calendar or a timedelta). The errors of two values of
the variable then have the correlation

    exp(-sum_d |delta_d| / scale_d),

the shorter way round where the dimension is periodic (`sdaxr.states.coordinates.period_of`). Errors are independent
along a dimension that is not named, and between variables. Where measurements are listed along one dimension (stations,
the point form), its coordinates (time, lat, lon, ...) are named in its place: errors are independent where measurements
differ in one that is not named, and the distance of two longitudes is the shorter way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.matching import ERROR
from sdaxr.operators import Template
from sdaxr.schema import TIME, DataError, OptionError
from sdaxr.states.coordinates import separation, turn_of
from sdaxr.states.time import elapsed

ATTRIBUTE = "correlation_scales"
LARGEST = 5000


def check_scales(scales: Any, where: str) -> dict[str, float]:
    """The e-folding distances as numbers.

    Raises
    ------
    DataError
        If they are not a mapping to numbers above 0.
    """
    if not isinstance(scales, Mapping) or not scales:
        raise DataError(f'{where} is {scales!r}, expected distances by coordinate, such as {{"time": 0.5}}')
    for name, scale in scales.items():
        if not isinstance(scale, Real) or not 0 < float(scale) < np.inf:
            raise DataError(
                f"{where} is {scale!r} along '{name}', expected a distance above 0 in the units of '{name}'; leave out "
                "a coordinate along which errors are independent"
            )
    return {str(name): float(scale) for name, scale in scales.items()}


def correlate(noise: xr.DataArray, template: Template, scales: Mapping[str, float]) -> xr.DataArray:
    """Independent standard normal noise of one variable of ``template`` made correlated."""
    name = str(noise.name)
    values = noise.transpose(*template.variables[name].dims).values
    for axis, matrix in _factors(template, name, scales).items():
        try:
            root = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            raise DataError(
                f"two values of '{name}' are at the same place, so that their errors would be the same; leave one out"
            ) from error
        values = np.moveaxis(np.tensordot(root, values, (1, axis)), 0, axis)
    return noise.copy(data=xr.DataArray(values, dims=template.variables[name].dims).transpose(*noise.dims).values)


def error_correlation(
    observations: xr.Dataset, template: Template, where: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Correlation of the errors of some values, (n, n); None where they are independent.

    Parameters
    ----------
    observations
        Observations, whose ``<variable>_error`` say how errors are correlated.
    template
        Labels of the operator's output, with which the observations were matched.
    where
        For each variable, which of its values (flat indices), in the order of the result.

    Raises
    ------
    DataError
        If an attribute cannot be read or names a coordinate that is not there, or there are too many values.
    """
    scales = {name: _read(observations, name) for name in where}
    if not any(scales.values()):
        return None
    count = sum(map(len, where.values()))
    if count > LARGEST:
        raise DataError(
            f"found {count} observations with correlated errors in one network, expected at most {LARGEST}; thin them, "
            f"split them into networks, or drop the attribute '{ATTRIBUTE}'"
        )
    blocks = [_block(template, name, scales[name], flat) for name, flat in where.items()]
    matrix, first = np.zeros((count, count)), 0
    for block in blocks:
        matrix[first : first + len(block), first : first + len(block)] = block
        first += len(block)
    return matrix


def _read(observations: xr.Dataset, name: str) -> dict[str, float]:
    text = observations[f"{name}{ERROR}"].attrs.get(ATTRIBUTE)
    if text is None:
        return {}
    where = f"the attribute '{ATTRIBUTE}' of '{name}{ERROR}'"
    try:
        scales = json.loads(text)
    except (TypeError, json.JSONDecodeError) as error:
        raise DataError(f'{where} is {text!r}, expected a JSON object such as {{"time": 0.5}}') from error
    return check_scales(scales, where)


def _block(template: Template, name: str, scales: Mapping[str, float], flat: np.ndarray) -> np.ndarray:
    if not scales:
        return np.eye(len(flat))
    index = np.unravel_index(flat, template.shape(name))
    factors = _factors(template, name, scales)
    block = np.ones((len(flat), len(flat)))
    for axis, at in enumerate(index):
        block *= factors[axis][np.ix_(at, at)] if axis in factors else at[:, None] == at
    return block


def _factors(template: Template, name: str, scales: Mapping[str, float]) -> dict[int, np.ndarray]:
    """Correlation along each axis of a variable that has a named coordinate, (size, size)."""
    factors, known = {}, []
    for axis, dim in enumerate(template.variables[name].dims):
        listed = {n: c.values for n, c in template.coords.items() if c.dims == (dim,) and _is_position(c.values)}
        own = template.coords[dim].values if dim in template.coords else np.arange(template.sizes[dim])
        known += [dim, *listed]
        places = listed if any(n in scales for n in listed) else {dim: own}
        if any(n in scales for n in places):
            factors[axis] = _along(template, places, scales)
    for scale in scales:
        if scale not in known:
            raise DataError(f"the errors of '{name}' are correlated along {schema.nearest(scale, known)}")
    return factors


def _along(template: Template, places: Mapping[str, np.ndarray], scales: Mapping[str, float]) -> np.ndarray:
    size = len(next(iter(places.values())))
    if size > LARGEST:
        raise OptionError(f"found {size} values along {list(places)}, expected at most {LARGEST} for correlations")
    exponent, same = np.zeros((size, size)), np.ones((size, size), bool)
    for name, values in places.items():
        at = _numbers(name, values)
        distance = separation(at[:, None], at, _round(template, name))
        if name in scales:
            exponent += distance / scales[name]
        else:
            same &= distance == 0
    return np.where(same, np.exp(-exponent), 0.0)


def _round(template: Template, name: str) -> float | None:
    # The length of the circle. Stations lie on the globe wherever they are; a cut of a grid is not periodic.
    coord = template.coords.get(name)
    return None if coord is None else template.period(name) if coord.dims is None else turn_of(name, coord.attrs)


def _is_position(values: np.ndarray) -> bool:
    return values.dtype.kind in "fiumM" or (values.dtype.kind == "O" and hasattr(values.flat[0], "calendar"))


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if not _is_position(values):
        raise DataError(f"'{name}' holds {values[0]!r}, expected numbers or times, so that there is a distance")
    if values.dtype.kind in "fiu" and name != TIME:
        return values.astype(float)
    return elapsed(xr.DataArray(values, dims=TIME, name=TIME), values[0])
