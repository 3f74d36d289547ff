"""Innovations: observations minus H(posterior)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sdaxr.archives.provenance import CONVENTIONS
from sdaxr.observations.matching import match
from sdaxr.observations.naming import named_as
from sdaxr.observations.observe import operator_for
from sdaxr.observations.places import OBS, labels_of
from sdaxr.observations.screening import Screening
from sdaxr.operators import Operator, Template
from sdaxr.operators.sea import AtSea
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated


@isolated()
def innovations(
    posterior: xr.Dataset,
    observations: xr.Dataset,
    *,
    operator: Operator | None = None,
    screening: Screening | Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Innovations y - H(x) of observations y and a posterior, in observation space.

    Parameters
    ----------
    posterior
        States on (member?, time, ...), such as a posterior.
    observations
        One network of observations: assimilated ones, or independent ones.
    operator
        Observation operator H, in the place of the operator that the observations carry.
    screening
        Options that say which observations are used, as of `sdaxr.assimilate`; ``{"outside": "drop"}`` leaves out those
        outside. There is no background check.

    Returns
    -------
    xarray.Dataset
        For every observed variable: ``<var>``, H(x) of each member; ``<var>_innovation``, y - H(x) in the same units;
        and ``<var>_normalised_rms`` (member), the root mean square of the innovations in units of the observation
        error, which is near 1 where a member fits the observations as well as their errors allow. The error is the
        whole error: its variance is that of the measurement and that of its bias (`sdaxr.observations.bias`).
        Correlations of the errors, such as those of a shared bias, are not taken into account. Where the posterior has
        no data (land), interpolations and averages are those of the sea part of a cell. Measurements keep their other
        coordinates.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the observations do not fit the posterior.
    """
    posterior, observations = as_dataset(posterior, "the posterior"), as_dataset(observations, "the observations")
    how = Screening.of(screening)
    observations = named_as(observations, posterior)
    chosen = at_sea(operator or operator_for(observations, how), posterior)
    ensemble = ensemble_dimension(posterior)
    projected = chosen.apply(posterior)
    one = projected if ensemble is None else projected.isel({ensemble: 0}, drop=True)
    matched = match(observations, Template.from_dataset(one), how)
    result = projected.copy()
    for name, (values, errors) in matched.items():
        predicted = projected[name]
        dims = [d for d in one[name].dims]
        innovation = xr.DataArray(values, dims=dims) - predicted
        normalised = innovation / xr.DataArray(errors, dims=dims)
        innovation.attrs = {"units": predicted.attrs.get("units", ""), "long_name": f"innovation of {name}"}
        result[f"{name}_innovation"] = innovation.transpose(*predicted.dims)
        rms = (normalised**2).mean(dims) ** 0.5
        rms.attrs = {"units": "1", "long_name": f"rms innovation of {name} over the observation error"}
        result[f"{name}_normalised_rms"] = rms
    about = {"Conventions": CONVENTIONS, "title": "Innovations: observations minus H(posterior)"}
    return _with_coordinates(result, observations).assign_attrs(result.attrs | about)


def at_sea(operator: Operator, posterior: xr.Dataset) -> Operator:
    """The operator with interpolations and averages over the sea part of a cell; land is where there are no data."""
    ensemble = ensemble_dimension(posterior)
    sea = {}
    for name, variable in Template.from_dataset(posterior).variables.items():
        present = posterior[name].notnull() if ensemble is None else posterior[name].notnull().any([ensemble])
        sea[name] = present.transpose(*[d for d in variable.dims if d != ensemble]).values
    return operator if all(present.all() for present in sea.values()) else AtSea(operator, sea)


def _with_coordinates(result: xr.Dataset, observations: xr.Dataset) -> xr.Dataset:
    """With the further coordinates of measurements: elevation, names and numbers of stations."""
    further = {n: c for n, c in observations.coords.items() if c.dims == (OBS,) and n not in result.coords}
    if OBS not in result.dims or not further:
        return result
    rows = pd.Index(labels_of(observations, OBS)).get_indexer(np.asarray(result[OBS].values))
    found = {n: (OBS, c.values[rows], c.attrs) for n, c in further.items()}
    return result.assign_coords(found) if (rows >= 0).all() else result
