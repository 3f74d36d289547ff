"""The part of observation errors that measurements of one source share (`sdaxr.observations.bias`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import LARGEST
from sdaxr.observations.matching import ERROR
from sdaxr.schema import DataError

# Attributes of <variable>_error: standard deviation of the bias, and the coordinate of the sources.
BIAS, BY = "bias", "bias_by"


def shared_covariance(
    observations: xr.Dataset, source: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]]
) -> np.ndarray | None:
    """Covariance of the biases of some values, (n, n); None where there are none.

    Parameters
    ----------
    observations
        Observations, whose ``<variable>_error`` say how large biases are.
    source
        For each variable, which of its values (flat indices, dimensions in the order of ``dims``).
    dims
        For each variable, its dimensions.

    Raises
    ------
    DataError
        If there are too many values, or the coordinate of the sources is not there.
    """
    deviations = {name: float(observations[f"{name}{ERROR}"].attrs.get(BIAS, 0.0)) for name in source}
    if not any(deviations.values()):
        return None
    count = sum(map(len, source.values()))
    if count > LARGEST:
        raise DataError(
            f"found {count} observations with a bias in one network, expected at most {LARGEST}; average or thin them, "
            "or split them into networks"
        )
    matrix, first = np.zeros((count, count)), 0
    for name, flat in source.items():
        part, first = slice(first, first + len(flat)), first + len(flat)
        if deviations[name]:
            _, number = sources_of(observations, name, flat, dims[name])
            matrix[part, part] = deviations[name] ** 2 * (number[:, None] == number)
    return matrix


def sources_of(
    observations: xr.Dataset, name: str, flat: np.ndarray, dims: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """The sources of a variable, and the number of the source of each of some values, (n,)."""
    by = str(observations[f"{name}{ERROR}"].attrs.get(BY, ""))
    if not by:
        return ["all"], np.zeros(len(flat), int)
    if by not in observations.coords:
        raise DataError(
            f"'{name}{ERROR}' has a bias for each '{by}', found the coordinates {list(map(str, observations.coords))}"
        )
    labels = observations[by].astype(str).broadcast_like(observations[name]).transpose(*dims).values.reshape(-1)[flat]
    entries, number = np.unique(labels, return_inverse=True)
    return [str(e) for e in entries], number
