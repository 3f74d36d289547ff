r"""Scores of an ensemble, or of a single field, against the truth, or at observations (`sdaxr.verification.observed`).

With members :math:`x_i`, :math:`i = 1 \dots M`, their mean :math:`\bar x`, the truth :math:`y`, and
:math:`\langle\cdot\rangle` the mean over space (weighted by cos(latitude) on a latitude grid):

===================  ===================================================================================
``count``            number of values that are compared: of points where neither a member nor the truth is NaN
``rmse``             :math:`\sqrt{\langle (\bar x - y)^2 \rangle}`
``bias``             :math:`\langle \bar x - y \rangle`
``crps``             fair CRPS (Ferro 2014, https://doi.org/10.1002/qj.2270); the mean absolute
                     error for a single field
``spread``           :math:`\sqrt{\langle s^2 \rangle}`, with the variance :math:`s^2` of the members (ddof = 1)
``spread_skill``     :math:`\sqrt{(M+1)/M}` spread / rmse: 1 for members exchangeable with the
                     truth (Fortin et al. 2014, https://doi.org/10.1175/JHM-D-14-0008.1)
``rank_histogram``   frequency of the rank of the truth among the members; a tie counts equally for all
                     of its ranks (Hamill 2001,
                     https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2)
``spectrum``         variance, or kinetic energy, by wavenumber (`sdaxr.verification.spectrum`)
===================  ===================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sdaxr.archives.provenance import provenance_attrs
from sdaxr.schema import GridError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension, is_latitude, space_dimensions
from sdaxr.states.inputs import as_dataset
from sdaxr.states.validation import options_checked
from sdaxr.verification import observed
from sdaxr.verification.alignment import align, time_dimensions

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

METRICS = ("count", "rmse", "bias", "crps", "spread", "spread_skill", "rank_histogram", "spectrum")
_ALL = tuple(dict.fromkeys([*observed.METRICS, *METRICS]))
_ENSEMBLE_METRICS = {"spread", "spread_skill", "rank_histogram"}
_NAMES = {
    "count": "number of values that are compared",
    "rmse": "root-mean-square error of the ensemble mean",
    "bias": "mean error of the ensemble mean",
    "crps": "fair continuous ranked probability score",
    "spread": "ensemble standard deviation",
    "spread_skill": "spread-skill ratio",
    "rank_histogram": "frequency of the rank of the truth",
}


@options_checked
def verify(posterior: xr.Dataset, truth: xr.Dataset, *, metrics: Sequence[str] | None = None) -> xr.Dataset:
    """Scores of ``posterior`` against ``truth``, for each variable and time, or against observations.

    Parameters
    ----------
    posterior
        Ensemble ``(member, time, ...)``, forecast ``(member, lead_time, ...)`` with ``valid_time``, or a
        single field without members; on a grid, at stations, or without space.
    truth
        ``(time, ...)`` on the same points in any order, with a trajectory dimension of size 1 at most. Scores are
        those at the common times, over the points where neither the truth nor a member is NaN; their number is the
        score ``count``, and a warning is logged where one of the two alone is NaN. Or observations with
        their errors ``<variable>_error``, such as withheld ones: scores are then those of
        `sdaxr.verification.observed.verify_at`, over all observations.
    metrics
        Some of ``count, rmse, bias, crps, spread, spread_skill, rank_histogram, spectrum``. Default: all that apply. A
        single field has no spread, spread_skill and rank_histogram; only a regular grid has a spectrum.

    Returns
    -------
    xarray.Dataset
        One variable for each metric and variable, because units differ: ``rmse_u``, ``crps_u``, ...
        ``(time, [layer])``, ``rank_histogram_u (time, rank)``, and ``spectrum_u`` or, for a velocity pair,
        ``spectrum_kinetic_energy (source, time, wavenumber)`` for the sources ``members`` (the mean of their
        spectra), ``mean`` (the spectrum of their mean) and ``truth``; NaN where a field has gaps.
        Lazy where the input is lazy. `sdaxr.verification.verify.summary` makes a table of the scores.

    Raises
    ------
    DataError
        If there is no common variable or time, or ``truth`` has several trajectories.
    GridError
        If the grids differ, or a spectrum is asked for without a regular grid.
    UnitsError
        If the units differ.
    OptionError
        If a metric does not exist, or needs members where there are none.
    """
    posterior, truth = as_dataset(posterior, "the posterior"), as_dataset(truth, "the truth")
    if observed.are_observations(truth):
        return observed.verify_at(posterior, truth, metrics=metrics)
    wanted = tuple(METRICS if metrics is None else metrics)
    for metric in wanted:
        if metric not in METRICS:
            raise OptionError(f"unknown metric {nearest(metric, METRICS)}")
    data, truth = align(posterior, truth)
    found = ensemble_dimension(data)
    member = None if found is None else str(found)
    if member is not None and data.sizes[member] == 1:
        data, member = data.isel({member: 0}, drop=True), None
    if member is None and metrics is not None and _ENSEMBLE_METRICS & set(wanted):
        raise OptionError(
            f"{sorted(_ENSEMBLE_METRICS & set(wanted))} need at least two members, found a single field; leave them out"
        )
    scores: dict[Hashable, xr.DataArray] = {}
    for name in data.data_vars:
        scores.update(_scores(data[name], truth[name], member, wanted))
    if "spectrum" in wanted:
        scores.update(_spectra(data, truth, member, strict=metrics is not None))
    order = [n for m in METRICS for n in scores if str(n).startswith(f"{m}_") and _metric(str(n))[0] == m]
    result = xr.Dataset({n: scores[n] for n in order})
    about = provenance_attrs("Scores against a truth", "sdaxr.verify")
    return result.assign_attrs(about, members=1 if member is None else data.sizes[member])


def summary(scores: xr.Dataset) -> pd.DataFrame:
    """Time-mean of the scores of `verify`, as a table.

    Parameters
    ----------
    scores
        Result of `verify`. Rank histograms and spectra are left out.

    Returns
    -------
    pandas.DataFrame
        One row for each metric, and one column for each variable, or variable and layer (``q[layer=0]``). The time-mean
        of ``rmse`` and of ``spread`` is the square root of the mean square; ``spread_skill`` is computed from these two
        where both are given. ``count`` is the sum over time. ``attrs["units"]`` maps each column to its units.
    """
    import pandas as pd

    table: dict[str, dict[str, float]] = {}
    units: dict[str, str] = {}
    for name, values in scores.data_vars.items():
        metric, variable = _metric(str(name))
        if metric in ("rank_histogram", "spectrum") or metric in observed.PER_OBSERVATION:
            continue
        mean = _over_time(metric, values).compute()
        for column, value in _columns(variable, mean):
            table.setdefault(column, {})[metric] = value
            if metric not in observed.DIMENSIONLESS:
                units[column] = str(values.attrs.get("units", ""))
    count = int(scores.attrs.get("members", 1))
    for entries in table.values():
        at_observations = "rcrv_bias" in entries or "rmse_corrected" in entries  # whose errors are in the ratio
        if {"rmse", "spread", "spread_skill"} <= entries.keys() and entries["rmse"] > 0 and not at_observations:
            entries["spread_skill"] = np.sqrt((count + 1) / count) * entries["spread"] / entries["rmse"]
    rows = [m for m in _ALL if any(m in entries for entries in table.values())]
    frame = pd.DataFrame(table).reindex(rows)
    frame.index.name = "metric"
    frame.attrs["units"] = units
    return frame


def _scores(
    estimate: xr.DataArray, truth: xr.DataArray, member: str | None, wanted: Sequence[str]
) -> dict[Hashable, xr.DataArray]:
    from scores.continuous import mae, mean_error, mse
    from scores.probability import crps_for_ensemble

    space = space_dimensions(estimate)
    if member is not None and estimate.chunks:
        estimate = estimate.chunk({member: -1} | dict.fromkeys(time_dimensions(estimate), "auto"))
    valid = estimate.notnull() & truth.notnull()
    if member is not None:
        valid = valid.all(member)
    _warn_of_gaps(estimate, truth, valid)
    weights = (valid * _area_weights(estimate, space)).fillna(0)
    # Zeros in the place of gaps keep NaN out of the arithmetic; their weight is zero.
    estimate, truth = estimate.where(valid, 0), truth.where(valid, 0)
    mean = estimate if member is None else estimate.mean(member)

    def average(pointwise: xr.DataArray) -> xr.DataArray:
        return pointwise.weighted(weights).mean(space) if space else pointwise.where(valid)

    def crps() -> xr.DataArray:
        if member is None:
            return average(mae(mean, truth, preserve_dims="all"))
        return average(crps_for_ensemble(estimate, truth, member, method="fair", preserve_dims="all"))

    def rmse() -> xr.DataArray:
        return average(mse(mean, truth, preserve_dims="all")) ** 0.5

    def spread() -> xr.DataArray:
        return average(estimate.var(member, ddof=1)) ** 0.5

    def spread_skill() -> xr.DataArray:
        count = estimate.sizes[member]
        error = rmse()
        ratio: xr.DataArray = ((count + 1) / count) ** 0.5 * spread() / error.where(error > 0)
        return ratio

    compute: dict[str, Callable[[], xr.DataArray]] = {
        "rmse": rmse,
        "bias": lambda: average(mean_error(mean, truth, preserve_dims="all")),
        "crps": crps,
        "spread": spread,
        "spread_skill": spread_skill,
        "rank_histogram": lambda: _rank_histogram(estimate, truth, weights, member, space),
        "count": lambda: valid.sum(space),
    }
    found: dict[Hashable, xr.DataArray] = {}
    for metric in wanted:
        if metric in compute and (member is not None or metric not in _ENSEMBLE_METRICS):
            units = "1" if metric in observed.DIMENSIONLESS else estimate.attrs.get("units", "1")
            title = f"{_title(metric, member)}, {estimate.attrs.get('long_name', estimate.name)}"
            attrs = {"units": str(units), "long_name": title}
            found[f"{metric}_{estimate.name}"] = _with_attrs(compute[metric](), attrs)
    return found


def _warn_of_gaps(estimate: xr.DataArray, truth: xr.DataArray, valid: xr.DataArray) -> None:
    """Log where there are values of the estimate without one of the truth, or the reverse; lazy data are not read."""
    if estimate.chunks or truth.chunks:
        return
    there = estimate.notnull().any([d for d in estimate.dims if d not in truth.dims]) | truth.notnull()
    alone = int((there & ~valid).sum())
    if alone:
        _log.warning(
            "%s: %d of %d values are NaN in the truth or in a member alone, and are not compared",
            estimate.name, alone, there.size,
        )  # fmt: skip


def _with_attrs(score: xr.DataArray, attrs: dict[str, str]) -> xr.DataArray:
    score.attrs = attrs
    return score


def _title(metric: str, member: str | None) -> str:
    if member is not None:
        return _NAMES[metric]
    return "mean absolute error" if metric == "crps" else _NAMES[metric].replace(" of the ensemble mean", "")


def _area_weights(estimate: xr.DataArray, space: Sequence[Hashable]) -> xr.DataArray:
    for dim in space:
        if dim in estimate.coords and is_latitude(dim, estimate[dim].attrs):
            return xr.DataArray(np.cos(np.deg2rad(estimate[dim].values.astype(float))).clip(min=0), dims=str(dim))
    return xr.DataArray(1.0)


def _rank_histogram(
    estimate: xr.DataArray,
    truth: xr.DataArray,
    weights: xr.DataArray,
    member: str | None,
    space: Sequence[Hashable],
) -> xr.DataArray:
    def kernel(members: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        # From (..., *space, member), (..., *space), (..., *space) to (..., rank). `scores` looks at the values of its
        # input, which would load lazy arrays; it gets one block at a time.
        from scores.probability import rank_histogram

        leading = members.shape[: members.ndim - len(space) - 1]
        cells = (int(np.prod(leading)), -1)
        there = xr.DataArray(np.broadcast_to(weight, target.shape).reshape(cells), dims=("case", "cell"))
        frequency = rank_histogram(
            xr.DataArray(members.reshape(*cells, members.shape[-1]), dims=("case", "cell", "member")),
            xr.DataArray(target.reshape(cells), dims=("case", "cell")).where(there > 0),
            "member",
            preserve_dims=["case"],
            weights=there if (there > 0).any() else None,
        )
        return np.asarray(frequency.transpose("case", "rank").values.reshape(*leading, -1))

    count = estimate.sizes[member] + 1
    whole = dict.fromkeys(space, -1)
    arrays = [a.chunk(whole) if a.chunks else a for a in (estimate, truth, weights)]
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        *arrays,
        input_core_dims=[[*space, member], list(space), list(space)],
        output_core_dims=[["rank"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"rank": count}},
        keep_attrs=False,
    )
    attrs = {"units": "1", "long_name": "rank of the truth among the members"}
    return result.assign_coords(rank=("rank", np.arange(1, count + 1), attrs))


def _spectra(data: xr.Dataset, truth: xr.Dataset, member: str | None, *, strict: bool) -> dict[Hashable, xr.DataArray]:
    from sdaxr.verification.spectrum import grid_dimensions, spectrum

    names = []
    for name in data.data_vars:
        try:
            grid_dimensions(data[name])
            names.append(name)
        except GridError:
            if strict:
                raise
    if not names:
        return {}
    sources: dict[str, xr.Dataset] = {}
    if member is None:
        sources["estimate"] = spectrum(data[names])
    else:
        sources["members"] = spectrum(data[names]).mean(member, keep_attrs=True)
        sources["mean"] = spectrum(data[names].mean(member, keep_attrs=True))
    sources["truth"] = spectrum(truth[names])
    joined = xr.concat(list(sources.values()), "source", coords="minimal", compat="override", join="override")
    joined = joined.assign_coords(source=("source", np.array(list(sources), dtype=object)))
    return {f"spectrum_{name}": joined[name] for name in joined.data_vars}


def _metric(name: str) -> tuple[str, str]:
    # The longest match, because 'spread_skill' begins with 'spread'.
    metric = max((m for m in _ALL if name.startswith(f"{m}_")), key=len)
    return metric, name[len(metric) + 1 :]


def _over_time(metric: str, values: xr.DataArray) -> xr.DataArray:
    dims = time_dimensions(values)
    if metric == "count":
        return values.sum(dims)
    return (values**2).mean(dims) ** 0.5 if metric in ("rmse", "spread") else values.mean(dims)


def _columns(variable: str, mean: xr.DataArray) -> list[tuple[str, float]]:
    if not mean.ndim:
        return [(variable, float(mean))]
    stacked = mean.stack(column=mean.dims)
    labels = [", ".join(f"{d}={v}" for d, v in zip(mean.dims, at, strict=True)) for at in stacked.column.values]
    return [(f"{variable}[{label}]", float(v)) for label, v in zip(labels, stacked.values, strict=True)]
