r"""Weak-constraint 4D-Var: each trajectory is moved to a mode of the posterior.

The cost of a trajectory is its negative log-posterior up to a constant,

.. math::
    J(x) = \tfrac{1}{2} |x_1 - m|^2_{P^{-1}} + \tfrac{1}{2} \sum_t |x_{t+1} - f(x_t)|^2_{Q^{-1}}
           + \tfrac{1}{2} \sum_t |y_t - H_t(x_t)|^2_{R_t^{-1}},

where m and P are the mean and the covariance of the first state. If the first state of the chain is not Gaussian, the
first term is left out: the prior of the first state is flat. The normal equations of the Gauss-Newton method are block
tridiagonal, so that the cost of a step is linear in the number of times. Each trajectory has a Levenberg-Marquardt
damping of its own (Levenberg 1944; Marquardt 1963), which is updated as by Nielsen (1999). Only steps that lower the
cost are accepted.

References
----------
.. [1] Trémolet, Y. (2006). Accounting for an imperfect model in 4D-Var. doi:10.1256/qj.05.224
.. [2] Nielsen, H. B. (1999). Damping parameter in Marquardt's method. Technical University of Denmark, IMM-REP-1999-05
.. [3] Levenberg, K. (1944). A method for the solution of certain non-linear problems in least squares.
   doi:10.1090/qam/10666
.. [4] Marquardt, D. W. (1963). An algorithm for least-squares estimation of nonlinear parameters. doi:10.1137/0111030
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import xarray as xr

from sdaxr.archives.paths import Location
from sdaxr.archives.reading import open_archive
from sdaxr.filters.base import Drawn
from sdaxr.filters.bpf import ParticleMethod
from sdaxr.filters.ffbs import FFBS
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import TIME, DataError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.time import match_times
from sdaxr.systems.layout import system_layout

_log = logging.getLogger(__name__)

# Most Gauss-Newton steps. Trajectories that reach a mode take some tens of steps.
ITERATIONS = 200
# A trajectory is at a mode when |dJ/dx_i| times the conditional standard deviation of x_i, which is the square root of
# the inverse diagonal element of the Gauss-Newton matrix, is below this value for every component x_i.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class FourDVar(ParticleMethod):
    r"""Weak-constraint 4D-Var (Trémolet 2006, doi:10.1256/qj.05.224): each member is at a mode of the posterior.

    .. math::
        J(x) = \tfrac{1}{2} |x_1 - m|^2_{P^{-1}} + \tfrac{1}{2} \sum_t |x_{t+1} - f(x_t)|^2_{Q^{-1}}
               + \tfrac{1}{2} \sum_t |y_t - H_t(x_t)|^2_{R_t^{-1}}

    Parameters
    ----------
    particles
        Number of particles of `FFBS`, which draws the first guess where no ``first_guess`` is given.
    first_guess
        Trajectories at which the minimisation starts, such as a posterior, on (member, time, ...) with at least as many
        members as are drawn; or the path of their archive.
    """

    first_guess: xr.Dataset | str | Location | None = field(default=None, metadata={"file": True})

    name: ClassVar[str] = "4dvar"
    gaussian: ClassVar[bool] = True

    def resolve(self) -> FourDVar:
        """The method with the first guess as a Dataset, so that the result records its values and not its path."""
        if self.first_guess is None or isinstance(self.first_guess, xr.Dataset):
            return self
        return replace(self, first_guess=open_archive(self.first_guess))

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if errors are not Gaussian, or the first guess does not fit the window."""
        super().check(model, members)
        self._first_guess(model, members)

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """The first guess, each member moved to a mode of the posterior."""
        first_guess = self._first_guess(model, members)
        if first_guess is None:
            first_guess = FFBS(particles=self.particles).draw(model, members, seed).paths
        found = minimise(model, first_guess)
        about = {
            "cost_before": float(found.before.mean()),
            "cost_after": float(found.after.mean()),
            "members_not_converged": int((~found.converged).sum()),
        }
        return Drawn(found.states, about)

    def _first_guess(self, model: StateSpaceModel, members: int) -> np.ndarray | None:
        """The first guess as vectors, (members, time, n); None if there is none."""
        data = self.resolve().first_guess
        if not isinstance(data, xr.Dataset):
            return None
        if TIME not in data.dims or TIME not in data.coords:
            raise DataError(
                f"first_guess has the dimensions {list(map(str, data.dims))}, expected 'time' with a coordinate"
            )
        places = match_times(model.times, data[TIME], of="the window", like="first_guess")
        if (places < 0).any():
            raise DataError(
                f"first_guess has no state at {model.times.values[places < 0][0]} ({int((places < 0).sum())} times of "
                "the window are missing), expected all of them; pass times= to choose the window"
            )
        ensemble = ensemble_dimension(data)
        count = 1 if ensemble is None else data.sizes[ensemble]
        if count < members:
            raise DataError(f"first_guess has {count} members, expected at least members={members}; ask for {count}")
        chosen = data.isel({TIME: places})
        layout = system_layout(model.system)
        array = layout.to_array(chosen if ensemble is None else chosen.isel({ensemble: slice(members)}))
        return array.reshape(members, model.times.size, -1).astype(float)


@dataclass(frozen=True)
class Minimised:
    """Trajectories at modes of the posterior.

    Attributes
    ----------
    states
        Shape (members, time, n).
    before, after
        Cost of each trajectory at the first guess and at the end, (members,).
    converged
        Whether the gradient vanishes at the end, (members,).
    """

    states: np.ndarray
    before: np.ndarray
    after: np.ndarray
    converged: np.ndarray


