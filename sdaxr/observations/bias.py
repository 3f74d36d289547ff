r"""Biases: an error that the measurements of a source share, drawn with the members.

The bias of an observation i of the source s(i) is a sum over predictors p (Dee 2005, doi:10.1256/qj.05.137), of which
the first is the constant, :math:`p_0 = 1`; others are coordinates, such as the elevation or the scan angle. With the
coefficients b, and P the matrix that gives every observation the predictors in the columns of its source,

.. math:: y = H(x) + P b + \epsilon, \qquad b \sim N(0, S), \qquad S = \mathrm{diag}(s_k^2), \qquad
    \epsilon \sim N(0, R) .

`with_bias` records s in the observations. All methods then take the covariance of :math:`P b + \epsilon`, which is
:math:`R + P S P^T`, for that of the errors: b is integrated out. Given a member x of the posterior, b is Gaussian with

.. math:: \Lambda = S^{-1} + P^T R^{-1} P, \qquad E[b | x, y] = \Lambda^{-1} P^T R^{-1} (y - H(x)) .

`draw_bias` draws from it, so that x and b together are a draw of their joint posterior. Variational bias correction
(Dee 2005) minimises the cost function of this posterior over x and b. Biases of different variables, networks and
windows of a cycle are independent.

:math:`P S P^T` has a low rank, and the cost of R + P S P^T is linear in the number of observations
(`sdaxr.observations.low_rank`). Methods that need a system go forward in time; they refuse a bias whose source
measures at several times.

Predictors are taken in their own units, and are neither centred nor scaled. A coefficient then is a rate, such as 0.3 K
per km, that can be stated without the data, and means the same for every part of them, such as another window or
withheld stations. The constant is the bias where all predictors are zero, such as at sea level or at nadir.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from sdaxr import schema
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.observations.innovations import at_sea
from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.naming import named_as
from sdaxr.observations.noise import DISTRIBUTION
from sdaxr.observations.observe import operator_for
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.screening import Screening
from sdaxr.observations.shared import ATTRIBUTES, CONSTANT, Biases, bias_attributes, biases_of
from sdaxr.operators import Operator, Template
from sdaxr.schema import DataError, nearest
from sdaxr.states.axes import ensemble_dimension

_REFERENCE = "doi:10.1256/qj.05.137"


def with_bias(
    observations: xr.Dataset,
    deviation: float | Mapping[str, float],
    *,
    by: str | None = None,
    predictors: Mapping[str, float | Mapping[str, float]] | None = None,
) -> xr.Dataset:
    """Observations that record how large the biases of their sources may be.

    Parameters
    ----------
    observations
        One network, in grid or point form.
    deviation
        Standard deviation of the constant of a bias, in the units of the observations: a number, or one for each
        variable. Variables that are not named have no bias.
    by
        Coordinate whose entries have biases of their own, such as ``source`` or ``station``. Default: one bias for all.
    predictors
        Coordinates that the biases depend on linearly, such as ``elevation``, each with the standard deviation of its
        coefficient: a number, or one for each variable; in the units of the observations over those of the coordinate.
        With temperatures in K and an ``elevation`` in m, ``{"elevation": 3e-4}`` is 0.3 K per km. Predictors are not
        centred: the constant is the bias where all of them are zero.

    Returns
    -------
    xarray.Dataset
        The observations, whose ``<variable>_error`` have the attributes ``bias``, ``bias_by`` and, with predictors,
        ``bias_predictors`` (a JSON object). The errors themselves stay those of a measurement without its bias.

    Raises
    ------
    DataError
        If there is no such variable or coordinate, errors are not Gaussian, or a predictor is not a finite number at
        some observation of the variable.
    OptionError
        If a deviation is not a positive number.
    """
    names = observed_variables(observations)
    given = _by_variable("deviation", deviation, names)
    further = {p: _by_variable(f"predictors[{p!r}]", v, list(given)) for p, v in (predictors or {}).items()}
    if CONSTANT in further:
        raise DataError(f"predictors= names '{CONSTANT}', which is that of deviation=; rename this coordinate")
    out = observations.copy()
    for name, value in given.items():
        if name + ERROR not in out:
            raise DataError(f"'{name}' has no '{name}{ERROR}', expected one standard deviation of its error")
        error = out[name + ERROR]
        if DISTRIBUTION in error.attrs:
            raise DataError(f"'{name}{ERROR}' is {error.attrs[DISTRIBUTION]}, expected Gaussian errors beside a bias")
        deviations = {CONSTANT: value} | {p: each[name] for p, each in further.items() if name in each}
        kept = {k: v for k, v in error.attrs.items() if k not in ATTRIBUTES}
        out[name + ERROR] = error.drop_attrs(deep=False).assign_attrs(kept | bias_attributes(deviations, by))
        there = np.flatnonzero(out[name].notnull().values)
        biases_of(out, name, name + ERROR, there, list(map(str, out[name].dims)))
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
        ``<variable>_bias``, shape (member, source, predictor): the coefficients of the bias, in the units of the
        variable over those of the predictor. The dimension ``source`` has the entries of ``by``, or ``all``; the
        dimension ``predictor`` has ``constant`` and the names of the predictors. A source adds the sum of predictors
        times coefficients to the truth. The coordinate ``predictor_units`` has the units of the predictors. NaN where
        a variable has no such source or predictor.

    Raises
    ------
    DataError
        If no variable has a bias, or there are more than 5000 observations with correlated errors.
    DataError, GridError, UnitsError, OperatorError
        If the observations do not fit the posterior.
    """
    schema.check_least("seed", seed, 0)
    how, ensemble = Screening.of(screening), ensemble_dimension(posterior)
    observations = named_as(observations, posterior)
    projected = at_sea(operator or operator_for(observations, how), posterior).apply(posterior)
    one = projected if ensemble is None else projected.isel({ensemble: 0}, drop=True)
    points = ObservedPoints.of(observations, Template.from_dataset(one), how)
    innovation = points.values - points.predicted(projected, [] if ensemble is None else [str(ensemble)])
    innovation = innovation.reshape(-1, points.count)
    there = np.isfinite(innovation).any(0)  # The assimilation has not used observations on land.
    points, innovation = points.select(there), innovation[:, there]
    random, drawn = np.random.default_rng(seed), []
    for name, biases in points.biases.items():
        if biases is not None and len(biases.number):
            values = _coefficients(points, name, innovation, random)
            drawn.append(_labelled(values, name, biases, observations[name].attrs.get("units", "1")))
    if not drawn:
        raise DataError("found no bias in the observations, expected what sdaxr.observations.with_bias returns")
    predictors = list(dict.fromkeys(str(p) for each in drawn for p in each.predictor.values))
    out = xr.merge(drawn, join="outer", compat="no_conflicts").reindex(predictor=predictors)
    units = ["1" if p == CONSTANT else str(observations[p].attrs.get("units", "1")) for p in predictors]
    out = out.assign_coords(predictor_units=("predictor", np.array(units, object)))
    out.attrs = provenance_attrs("Biases of observations", "sdaxr.observations.draw_bias", references=_REFERENCE)
    return out.isel(member=0) if ensemble is None else out.assign_coords(member=posterior[ensemble].values)


