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
    operator: Operator, members: int = 20, system: Ring | None = None, **how
) -> tuple[StateSpaceModel, KalmanFiltered]:
    """A model with an ensemble of exact moments, and the Kalman filter of it."""
    chosen = Turning() if system is None else system
    truth = truth_of(chosen, LENGTH, 3)
    model = with_first(model_of(chosen, {"seen": observe(truth, operator, seed=4, **how)}, LENGTH), members)
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