def minimise(model: StateSpaceModel, first_guess: np.ndarray, iterations: int = ITERATIONS) -> Minimised:
    """Minimise the cost of trajectories (members, time, n), until its gradient vanishes."""
    x = np.array(first_guess, float)
    before = cost(model, x)
    after = before.copy()
    damping, growth = np.full(len(x), 1e-3), np.full(len(x), 2.0)
    converged = np.zeros(len(x), bool)
    for _ in range(iterations):
        moving = np.flatnonzero(~converged)
        gradient, diagonal, below = expand_cost(model, x[moving])
        curvature = np.einsum("mtii->mti", diagonal).copy()
        converged[moving] = (np.abs(gradient) / np.sqrt(curvature)).max(axis=(1, 2)) < TOLERANCE
        going = ~converged[moving]
        if not going.any():
            break
        moving, gradient, curvature = moving[going], gradient[going], curvature[going]
        lift = damping[moving, None, None] * curvature
        step = solve_block_tridiagonal(diagonal[going] + lift[..., None] * np.eye(x.shape[2]), below[going], -gradient)
        promised = (step * (lift * step - gradient)).sum(axis=(1, 2)) / 2
        with np.errstate(over="ignore", invalid="ignore"):
            reached = cost(model, x[moving] + step)
            ratio = (after[moving] - reached) / promised
        downhill = ratio > 0
        x[moving[downhill]] += step[downhill]
        after[moving[downhill]] = reached[downhill]
        shrink = np.maximum(1 / 3, 1 - (2 * ratio[downhill].clip(max=1.0) - 1) ** 3)
        damping[moving[downhill]] *= shrink
        growth[moving[downhill]] = 2.0
        damping[moving[~downhill]] *= growth[moving[~downhill]]
        growth[moving[~downhill]] *= 2.0
    if not converged.all():
        _log.warning(
            "4D-Var: %d of %d trajectories have not reached a mode after %d iterations; a better first guess may help",
            (~converged).sum(),
            len(x),
            iterations,
        )
    return Minimised(x, before, after, converged)


def cost(model: StateSpaceModel, x: np.ndarray) -> np.ndarray:
    """Cost J of trajectories, (members, time, n) to (members,)."""
    whiten = model.chain.whitening()
    departures = (x[:, 1:] - model.chain.transition_mean(x[:, :-1])) @ whiten.T
    total: np.ndarray = (departures**2).sum(axis=(1, 2))
    moments = model.chain.initial_moments()
    if moments is not None:
        total += ((x[:, 0] - moments[0]) * np.linalg.solve(moments[1], (x[:, 0] - moments[0]).T).T).sum(1)
    for index, observation in enumerate(model.observations):
        if observation is not None:
            innovation = observation.values - observation.predict(x[:, index])
            total += (observation.errors.whiten(innovation) ** 2).sum(1)
    return total / 2


def expand_cost(model: StateSpaceModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the cost, and the Gauss-Newton approximation of its second derivative.

    Returns
    -------
    Gradient (members, time, n); blocks on the diagonal (members, time, n, n); blocks below the diagonal
    (members, time - 1, n, n), with rows for the later and columns for the earlier state.
    """
    whiten = model.chain.whitening()
    gradient, diagonal = np.zeros(x.shape), np.zeros((*x.shape, x.shape[2]))
    departures = (x[:, 1:] - model.chain.transition_mean(x[:, :-1])) @ whiten.T
    tangent = whiten @ model.chain.tangent(x[:, :-1])
    gradient[:, 1:] += departures @ whiten
    gradient[:, :-1] -= np.einsum("mtki,mtk->mti", tangent, departures)
    diagonal[:, 1:] += whiten.T @ whiten
    diagonal[:, :-1] += tangent.swapaxes(-1, -2) @ tangent
    below = -whiten.T @ tangent
    moments = model.chain.initial_moments()
    if moments is not None:
        precision = np.linalg.inv(moments[1])
        gradient[:, 0] += (x[:, 0] - moments[0]) @ precision
        diagonal[:, 0] += precision
    for index, observation in enumerate(model.observations):
        if observation is not None:
            innovation = observation.errors.whiten(observation.values - observation.predict(x[:, index]))
            operator = observation.errors.whiten(observation.tangent(x[:, index]).swapaxes(1, 2)).swapaxes(1, 2)
            gradient[:, index] -= np.einsum("mki,mk->mi", operator, innovation)
            diagonal[:, index] += operator.swapaxes(1, 2) @ operator
    return gradient, diagonal, below


def solve_block_tridiagonal(diagonal: np.ndarray, below: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve symmetric block tridiagonal systems by block elimination.

    Parameters
    ----------
    diagonal
        Blocks on the diagonal, positive definite, (members, time, n, n).
    below
        Blocks below the diagonal, (members, time - 1, n, n).
    right
        Right-hand sides, (members, time, n).

    Returns
    -------
    The solutions, shape of ``right``.
    """
    length = right.shape[1]
    pivots, solution = diagonal.copy(), right.copy()
    for t in range(1, length):
        factor = np.linalg.solve(pivots[:, t - 1], below[:, t - 1].swapaxes(1, 2)).swapaxes(1, 2)
        pivots[:, t] -= factor @ below[:, t - 1].swapaxes(1, 2)
        solution[:, t] -= (factor @ solution[:, t - 1, :, None])[..., 0]
    for t in reversed(range(length)):
        if t + 1 < length:
            solution[:, t] -= (below[:, t].swapaxes(1, 2) @ solution[:, t + 1, :, None])[..., 0]
        solution[:, t] = np.linalg.solve(pivots[:, t], solution[:, t, :, None])[..., 0]
    return solution
