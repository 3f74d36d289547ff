r"""What the ensemble score filter and the ensemble flow filter share: units, mixtures of members, and observations.

Both move draws of a known distribution to draws of the analysis in a pseudo-time t. They know the forecast by its
members only. With the means :math:`\mu_j` that belong to the members and the standard deviation :math:`\sigma` of a
pseudo-time, the density is the mixture :math:`\sum_j N(\mu_j, \sigma^2 I) / N`, and what is known for each member is
averaged with the weights

.. math:: w_j(z) \propto \exp(-|z - \mu_j|^2 / (2 \sigma^2)) .

Distances are those of whole states. Where states have many more elements than there are members, one weight is nearly 1
and the others nearly 0: each draw then goes to one member, and is moved by the observations from there.

States are in units in which isotropic noise makes sense (`Units`). A step of length c along the gradient of
log p(y | z) is linearly implicit, with the derivative J of H,

.. math:: (I + c J^T R^{-1} J) \Delta z = c\, \nabla_z \log p(y | z) ,

so that it goes no further than the minimum of the misfit, however small the errors are; as :math:`c \to 0` it is
Euler's step. The method of conjugate gradients solves the system, each of whose iterations lowers the linearised
misfit. Its preconditioner is :math:`1 + c\, d` with :math:`d = J^T R^{-1} J\, \mathbf{1}` where this is positive: for
operators that act on each element by itself, one iteration is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sdaxr.filters.ensemble import Forecast, Update
from sdaxr.filters.state_space import StateObservation

# Most iterations of conjugate gradients, and the fraction of the right-hand side that they may leave.
_ITERATIONS = 10
_REST = 0.05


@dataclass(frozen=True)
class Units:
    """Origin and unit of the elements of a state, shape (n,) each."""

    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, forecast: Forecast, scale: float | None) -> Units:
        """Units in which the forecast has the mean zero.

        Parameters
        ----------
        forecast
            The forecast.
        scale
            The unit, the same for all elements. None: the standard deviation of each field over members and points; of
            scalars, the root mean square.
        """
        states = forecast.states
        if scale is not None:
            return cls(states.mean(0), np.full(states.shape[1], scale))
        fields = states.reshape(len(states), forecast.channels, -1)
        if fields.shape[2] > 1:
            fields = fields - fields.mean((0, 2), keepdims=True)
        sizes = np.sqrt((fields**2).mean((0, 2)))
        return cls(states.mean(0), np.repeat(np.where(sizes > 0, sizes, 1.0), fields.shape[2]))

    def scaled(self, states: np.ndarray) -> np.ndarray:
        """States (..., n) in these units."""
        scaled: np.ndarray = (states - self.centre) / self.scale
        return scaled

    def states(self, scaled: np.ndarray) -> np.ndarray:
        """States (..., n) from those in these units."""
        states: np.ndarray = self.centre + self.scale * scaled
        return states

    def pulled(self, observation: StateObservation, scaled: np.ndarray, step: float) -> np.ndarray:
        """How far a linearly implicit step along the gradient of log p(y | z) goes from z, (count, n)."""
        tangent = Tangent(observation, self.states(scaled))
        rest = step * self.scale * tangent.gradient()
        sums = tangent.curved(np.broadcast_to(self.scale, rest.shape).copy())
        easier = 1 / (1 + step * self.scale * sums.clip(min=0.0))
        pulled: np.ndarray = np.zeros_like(rest)
        along = easier * rest
        squares = (rest * along).sum(1)
        least = _REST**2 * squares
        for _ in range(_ITERATIONS):
            product = along + step * self.scale * tangent.curved(self.scale * along)
            length = _ratio(squares, (along * product).sum(1))
            pulled, rest = pulled + length * along, rest - length * product
            before, squares = squares, (easier * rest**2).sum(1)
            if (squares <= least).all():
                break
            along = easier * rest + _ratio(squares, before) * along
        return pulled


class Tangent:
    """The derivative of H at states (count, n), for products with vectors.

    Parameters
    ----------
    observation
        The observations.
    states
        Where, shape (count, n).
    """

    def __init__(self, observation: StateObservation, states: np.ndarray) -> None:
        self._observation = observation
        self._states = torch.from_numpy(np.array(states, float)).requires_grad_()
        self._predicted = observation.operator(self._states)
        # The derivative of J^T u with respect to u, times v, is J v.
        self._probe = torch.zeros_like(self._predicted, requires_grad=True)
        (self._transposed,) = torch.autograd.grad(self._predicted, self._states, self._probe, create_graph=True)

    def gradient(self) -> np.ndarray:
        """The gradient of log p(y | x), (count, n)."""
        departures = self._observation.values - self._predicted.detach().numpy()
        return self._back(self._observation.errors.score(departures))

    def curved(self, vectors: np.ndarray) -> np.ndarray:
        """:math:`J^T R^{-1} J v` for vectors (count, n), with the covariance R of the errors, whatever their family."""
        direction = torch.from_numpy(vectors)
        (change,) = torch.autograd.grad(self._transposed, self._probe, direction, retain_graph=True)
        return self._back(self._observation.errors.solve(change.numpy()))

    def _back(self, values: np.ndarray) -> np.ndarray:
        found = torch.autograd.grad(self._predicted, self._states, torch.from_numpy(values), retain_graph=True)
        return found[0].numpy()


def member_weights(scaled: np.ndarray, means: np.ndarray, std: float, batches: np.ndarray | None = None) -> np.ndarray:
    """Weights w_j(z) of the members, (count, members), whose sums are 1.

    Parameters
    ----------
    scaled
        z, shape (count, n).
    means
        :math:`\\mu_j`, shape (members, n).
    std
        :math:`\\sigma`.
    batches
        Which members count for which z, shape (count, members). None: all.
    """
    squares = (scaled**2).sum(1)[:, None] + (means**2).sum(1) - 2 * scaled @ means.T
    exponents = -squares.clip(min=0.0) / (2 * std**2)
    if batches is not None:
        exponents = np.where(batches, exponents, -np.inf)
    weights: np.ndarray = np.exp(exponents - exponents.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return weights


def replaced(moved: np.ndarray) -> Update:
    """The update that puts the ensemble ``moved``, (members, n), in the place of that of the forecast."""
    return lambda states: np.broadcast_to(moved, states.shape)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotients (count, 1) of numbers (count,); 0 where both are 0."""
    found: np.ndarray = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)[:, None]
    return found
