r"""Errors of observations from what an assimilation made of them.

With the innovations of the background, :math:`d_b = y - H x_b`, and of the analysis, :math:`d_a = y - H x_a`,

.. math:: E[d_a d_b^T] = R, \qquad E[(H x_a - H x_b)\, d_b^T] = H B H^T,

where the analysis is linear and its weights are those of the true B and R (Desroziers et al. 2005,
doi:10.1256/qj.05.108). Where they are not, the estimate is a step of an iteration: assimilate again with it.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from sdaxr.archives.provenance import provenance_attrs
from sdaxr.observations.matching import ERROR
from sdaxr.observations.naming import named_as
from sdaxr.observations.observe import operator_for
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.shared import sources_of
from sdaxr.operators import Operator, Template
from sdaxr.states.axes import ensemble_dimension

NETWORK = "network"


def estimate_errors(
    observations: xr.Dataset,
    background: xr.Dataset,
    analysis: xr.Dataset,
    *,
    by: str | None = None,
    operator: Operator | None = None,
) -> xr.Dataset:
    """Standard deviations of the observation errors, from innovations and analysis residuals.

    Parameters
    ----------
    observations
        The assimilated observations, in grid or point form.
    background
        States before the assimilation, ``([member], time, ...)``, such as a forecast from the cycle before.
    analysis
        Posterior of these observations.
    by
        Coordinate of the observations whose entries have errors of their own, such as ``source``. Default: one error.
    operator
        Observation operator, in the place of the one that the observations carry.

    Returns
    -------
    xarray.Dataset
        On the entries of ``by``, or on one entry ``all``: ``<variable>_error``, the estimate; ``<variable>_assumed``,
        the root mean square of the errors that the observations have; ``<variable>_background``, the standard deviation
        of the error of H(background); ``<variable>_count``, the number of values. Both errors of observations are whole
        errors, with their biases (`sdaxr.observations.bias`). NaN where a mean of products is negative, as with few
        values or a poor background.

    Raises
    ------
    DataError
        If there is no such coordinate. What `sdaxr.innovations` raises.
    """
    observations = named_as(observations, analysis)
    chosen = operator or operator_for(observations)
    before, after = (_projected(states, chosen) for states in (background, analysis))
    points = ObservedPoints.of(observations, Template.from_dataset(after))
    first, last = (points.values - points.predicted(states) for states in (before, after))
    references = "doi:10.1256/qj.05.108"
    attrs = provenance_attrs("Errors of observations", "innovations and analysis residuals", references=references)
    out = xr.Dataset(attrs=attrs)
    for name, rows in points.rows.items():
        dims = points.template.variables[name].dims
        entries, numbers = sources_of(observations, name, by, points.source[name], dims)
        groups = [numbers == number for number in range(len(entries))]
        products = {
            ERROR: (last * first, "estimated standard deviation of the observation error"),
            "_assumed": (points.errors**2, "assumed standard deviation of the observation error"),
            "_background": ((first - last) * first, "estimated standard deviation of the background error"),
        }
        for end, (product, title) in products.items():
            means = np.array([product[rows][group].mean() if group.any() else np.nan for group in groups])
            attrs = {"units": observations[name].attrs.get("units", ""), "long_name": f"{title} of {name}"}
            estimate = np.sqrt(np.where(means >= 0, means, np.nan))
            out[name + end] = xr.DataArray(estimate, {by or NETWORK: np.array(entries, object)}, attrs=attrs)
        counts = np.array([int(group.sum()) for group in groups])
        out[f"{name}_count"] = (by or NETWORK, counts, {"units": "1", "long_name": f"number of values of {name}"})
    return out


def _projected(states: xr.Dataset, operator: Operator) -> xr.Dataset:
    """H(x), averaged over the members."""
    ensemble = ensemble_dimension(states)
    projected = operator.apply(states)
    return projected if ensemble is None else projected.mean(str(ensemble))
