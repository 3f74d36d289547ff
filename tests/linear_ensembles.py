"""Deterministic linear systems, and ensembles with exact moments: Kalman filter and ensemble filters then agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import xarray as xr
from chains import Ring, truth_of
from filtered import model_of

from sdaxr.filters.kalman import KalmanFiltered, kalman_filter
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.observations.observe import observe
from sdaxr.operators import Operator

LENGTH = 6


@dataclass(frozen=True)
class Turning(Ring):
    """A ring whose states turn and shrink a little, without noise: what is known of one state is known of all."""

    name: ClassVar[str] = "turning"

    sites: int = 8

    @property
    def matrix(self) -> np.ndarray:
        eye = np.eye(self.sites)
        return 0.9 * np.roll(eye, 1, 0) + 0.1 * np.roll(eye, -2, 0)

    @property
    def noise_covariance(self):
        return np.zeros((self.sites, self.sites))

    def initial_moments(self):
        apart = np.abs(np.subtract.outer(np.arange(self.sites), np.arange(self.sites)))
        return np.full(self.sites, 3.0), np.exp(-np.minimum(apart, self.sites - apart) / 2)


def exact_ensemble(mean: np.ndarray, covariance: np.ndarray, members: int, seed: int = 0) -> np.ndarray:
    """Members, more than elements, with exactly this mean and covariance (divisor N - 1), shape (members, n)."""
    drawn = np.random.default_rng(seed).normal(size=(members, len(mean)))
    drawn -= drawn.mean(0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def with_first(model: StateSpaceModel, members: int, seed: int = 0) -> StateSpaceModel:
    """The model with an ensemble that has the moments of its first state."""
    return replace(model, first=exact_ensemble(*model.system.initial_moments(), members, seed))


def linear_case(
    operator: Operator, members: int = 20, system: Ring | None = None, exact: bool = True, **how
) -> tuple[StateSpaceModel, KalmanFiltered]:
    """A model with an ensemble, by default with the exact moments of the first state, and its Kalman filter."""
    chosen = Turning() if system is None else system
    truth = truth_of(chosen, LENGTH, 3)
    model = model_of(
        chosen, {"seen": observe(truth, operator, seed=4, **how)}, LENGTH, first=chosen.initial(members, 5)
    )
    model = with_first(model, members) if exact else model
    return model, kalman_filter(model)


def in_background(ensemble: np.ndarray, system: Ring) -> xr.Dataset:
    """First states of an ensemble (members, n) as a background."""
    template = system.template()
    fields = system.from_vectors(ensemble)
    return xr.Dataset(
        {n: (("member", *v.dims), fields[n], v.attrs) for n, v in template.data_vars.items()}, template.coords
    )


def moments(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (time, n) and covariances (time, n, n) of members, (members, time, n)."""
    away = paths - paths.mean(0)
    return paths.mean(0), np.einsum("mti,mtj->tij", away, away) / (len(paths) - 1)


def dense_taper(here: np.ndarray, there: np.ndarray, half: float, period: float) -> np.ndarray:
    """The taper of Gaspari and Cohn on a ring, written out pair by pair; (here, there)."""
    taper = np.zeros((len(here), len(there)))
    for i, a in enumerate(here):
        for j, b in enumerate(there):
            z = min(abs(a - b), period - abs(a - b)) / half
            if z < 1:
                taper[i, j] = 1 - 5 * z**2 / 3 + 5 * z**3 / 8 + z**4 / 2 - z**5 / 4
            elif z < 2:
                taper[i, j] = 4 - 5 * z + 5 * z**2 / 3 + 5 * z**3 / 8 - z**4 / 2 + z**5 / 12 - 2 / (3 * z)
    return taper


def assert_near_the_kalman_filter(paths: np.ndarray, exact: KalmanFiltered) -> None:
    """Moments of the members within five standard errors of those of the filter."""
    assert_near_moments(paths, exact.means, exact.covariances)


def assert_near_moments(paths: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> None:
    """Moments of members (members, time, n) within five standard errors of means (time, n) and covariances.

    An analysis that is made with estimated covariances has errors of the same order as a sample of its result. The
    factor of two is for both, and for the errors that earlier analyses have left.
    """
    found, spread = moments(paths)
    deviation = np.sqrt(np.einsum("tii->ti", covariances))
    error = 2 * 5 / np.sqrt(len(paths))
    assert np.abs((found - means) / deviation).max() < error
    scale = deviation[:, :, None] * deviation[:, None]
    assert np.abs((spread - covariances) / scale).max() < np.sqrt(2) * error
