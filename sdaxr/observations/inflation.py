"""Inflation of errors: what stands for errors of representativeness, or for correlations that are left out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.schema import DataError, OptionError, nearest


def inflate(observations: xr.Dataset, factor: float | Mapping[str, float], *, by: str = "source") -> xr.Dataset:
    """Observations whose standard deviations of the error are multiplied by a factor.

    Parameters
    ----------
    observations
        Grid or point form.
    factor
        A number; or one for each entry of the coordinate ``by``. Entries that are not named keep their errors.
    by
        Coordinate along which the factor changes, such as ``source`` or ``station``.

    Raises
    ------
    DataError
        If the observations have no such coordinate.
    OptionError
        If a factor is not a positive number, or an entry does not exist.
    """
    if not isinstance(factor, Mapping):
        schema.check_positive("factor", factor)
        multiplier = xr.DataArray(float(factor))
    else:
        multiplier = _along(observations, factor, by)
    out = observations.copy()
    for name in observed_variables(observations):
        error = out[name + ERROR]
        out[name + ERROR] = (error * multiplier).transpose(*error.dims, ...).assign_attrs(error.attrs)
    return out


def _along(observations: xr.Dataset, factor: Mapping[str, float], by: str) -> xr.DataArray:
    if by not in observations.coords:
        raise DataError(f"found the coordinates {list(map(str, observations.coords))}, expected '{by}'; pass by=")
    labels = observations[by].values.astype(str)
    values = np.ones(labels.shape)
    for each, number in factor.items():
        schema.check_positive(f"factor[{each!r}]", number)
        if str(each) not in labels:
            raise OptionError(f"factor= names {nearest(str(each), np.unique(labels).tolist())}")
        values[labels == str(each)] = number
    return xr.DataArray(values, dims=observations[by].dims)
