r"""Scores of an ensemble at observations, with the errors of the observations taken into account.

With members :math:`x_i`, :math:`i = 1 \dots M`, an observation :math:`y` with the error :math:`\sigma`, and H(x_i) of
mean :math:`m` and variance :math:`s^2` (ddof = 1), and :math:`\langle\cdot\rangle` the mean over observations:

====================  ==================================================================================
``count``             number of observations
``rmse``              :math:`\sqrt{\langle (m - y)^2 \rangle}`, the observation error included
``rmse_corrected``    :math:`\sqrt{\langle (m - y)^2 - \sigma^2 \rangle}`, an estimate of the error
                      against the truth; NaN where the mean is negative
``bias``              :math:`\langle m - y \rangle`
``crps``              fair CRPS of the members with the observation error, in closed form (Grimit et al.
                      2006, https://doi.org/10.1256/qj.05.235); for a single field, CRPS of
                      :math:`N(H(x), \sigma^2)`
``spread``            :math:`\sqrt{\langle s^2 \rangle}`
``spread_skill``      :math:`\sqrt{\langle (1 + 1/M) s^2 + \sigma^2 \rangle}` / rmse: 1 for members
                      exchangeable with the truth
``rank_histogram``    frequency of the rank of the observation among the members with observation errors
                      (Hamill 2001, https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2): its
                      expectation over the errors, so that nothing is drawn
``pit``               probability integral transform of each observation,
                      :math:`\frac1M \sum_i \Phi((y - H(x_i)) / \sigma)`
``rcrv``              reduced centred random variable of each observation,
                      :math:`(y - m) / \sqrt{(1 + 1/M) s^2 + \sigma^2}` (Candille et al. 2007,
                      https://doi.org/10.1175/MWR3414.1); ``rcrv_bias`` is its mean, 0 for a reliable
                      ensemble, and ``rcrv_dispersion`` its standard deviation, 1 for a reliable one
====================  ==================================================================================

The variance :math:`\sigma^2` is that of the whole error, of the measurement and of its bias
(`sdaxr.observations.bias`). Each score is of single observations: errors are Gaussian and independent here, whatever
their attributes say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.provenance import provenance_attrs
from sdaxr.observations.matching import ERROR, match
from sdaxr.observations.naming import named_as
from sdaxr.observations.observe import operator_for
from sdaxr.observations.screening import Screening
from sdaxr.operators import Template
from sdaxr.schema import INIT_TIME, LEAD_TIME, TIME, DataError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.verification.alignment import valid_times

METRICS = (
    *("count", "rmse", "rmse_corrected", "bias", "crps", "spread", "spread_skill", "rcrv_bias", "rcrv_dispersion"),
    *("rank_histogram", "pit", "rcrv"),
)
_OF_MEMBERS = {"spread", "spread_skill", "rank_histogram"}
_TITLES = {
    "count": "number of observations",
    "rmse": "root-mean-square innovation",
    "rmse_corrected": "root-mean-square error against the truth, estimated",
    "bias": "mean of H(x) minus observation",
    "crps": "fair continuous ranked probability score with observation errors",
    "spread": "ensemble standard deviation",
    "spread_skill": "spread-skill ratio with observation errors",
    "rank_histogram": "frequency of the rank of the observation",
    "pit": "probability integral transform",
    "rcrv": "reduced centred random variable",
    "rcrv_bias": "mean of the reduced centred random variable",
    "rcrv_dispersion": "standard deviation of the reduced centred random variable",
}
DIMENSIONLESS = {"count", "spread_skill", "rank_histogram", "pit", "rcrv", "rcrv_bias", "rcrv_dispersion"}
PER_OBSERVATION = {"pit", "rcrv"}


def are_observations(data: xr.Dataset) -> bool:
    """Whether a Dataset holds observations: a variable with its error."""
    names = set(map(str, data.data_vars))
    return any(f"{name}{ERROR}" in names for name in names)


def verify_at(posterior: xr.Dataset, observations: xr.Dataset, *, metrics: Sequence[str] | None = None) -> xr.Dataset:
    """Scores of ``posterior`` at ``observations``; see the table above.

    Parameters
    ----------
    posterior
        Ensemble ``(member, time, ...)``, forecast ``(member, lead_time, ...)`` with ``valid_time``, or a single field.
    observations
        Observations in grid or point form, with their operator. What lies outside the times or the grid is left out,
        and counted in the attribute ``observations_outside``.
    metrics
        Some of the names above. Default: all that apply.

    Returns
    -------
    xarray.Dataset
        One variable for each metric and variable, such as ``rmse_t2m``. ``rank_histogram_t2m`` is on (rank),
        ``pit_t2m`` and ``rcrv_t2m`` have the dimensions of the observations.

    Raises
    ------
    DataError
        If no observation lies within the posterior; what `sdaxr.innovations` raises.
    OptionError
        If a metric does not exist, or needs members where there are none.
    """
    wanted = METRICS if metrics is None else tuple(metrics)
    for metric in wanted:
        if metric not in METRICS:
            raise OptionError(f"unknown metric {nearest(metric, METRICS)}")
    data = _on_times(posterior)
    observations = named_as(observations, data)
    how = Screening(outside="drop")
    projected = operator_for(observations, how).apply(data)
    member = ensemble_dimension(projected)
    one = projected if member is None else projected.isel({member: 0}, drop=True)
    members = 1 if member is None else projected.sizes[member]
    if members == 1 and metrics is not None and _OF_MEMBERS & set(wanted):
        raise OptionError(f"{sorted(_OF_MEMBERS & set(wanted))} need at least two members, found one; leave them out")
    if 0 in one.sizes.values():
        raise DataError("no observation lies within the posterior, expected at least one; see its times and its grid")
    matched = match(observations, Template.from_dataset(one), how)
    out = xr.Dataset(attrs=provenance_attrs("Scores at observations", "sdaxr.verify", members=members))
    for name, (values, errors) in matched.items():
        like = one[name]
        ensemble = projected[name].expand_dims("member") if member is None else projected[name]
        states = ensemble.transpose(member or "member", *like.dims).values.reshape(members, -1)
        there = np.isfinite(values).reshape(-1) & np.isfinite(states).all(0)
        if not there.any():
            raise DataError(f"no observation of '{name}' lies within the posterior, expected at least one")
        at = _AtObservations(states[:, there], values.reshape(-1)[there], errors.reshape(-1)[there])
        for metric in wanted:
            if members > 1 or metric not in _OF_MEMBERS:
                out[f"{metric}_{name}"] = _labelled(metric, at.score(metric), like, there)
    outside = [int(observations[n].notnull().sum() - np.isfinite(v).sum()) for n, (v, _) in matched.items()]
    return out.assign_attrs(observations_outside=sum(outside))


@dataclass(frozen=True)
class _AtObservations:
    """H(x), shape (M, n), observations and their errors, shape (n,)."""

    states: np.ndarray
    values: np.ndarray
    errors: np.ndarray

    def score(self, metric: str) -> Any:
        """A number, or an array of shape (n,) or (M + 1,)."""
        innovation, spread2 = self.values - self.states.mean(0), self._variance()
        square = float(np.mean(innovation**2))
        total = (1 + 1 / len(self.states)) * spread2 + self.errors**2
        reduced = innovation / np.sqrt(total)
        match metric:
            case "count":
                return self.values.size
            case "rmse":
                return np.sqrt(square)
            case "rmse_corrected":
                truth = square - float(np.mean(self.errors**2))
                return np.sqrt(truth) if truth >= 0 else np.nan
            case "bias":
                return -innovation.mean()
            case "spread":
                return np.sqrt(spread2.mean())
            case "spread_skill":
                return np.sqrt(total.mean() / square) if square > 0 else np.nan
            case "rcrv":
                return reduced
            case "rcrv_bias":
                return reduced.mean()
            case "rcrv_dispersion":
                return reduced.std(ddof=1) if reduced.size > 1 else np.nan
            case "pit":
                return self._below().mean(0)
            case "rank_histogram":
                return _ranks(self._below())
        return self._crps()

    def _variance(self) -> np.ndarray:
        return self.states.var(0, ddof=1) if len(self.states) > 1 else np.zeros(self.values.shape)

    def _below(self) -> np.ndarray:
        """Probability that each member with an error lies below the observation, shape (M, n)."""
        from scipy.special import ndtr

        return np.asarray(ndtr((self.values - self.states) / self.errors))

    def _crps(self) -> float:
        distance = _mean_absolute(self.states - self.values, self.errors).mean()
        # Two members have independent errors, whose difference has twice the variance.
        doubled, count = np.sqrt(2) * self.errors, len(self.states)
        if count == 1:
            return float(distance - _mean_absolute(np.zeros(doubled.shape), doubled).mean() / 2)
        pairs = sum(_mean_absolute(self.states[i + 1 :] - self.states[i], doubled).sum() for i in range(count - 1))
        return float(distance - pairs / (count * (count - 1)) / self.values.size)


def _mean_absolute(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E|X| of X ~ N(mean, deviation^2)."""
    from scipy.special import ndtr

    z = mean / deviation
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(mean * (2 * ndtr(z) - 1) + 2 * deviation * density)


