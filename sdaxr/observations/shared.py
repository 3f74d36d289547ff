r"""The part of observation errors that measurements of one source share, from the attributes of ``<variable>_error``.

The bias of an observation i of the source s(i) is a sum over predictors p,

.. math:: \sum_k p_k(i)\, b_{s(i), k}, \qquad b_{s, k} \sim N(0, s_k^2), \qquad p_0 = 1 .

`sdaxr.observations.bias.with_bias` writes the attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import DataError, nearest

# Attributes of <variable>_error: standard deviation of the constant, coordinate of the sources, and a JSON object with
# the standard deviation of the coefficient of each further predictor.
BIAS, BY, PREDICTORS = "bias", "bias_by", "bias_predictors"
ATTRIBUTES = (BIAS, BY, PREDICTORS)
CONSTANT = "constant"


@dataclass(frozen=True)
class Biases:
    """The biases of n values of one variable.

    Attributes
    ----------
    sources
        Names of the sources of these values.
    number
        Index of the source of each value, shape (n,).
    deviations
        Standard deviations of the coefficients of the K predictors by their names, the constant first; in the units of
        the variable over those of the predictor.
    predictors
        The predictors at each value, shape (n, K), in their units.
    """

    sources: list[str]
    number: np.ndarray
    deviations: Mapping[str, float]
    predictors: np.ndarray

    @property
    def loadings(self) -> np.ndarray:
        """Predictors times the standard deviations of their coefficients, shape (n, K)."""
        return self.predictors * list(self.deviations.values())

    @property
    def variance(self) -> np.ndarray:
        """Variance of the bias of each value, shape (n,)."""
        return np.asarray((self.loadings**2).sum(1))

    def select(self, chosen: np.ndarray) -> Biases:
        """The biases of the values ``chosen``, by truth, shape (n,), or by number, with the sources of these values."""
        left, number = np.unique(self.number[chosen], return_inverse=True)
        sources = [self.sources[i] for i in left]
        return replace(self, sources=sources, number=number, predictors=self.predictors[chosen])


def biases_of(observations: xr.Dataset, name: str, error: str, flat: np.ndarray, dims: Sequence[str]) -> Biases | None:
    """The biases of some values of a variable; None where its errors have none.

    Parameters
    ----------
    observations
        Observations.
    name, error
        The variable, and the variable with its errors.
    flat
        Flat indices of the values, dimensions in the order of ``dims``, shape (n,).
    dims
        Dimensions of the variable.

    Raises
    ------
    DataError
        If an attribute cannot be read, a coordinate is not there or does not lie along the variable, or a predictor is
        not a finite number at one of the values.
    """
    attrs = observations[error].attrs
    if BIAS not in attrs:
        return None
    sources, number = sources_of(observations, name, str(attrs.get(BY, "")) or None, flat, dims)
    deviations = _deviations(attrs, error)
    columns = [_predictor(observations, name, each, flat, dims) for each in list(deviations)[1:]]
    every = Biases(sources, number, deviations, np.column_stack([np.ones(len(flat)), *columns]))
    return every.select(np.ones(len(flat), bool))


def bias_attributes(deviations: Mapping[str, float], by: str | None) -> dict[str, Any]:
    """The attributes of errors with biases, from ``deviations`` (see `Biases`) and the coordinate of the sources."""
    further = {name: float(value) for name, value in deviations.items() if name != CONSTANT}
    found = {BIAS: float(deviations[CONSTANT]), BY: by or ""}
    return found | ({PREDICTORS: json.dumps(further)} if further else {})


def converted_bias(attrs: Mapping[str, Any], error: str, factor: float) -> dict[str, Any]:
    """The attributes of biases of a variable whose units change by a factor; empty where there is no bias.

    Raises
    ------
    DataError
        If an attribute cannot be read.
    """
    if BIAS not in attrs:
        return {}
    deviations = {name: factor * value for name, value in _deviations(attrs, error).items()}
    return bias_attributes(deviations, str(attrs.get(BY, "")))


def predictors(attrs: Mapping[str, Any], error: str) -> set[str]:
    """Names of the predictors of the biases of a variable, from the attributes of its errors.

    Raises
    ------
    DataError
        If an attribute cannot be read.
    """
    return set(_deviations(attrs, error)) - {CONSTANT} if BIAS in attrs else set()


def sources_of(
    observations: xr.Dataset, name: str, by: str | None, flat: np.ndarray, dims: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """All sources, and the index of the source of each of some values of a variable, shape (n,).

    Parameters
    ----------
    by
        Coordinate whose entries are the sources. None: one source, ``all``.
    observations, name, flat, dims
        As of `biases_of`.

    Raises
    ------
    DataError
        If there is no such coordinate, or it does not lie along the variable.
    """
    if by is None:
        return ["all"], np.zeros(len(flat), int)
    if by not in observations.coords:
        raise DataError(
            f"found the coordinates {list(map(str, observations.coords))}, expected '{by}'; pass by= one of them"
        )
    entries, number = np.unique(observations[by].values.astype(str), return_inverse=True)
    labels = observations[by].copy(data=number.reshape(observations[by].shape))
    return [str(e) for e in entries], _at(observations, name, labels, flat, dims)


def _deviations(attrs: Mapping[str, Any], error: str) -> dict[str, float]:
    text = attrs.get(PREDICTORS, "{}")
    try:
        further = json.loads(text)
    except (TypeError, json.JSONDecodeError) as fault:
        raise DataError(
            f"the attribute '{PREDICTORS}' of '{error}' is {text!r}, expected a JSON object such as "
            '{"elevation": 0.001}; call with_bias again'
        ) from fault
    found = {CONSTANT: attrs[BIAS]} | (further if isinstance(further, dict) else {PREDICTORS: further})
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < np.inf:
            raise DataError(
                f"the bias of '{error}' has the standard deviation {value!r} for '{name}', expected a number above 0; "
                "call with_bias again"
            )
    return {str(name): float(value) for name, value in found.items()}


def _predictor(
    observations: xr.Dataset, name: str, predictor: str, flat: np.ndarray, dims: Sequence[str]
) -> np.ndarray:
    if predictor not in observations.variables:
        known = [str(n) for n in observations.coords if observations[n].dtype.kind in "fiub"]
        raise DataError(f"the bias of '{name}' has the predictor {nearest(predictor, known)}")
    if observations[predictor].dtype.kind not in "fiub":
        raise DataError(
            f"the predictor '{predictor}' of the bias of '{name}' holds {observations[predictor].dtype}, expected "
            "numbers; add a coordinate that holds numbers"
        )
    values = _at(observations, name, observations[predictor], flat, dims).astype(float)
    missing = ~np.isfinite(values)
    if missing.any():
        raise DataError(
            f"the predictor '{predictor}' of the bias of '{name}' is {values[missing][0]} at {int(missing.sum())} of "
            f"{len(values)} observations, expected finite numbers; fill them in, or set these '{name}' to NaN to leave "
            "them out"
        )
    return values


def _at(observations: xr.Dataset, name: str, coord: xr.DataArray, flat: np.ndarray, dims: Sequence[str]) -> np.ndarray:
    """A coordinate at some values of a variable, shape (n,)."""
    if not set(coord.dims) <= set(dims):
        raise DataError(
            f"'{coord.name}' has the dimensions {tuple(coord.dims)}, expected some of {tuple(dims)}, the dimensions of "
            f"'{name}'; select or rename what differs"
        )
    sizes = [observations[name].sizes[d] for d in dims]
    index = dict(zip(dims, np.unravel_index(flat, sizes), strict=True)) if dims else {}
    return np.broadcast_to(coord.values[tuple(index[str(d)] for d in coord.dims)], flat.shape)
