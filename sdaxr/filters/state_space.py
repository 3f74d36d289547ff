r"""State-space models: a system and observations of its states, as vectors.

.. math:: x_{t+1} = f(x_t) + N(0, Q), \qquad y_t = H_t(x_t) + \epsilon_t

Q is zero for deterministic systems. `sdaxr.filters.binding` makes a model from labelled observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
import xarray as xr
from torch import Tensor

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.noise import DISTRIBUTION, GAUSSIAN
from sdaxr.observations.observed import ObservedPoints
from sdaxr.posterior.mixture import Mixture, log_density
from sdaxr.schema import OptionError
from sdaxr.systems.base import System
from sdaxr.systems.markov import MarkovChain


@dataclass(frozen=True)
class ObservationErrors:
    """The distribution of observation errors: N(0, R), or independent errors of other families.

    Attributes
    ----------
    std
        Standard deviation of each error, the square root of the diagonal of R; shape (m,).
    families
        Name of the family of each error (`sdaxr.observations.noise`), shape (m,).
    correlation
        Correlation of Gaussian errors, shape (m, m); None where the errors are independent, or ``shared`` is R.
    shared
        R of errors that are independent but for biases of their sources; None for other errors.
    """

    std: np.ndarray
    families: np.ndarray
    correlation: np.ndarray | None = None
    shared: SharedCovariance | None = None

    @property
    def gaussian(self) -> bool:
        """Whether all errors are Gaussian."""
        return bool((self.families == GAUSSIAN).all())

    @property
    def covariance(self) -> np.ndarray:
        """R, shape (m, m)."""
        if self.shared is not None:
            return self.shared.dense().numpy()
        return np.diag(self.std**2) if self.correlation is None else self.std[:, None] * self.correlation * self.std

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """Values (..., m) such that their errors become uncorrelated, with unit variance."""
        if self.shared is not None:
            return self.shared.whiten(torch.from_numpy(np.require(values, requirements=["C", "W"]))).numpy()
        scaled: np.ndarray = values / self.std
        return scaled if self.correlation is None else scaled @ np.linalg.inv(self._root).T

    def log_density(self, innovation: np.ndarray) -> np.ndarray:
        """Log-density of errors, (..., m) to (...)."""
        normalisation = np.log(self.std).sum()
        if self.shared is not None:
            normalisation = self.shared.log_determinant / 2
        elif self.correlation is not None:
            normalisation += np.log(np.diag(self._root)).sum()
        white = self.whiten(innovation)
        density: np.ndarray
        if self.gaussian:
            density = -(white**2).sum(-1) / 2 - len(self.std) / 2 * math.log(2 * math.pi)
        else:
            density = np.sum([log_density(white[..., i], family) for i, family in enumerate(self.families)], axis=0)
        return density - float(normalisation)

    def solve(self, values: np.ndarray) -> np.ndarray:
        """R^-1 times values (..., m)."""
        if self.shared is not None:
            return self.shared.solve(torch.from_numpy(np.require(values, requirements=["C", "W"]))).numpy()
        solved: np.ndarray = values / self.std
        if self.correlation is not None:
            solved = solved @ np.linalg.inv(self._root @ self._root.T)
        solved /= self.std
        return solved

    def score(self, errors: np.ndarray) -> np.ndarray:
        """Minus the derivative of `log_density` at errors (count, m): R^-1 times them where they are Gaussian."""
        if self.gaussian:
            return self.solve(errors)
        d = torch.from_numpy(errors / self.std)
        score: np.ndarray = Mixture.of(self.families, d).score(d, torch.zeros_like(d[0])).numpy() / self.std
        return score

    @classmethod
    def of(cls, points: ObservedPoints) -> ObservationErrors:
        """The errors of observations, as their attributes describe them."""
        return cls(points.errors, points.families, points.correlation, points.shared)

    @classmethod
    def joined(cls, parts: Sequence[ObservationErrors]) -> ObservationErrors:
        """The errors of several networks; errors of different networks are independent."""
        std, families = (np.concatenate(arrays) for arrays in zip(*((p.std, p.families) for p in parts), strict=True))
        if all(part.shared is None and part.correlation is None for part in parts):
            return cls(std, families)
        if all(part.correlation is None for part in parts):
            shared = [SharedCovariance.of(p.std**2, None) if p.shared is None else p.shared for p in parts]
            return cls(std, families, shared=SharedCovariance.joined(shared))
        blocks = [part.covariance / np.outer(part.std, part.std) for part in parts]
        return cls(std, families, scipy.linalg.block_diag(*blocks))

    @cached_property
    def _root(self) -> np.ndarray:
        return np.linalg.cholesky(self.covariance / np.outer(self.std, self.std))


@dataclass(frozen=True)
class StateObservation:
    """Observations of one state: y = H(x) + error.

    Attributes
    ----------
    operator
        H: states (count, n) to observed quantities (count, m), float64, differentiable.
    values
        y, shape (m,).
    errors
        Distribution of the errors.
    places
        Coordinates of the observations by name, shape (m,) each, NaN where an observation has none.
    """

    operator: Callable[[Tensor], Tensor]
    values: np.ndarray
    errors: ObservationErrors
    places: Mapping[str, np.ndarray] = field(default_factory=dict)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """H of states, (count, n) to (count, m)."""
        with torch.no_grad():
            return self.operator(torch.from_numpy(np.require(x, requirements=["C", "W"]))).numpy()

    def tangent(self, x: np.ndarray) -> np.ndarray:
        """Derivative of H, (count, n) to (count, m, n)."""
        states = torch.from_numpy(np.require(x, requirements=["C", "W"])).requires_grad_()
        # H of one state does not depend on the other states, so that the sum over the states can be differentiated.
        sums = self.operator(states).sum(0)
        rows = [torch.autograd.grad(total, states, retain_graph=True)[0] for total in sums]
        return torch.stack(rows, dim=1).numpy()

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """log p(y | x) of states, (count, n) to (count,)."""
        return self.errors.log_density(self.values - self.predict(x))


@dataclass(frozen=True)
class StateSpaceModel:
    """A system and observations of its states.

    Attributes
    ----------
    system
        The system.
    times
        Times of the states, shape (time,).
    observations
        Observations of each state, one entry for each time; None where there are none.
    first
        First states of an ensemble, shape (members, n); None for methods that draw the first states themselves.
    """

    system: System
    times: xr.DataArray
    observations: tuple[StateObservation | None, ...]
    first: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def chain(self) -> MarkovChain:
        """The system as a Markov chain with Gaussian noise; `OptionError` if it is none."""
        return markov_chain(self.system)

    def check_gaussian(self, method: str) -> None:
        """Raise `OptionError` if the errors of some observation are not Gaussian."""
        for observation in self.observations:
            if observation is not None and not observation.errors.gaussian:
                found = sorted(set(observation.errors.families.tolist()))
                raise OptionError(
                    f"method={method!r} is for Gaussian errors, found {', '.join(found)}; use method='ffbs', or drop "
                    f"the attribute '{DISTRIBUTION}' of the errors to treat them as Gaussian"
                )


def markov_chain(system: System) -> MarkovChain:
    """The system as a Markov chain with Gaussian noise.

    Raises
    ------
    OptionError
        If it is none.
    """
    if not isinstance(system, MarkovChain):
        raise OptionError(
            f"system={system.name!r} has no Gaussian noise, expected a sdaxr.systems.MarkovChain such as 'lorenz63': "
            "ffbs, bpf, kalman and 4dvar use the density of its transitions; use an ensemble method such as 'etkf'"
        )
    return system