def _ranks(below: np.ndarray) -> np.ndarray:
    """Mean frequency of each rank, shape (M + 1,), from the probabilities that members lie below, shape (M, n)."""
    # The number of members below is a sum of independent trials (Poisson binomial), one member after the other.
    frequency = np.zeros((len(below) + 1, below.shape[1]))
    frequency[0] = 1
    for i, p in enumerate(below):
        frequency[1 : i + 2] = frequency[1 : i + 2] * (1 - p) + frequency[: i + 1] * p
        frequency[0] *= 1 - p
    return np.asarray(frequency.mean(1))


def _labelled(metric: str, score: Any, like: xr.DataArray, there: np.ndarray) -> xr.DataArray:
    units = "1" if metric in DIMENSIONLESS else str(like.attrs.get("units", "1"))
    attrs = {"units": units, "long_name": f"{_TITLES[metric]}, {like.attrs.get('long_name', like.name)}"}
    if metric == "rank_histogram":
        rank = np.arange(1, score.size + 1)
        labels = ("rank", rank, {"units": "1", "long_name": "rank of the observation among the members"})
        return xr.DataArray(score, {"rank": labels}, ("rank",), attrs=attrs)
    if metric not in PER_OBSERVATION:
        return xr.DataArray(score, attrs=attrs)
    full = np.full(there.shape, np.nan)
    full[there] = score
    return like.copy(data=full.reshape(like.shape)).assign_attrs(attrs).drop_attrs(deep=False).assign_attrs(attrs)


def _on_times(posterior: xr.Dataset) -> xr.Dataset:
    """A forecast with the times at which it is valid in the place of its lead times."""
    if TIME in posterior.dims or LEAD_TIME not in posterior.dims:
        return posterior
    times = valid_times(posterior)
    if times is None or times.squeeze(drop=True).dims != (LEAD_TIME,):
        raise DataError("the forecast has several initial times, expected one; select it, ds.isel(init_time=[0])")
    single = posterior.squeeze([d for d in times.dims if d != LEAD_TIME], drop=True)
    along = [c for c in single.coords if c != LEAD_TIME and LEAD_TIME in single[c].dims]
    kept = single.drop_vars([*along, *({INIT_TIME} & set(single.coords))])
    labels = times.squeeze(drop=True)
    return kept.rename({LEAD_TIME: TIME}).assign_coords({TIME: (TIME, labels.values, labels.attrs)})