def _by_variable(option: str, given: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    """A number for each variable."""
    found = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, value in found.items():
        if name not in names:
            raise DataError(f"{option}= names {nearest(name, names)}")
        schema.check_positive(f"{option}[{name!r}]", value)
    return found


def _coefficients(points: ObservedPoints, name: str, innovation: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws of b / s given innovations (member, n) of all variables, shape (member, source, predictor)."""
    rows, biases = points.rows[name], points.biases[name]
    errors = SharedCovariance.of(points.own_errors[rows] ** 2, biases)
    values, blocks = torch.from_numpy(innovation[:, rows]), (errors.groups, errors.loadings.shape[1])
    if points.own_correlation is not None:
        # With independent errors of variance one in the place of the correlated ones, all columns are those of a group.
        own = points.own_errors[rows]
        root = torch.linalg.cholesky(torch.from_numpy(points.own_correlation[rows, rows] * own * own[:, None]))
        columns = torch.linalg.solve_triangular(root, errors.columns(), upper=False)
        values = torch.linalg.solve_triangular(root, values.T, upper=False).T
        errors = SharedCovariance(torch.ones_like(errors.variance), torch.zeros_like(errors.group), columns)
    mean, root = errors.coefficients(values)
    noise = torch.from_numpy(random.normal(size=(*mean.shape[1:], len(mean)))).movedim(-1, 0)
    drawn = mean + torch.linalg.solve_triangular(root.mT, noise[..., None], upper=True)[..., 0]
    return np.asarray(drawn.reshape(-1, *blocks))


def _labelled(values: np.ndarray, name: str, biases: Biases, units: str) -> xr.DataArray:
    coords = {"source": np.array(biases.sources, object), "predictor": np.array(list(biases.deviations), object)}
    attrs = {"long_name": f"bias of {name}", "units": units}
    if len(biases.deviations) > 1:
        about = f"in {units} over the units of the predictor, see the coordinate predictor_units"
        attrs = {"long_name": f"coefficients of the bias of {name}", "comment": about}
    deviations = np.array(list(biases.deviations.values()))
    return xr.DataArray(values * deviations, coords, ("member", *coords), f"{name}_bias", attrs)
