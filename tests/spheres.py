"""Homogeneous Gaussian fields on the sphere, with a closed form of their covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.polynomial.legendre import legval

# Correlation from one state to the next.
RHO = 0.8


@dataclass(frozen=True)
class Sphere:
    """A field on a global grid of latitudes and longitudes, in degrees.

    Its covariance between points at an angle g is that of random spherical harmonics with a power spectrum c_l,
    sum of c_l (2 l + 1) P_l(cos g) over l, with the Legendre polynomials P_l (addition theorem); here it is scaled to
    the variance 1. In time it is an autoregression of first order.
    """

    lat: np.ndarray
    lon: np.ndarray
    spectrum: np.ndarray

    @classmethod
    def of(cls, rows: int, columns: int, *, poles: bool = False, first: float = 0.0, degrees: int = 8) -> Sphere:
        """Rows at the centres of zones, or from pole to pole; longitudes from ``first`` on."""
        lat = np.linspace(-90, 90, rows) if poles else -90 + 180 / rows * (np.arange(rows) + 0.5)
        power = np.exp(-0.5 * (np.arange(degrees + 1) / 3) ** 2) * (2 * np.arange(degrees + 1) + 1)
        return cls(lat, first + np.arange(columns) * 360 / columns, power / power.sum())

    @property
    def places(self) -> np.ndarray:
        """Unit vectors of the points, (point, 3)."""
        return unit_vectors(*(a.ravel() for a in np.meshgrid(self.lat, self.lon, indexing="ij")))

    @property
    def cells(self) -> np.ndarray:
        """Areas of the cells of the points over their mean, (point,)."""
        edges = np.clip(np.r_[-90, (self.lat[1:] + self.lat[:-1]) / 2, 90], -90, 90)
        areas = np.repeat(np.diff(np.sin(np.deg2rad(edges))), len(self.lon))
        return areas / areas.mean()

    def covariance(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Covariance between unit vectors (n, 3) and (m, 3), (n, m)."""
        return legval((here @ there.T).clip(-1, 1), self.spectrum)

    def fields(self, count: int, seed: int = 0) -> xr.Dataset:
        """States at times without a calendar, (time, lat, lon)."""
        values, vectors = np.linalg.eigh(self.covariance(self.places, self.places))
        root, random = vectors * values.clip(0) ** 0.5, np.random.default_rng(seed)
        series = random.normal(size=(count, len(values)))
        for i in range(1, count):
            series[i] = RHO * series[i - 1] + (1 - RHO**2) ** 0.5 * series[i]
        states = (series @ root.T).reshape(count, len(self.lat), len(self.lon)).astype("f4")
        coords = {
            "time": ("time", np.arange(float(count)), {"units": "d"}),
            "lat": ("lat", self.lat, {"units": "degrees_north"}),
            "lon": ("lon", self.lon, {"units": "degrees_east"}),
        }
        return xr.Dataset({"h": (("time", "lat", "lon"), states, {"units": "m"})}, coords)


def unit_vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Points of the unit sphere at latitudes and longitudes in degrees, (n, 3)."""
    lat, lon = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
