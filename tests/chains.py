"""Linear chains as systems, and their posterior by conditioning the Gaussian of the whole trajectory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.linalg import solve_discrete_lyapunov

from sdaxr.operators import Operator
from sdaxr.systems.base import System
from sdaxr.systems.linear import Linear
from sdaxr.systems.markov import MarkovChain

TRIPLE = Linear(
    step=0.5,
    matrix=((0.9, 0.2, 0.0), (-0.3, 0.7, 0.1), (0.0, 0.2, 0.8)),
    noise=((0.3, 0.1, 0.0), (0.1, 0.2, 0.05), (0.0, 0.05, 0.4)),
)


@dataclass(frozen=True)
class Ring(MarkovChain):
    """Damped diffusion with noise and a constant forcing on a periodic line: on a grid, the mean not zero."""

    name: ClassVar[str] = "ring"

    step: float = 1.0
    sites: int = 4

    @property
    def matrix(self) -> np.ndarray:
        eye = np.eye(self.sites)
        return 0.5 * eye + 0.2 * (np.roll(eye, 1, 0) + np.roll(eye, -1, 0))

    @property
    def noise_covariance(self):
        return 0.3 * np.eye(self.sites) + 0.1

    def template(self):
        site = ("site", np.arange(self.sites, dtype=float), {"periodic": 1, "period": float(self.sites)})
        return xr.Dataset({"x": ("site", np.zeros(self.sites, np.float32), {"units": "K"})}, {"site": site})

    def transition_mean(self, x):
        return x @ self.matrix.T + 0.3

    def initial(self, count, seed):
        mean, covariance = self.initial_moments()
        return np.random.default_rng(seed).multivariate_normal(mean, covariance, count)

    def initial_moments(self):
        return np.full(self.sites, 3.0), solve_discrete_lyapunov(self.matrix, self.noise_covariance)


def truth_of(system: System, steps: int, seed: int) -> xr.Dataset:
    """One trajectory with its labels."""
    fields, template = system.trajectory(steps, seed), system.template()
    time = ("time", np.arange(steps) * system.step, system.time_attrs)
    variables = {n: (("time", *v.dims), fields[str(n)], v.attrs) for n, v in template.data_vars.items()}
    return xr.Dataset(variables, dict(template.coords) | {"time": time})


def whole_prior(system: MarkovChain, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (length n,) and covariance (length n, length n) of a stationary linear chain."""
    mean, covariance = system.initial_moments()
    powers = [np.linalg.matrix_power(np.array(system.matrix), k) for k in range(length)]
    blocks = [
        [powers[i - j] @ covariance if i >= j else covariance @ powers[j - i].T for j in range(length)]
        for i in range(length)
    ]
    return np.tile(mean, length), np.block(blocks)


def whole_operator(operator: Operator, like: xr.Dataset, system: MarkovChain) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (m, length n) and offset (m,) of a linear operator on trajectories that look like ``like``."""
    length, size = like.sizes["time"], system.size
    basis = np.concatenate([np.zeros((1, length * size)), np.eye(length * size)]).reshape(-1, length, size)
    fields = system.from_vectors(basis)
    members = {n: (("member", *v.dims), fields[str(n)], v.attrs) for n, v in like.data_vars.items()}
    seen = operator.apply(xr.Dataset(members, like.coords))
    rows = np.concatenate([v.transpose("member", ...).values.reshape(len(basis), -1) for v in seen.values()], 1)
    return (rows[1:] - rows[0]).T.astype(float), rows[0].astype(float)


def condition(
    prior: tuple[np.ndarray, np.ndarray],
    matrix: np.ndarray,
    offset: np.ndarray,
    y: np.ndarray,
    error: np.ndarray,
    correlation: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, covariance and log-evidence of the Gaussian ``prior`` given y = matrix x + offset + errors."""
    mean, covariance = prior
    seen = np.isfinite(y)
    matrix, innovation = matrix[seen], y[seen] - offset[seen] - matrix[seen] @ mean
    correlation = np.eye(len(y)) if correlation is None else correlation
    errors = (error[:, None] * correlation * error)[np.ix_(seen, seen)]
    spread = matrix @ covariance @ matrix.T + errors
    gain = np.linalg.solve(spread, matrix @ covariance).T
    evidence = -(innovation @ np.linalg.solve(spread, innovation) + np.linalg.slogdet(2 * np.pi * spread)[1]) / 2
    return mean + gain @ innovation, covariance - gain @ matrix @ covariance, float(evidence)
