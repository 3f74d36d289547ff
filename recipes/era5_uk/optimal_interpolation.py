r"""Optimal interpolation in space and time: the linear-Gaussian use of the same training days.

Anomalies from the hourly climatology are taken as Gaussian, with the covariance of the training days between points and
lags, tapered by :math:`\exp(-d^2 / 2 D^2 - k^2 / 2 T^2)` in distance d and lag k, because 21 days sample it badly:

.. math:: x = c + B H^T (H B H^T + R)^{-1} (y - H c)

It is the hardest of the references: all hours of a window are analysed together (Gandin 1963; Kalnay 2003, 5.4).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

DISTANCE = 4.0  # degrees of latitude; DISTANCE and LAG gave the least error on the validation days
LAG = 6.0  # hours


def optimal_interpolation(training: xr.DataArray, observed: xr.DataArray, background: xr.DataArray) -> xr.DataArray:
    """Analyse one window.

    Parameters
    ----------
    training
        Anomalies (time, lat, lon) of consecutive hours.
    observed
        Anomalies (time, station) with coordinates lat and lon, NaN where missing, and the attribute ``error``.
    background
        Climatology (time, lat, lon) that the anomalies belong to.

    Returns
    -------
    Analysis, like ``background``.
    """
    from sdaxr import operators as op

    grid = training.values.reshape(training.sizes["time"], -1)
    stations = op.points({d: observed[d].values.tolist() for d in ("lat", "lon")})
    seen = stations.apply(training.to_dataset(name="anomaly"))["anomaly"].values
    lat: np.ndarray = np.repeat(training.lat.values, training.sizes["lon"])
    lon: np.ndarray = np.tile(training.lon.values, training.sizes["lat"])
    near = _taper(lat, lon, observed.lat.values, observed.lon.values)
    near_seen = _taper(observed.lat.values, observed.lon.values, observed.lat.values, observed.lon.values)
    hours = observed.sizes["time"]
    lags = range(1 - hours, hours)
    between = {k: _lagged(seen, seen, k) * near_seen * _decay(k) for k in lags}
    towards = {k: _lagged(grid, seen, k) * near * _decay(k) for k in lags}

    at, which = np.nonzero(np.isfinite(observed.values))
    covariance = np.empty((at.size, at.size))
    for i in range(hours):
        for j in range(hours):
            rows, columns = np.flatnonzero(at == i), np.flatnonzero(at == j)
            covariance[np.ix_(rows, columns)] = between[j - i][np.ix_(which[rows], which[columns])]
    covariance += np.eye(at.size) * float(observed.attrs["error"]) ** 2
    weights = np.zeros((hours, observed.sizes["station"]))
    weights[at, which] = np.linalg.solve(covariance, observed.values[at, which])
    increment = np.stack([sum(towards[j - i] @ weights[j] for j in range(hours)) for i in range(hours)])
    return background + increment.reshape(background.shape)


def _lagged(first: np.ndarray, second: np.ndarray, lag: int) -> np.ndarray:
    """Covariance of ``first`` with ``second`` that many steps later: (time, m), (time, n) to (m, n)."""
    count = len(first) - abs(lag)
    return first[max(0, -lag) :][:count].T @ second[max(0, lag) :][:count] / count


def _decay(lag: int) -> float:
    return float(np.exp(-0.5 * (lag / LAG) ** 2))


def _taper(lat: np.ndarray, lon: np.ndarray, to_lat: np.ndarray, to_lon: np.ndarray) -> np.ndarray:
    east = (lon[:, None] - to_lon) * np.cos(np.deg2rad(lat.mean()))
    return np.exp(-0.5 * ((lat[:, None] - to_lat) ** 2 + east**2) / DISTANCE**2)
