"""Innovations: observations minus H(posterior)."""

from __future__ import annotations

import xarray as xr

from sdaxr.archives.provenance import CONVENTIONS
from sdaxr.observations.matching import match
from sdaxr.observations.observe import operator_for
from sdaxr.operators import Operator, Template
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated


@isolated()
def innovations(posterior: xr.Dataset, observations: xr.Dataset, *, operator: Operator | None = None) -> xr.Dataset:
    """Innovations y - H(x) of observations y and a posterior, in observation space.

    Parameters
    ----------
    posterior
        States on (member?, time, ...), such as a posterior.
    observations
        One network of observations: assimilated ones, or independent ones.
    operator
        Observation operator H, in the place of the operator that the observations carry.

    Returns
    -------
    xarray.Dataset
        For every observed variable: ``<var>``, H(x) of each member; ``<var>_innovation``, y - H(x) in the same units;
        and ``<var>_normalised_rms`` (member), the root mean square of the innovations in units of the observation
        error, which is near 1 where a member fits the observations as well as their errors allow. Correlations of the
        errors (`sdaxr.observations.correlation`) are not taken into account.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the observations do not fit the posterior.
    """
    posterior, observations = as_dataset(posterior, "the posterior"), as_dataset(observations, "the observations")
    chosen = operator or operator_for(observations)
    ensemble = ensemble_dimension(posterior)
    projected = chosen.apply(posterior)
    one = projected if ensemble is None else projected.isel({ensemble: 0}, drop=True)
    matched = match(observations, Template.from_dataset(one))
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
    return result.assign_attrs(result.attrs | about)
