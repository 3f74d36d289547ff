r"""Biases: a constant error that all measurements of a source share, drawn with the members.

With the bias b of each source, and P the matrix that gives every observation the bias of its source,

.. math:: y = H(x) + P b + \epsilon, \qquad b \sim N(0, s^2 I), \qquad \epsilon \sim N(0, R) .

`with_bias` records s in the observations. All methods then take the covariance of :math:`P b + \epsilon`, which is
:math:`R + s^2 P P^T`, for that of the errors: b is integrated out. Given a member x of the posterior, b is
Gaussian with

.. math:: \Lambda = s^{-2} I + P^T R^{-1} P, \qquad E[b | x, y] = \Lambda^{-1} P^T R^{-1} (y - H(x)) .

`draw_bias` draws from it, so that x and b together are a draw of their joint posterior. On biases in data assimilation
see Dee (2005), doi:10.1256/qj.05.137.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.noise import DISTRIBUTION
from sdaxr.observations.observe import operator_for
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.screening import Screening
from sdaxr.observations.shared import BIAS, BY, sources_of
from sdaxr.operators import Operator, Template
from sdaxr.schema import DataError, nearest
from sdaxr.states.axes import ensemble_dimension


def with_bias(observations: xr.Dataset, deviation: float | Mapping[str, float], *, by: str | None = None) -> xr.Dataset:
    """Observations that record how large the biases of their sources may be.

    Parameters
    ----------
    observations
        One network, in grid or point form.
    deviation
        Standard deviation of a bias, in the units of the observations: a number, or one for each variable. Variables
        that are not named have no bias.
    by
        Coordinate whose entries have biases of their own, such as ``source`` or ``station``. Default: one bias for all.

    Returns
    -------
    xarray.Dataset
        The observations, whose ``<variable>_error`` have the attributes ``bias`` and ``bias_by``. The errors themselves
        stay those of a measurement without its bias.

    Raises
    ------
    DataError
        If there is no such variable or coordinate, or errors are not Gaussian.
    OptionError
        If a deviation is not a positive number.
    """
    names = observed_variables(observations)
    given = deviation if isinstance(deviation, Mapping) else dict.fromkeys(names, deviation)
    if by is not None and by not in observations.coords:
        raise DataError(f"by={nearest(by, map(str, observations.coords))}")
    out = observations.copy()
    for name, value in given.items():
        schema.check_positive(f"deviation[{name!r}]", value)
        if name not in names:
            raise DataError(f"deviation= names {nearest(name, names)}")
        error = out[name + ERROR]
        if DISTRIBUTION in error.attrs:
            raise DataError(f"'{name}{ERROR}' is {error.attrs[DISTRIBUTION]}, expected Gaussian errors beside a bias")
        out[name + ERROR] = error.assign_attrs({BIAS: float(value), BY: by or ""})
    return out


def draw_bias(
    posterior: xr.Dataset,
    observations: xr.Dataset,
    *,
    operator: Operator | None = None,
    screening: Screening | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The bias of each source, drawn given each member of a posterior.

    Parameters
    ----------
    posterior
        Posterior of ``observations`` (`sdaxr.assimilate`), with members; or one state.
    observations
        What `with_bias` returned.
    operator
        Observation operator, in the place of the one that the observations carry.
    screening
        As of the assimilation: which observations are used.
    seed
        Seed of the draws.

    Returns
    -------
    xarray.Dataset
        ``<variable>_bias``, shape (member, source): what a source adds to the truth, in the units of the variable. The
        dimension ``source`` has the entries of ``by``, or ``all``.

    Raises
    ------
    DataError
        If no variable has a bias, or there are more than 5000 observations.
    DataError, GridError, UnitsError, OperatorError
        If the observations do not fit the posterior.
    """
    schema.check_least("seed", seed, 0)
    how, ensemble = Screening.of(screening), ensemble_dimension(posterior)
    chosen = operator or operator_for(observations, how)
    projected = chosen.apply(posterior)
    one = projected if ensemble is None else projected.isel({ensemble: 0}, drop=True)
    points = ObservedPoints.of(observations, Template.from_dataset(one), how)
    random, first = np.random.default_rng(seed), 0
    out = xr.Dataset(attrs=provenance_attrs("Biases of observations", "sdaxr.observations.draw_bias"))
    for name, where in points.where.items():
        rows, first = slice(first, first + len(where)), first + len(where)
        deviation = float(observations[name + ERROR].attrs.get(BIAS, 0.0))
        if not deviation or not len(where):
            continue
        states = projected[name] if ensemble else projected[name].expand_dims("member")
        values = states.transpose(ensemble or "member", *one[name].dims).values
        innovation = points.values[rows] - values.reshape(len(values), -1)[:, where]
        entries, number = sources_of(observations, name, points.source[name], points.template.variables[name].dims)
        drawn = _given(innovation, points.own_covariance[rows, rows], number, len(entries), deviation, random)
        attrs: dict[str, Any] = {"long_name": f"bias of {name}", "units": observations[name].attrs.get("units", "1")}
        labels = {"source": np.array(entries, object)}
        bias = xr.DataArray(drawn, dims=("member", "source"), coords=labels, attrs=attrs)
        out[f"{name}_bias"] = bias if ensemble else bias.isel(member=0)
    if not out.data_vars:
        raise DataError("found no bias in the observations, expected what sdaxr.observations.with_bias returns")
    return out if ensemble is None else out.assign_coords(member=posterior[ensemble].values)


def _given(
    innovation: np.ndarray, covariance: np.ndarray, number: np.ndarray, sources: int, deviation: float, random: Any
) -> np.ndarray:
    """Draws of b given innovations (member, n), shape (member, source)."""
    members = np.eye(sources)[number]
    weighted = np.linalg.solve(covariance, members)
    root = np.linalg.cholesky(np.eye(sources) / deviation**2 + members.T @ weighted)
    mean = np.linalg.solve(root.T, np.linalg.solve(root, (innovation @ weighted).T))
    noise = random.normal(size=(sources, len(innovation)))
    return np.asarray((mean + np.linalg.solve(root.T, noise)).T)
