r"""Particle flow filter: all members move to the posterior in pseudo-time, and repel each other.

The flow lowers the Kullback-Leibler divergence of the density of the members from the posterior. In a reproducing
kernel Hilbert space its steepest descent is known from the members alone (Pulido & van Leeuwen 2019),

.. math:: \frac{dx_i}{ds} = D\, I(x_i), \qquad
          I(x) = \frac{1}{N} \sum_j \left[K(x_j, x) \nabla \log p(x_j | y) + \nabla_{x_j} \cdot K(x_j, x)\right].

The first term draws members to where the posterior is large; the second keeps them apart. There are two kernels:

``"matrix"``
    one for each element a (Hu & van Leeuwen 2021), the diagonal matrix with
    :math:`K_a(x, x') = \exp(-(x_a - x'_a)^2 / (2 \alpha B_{aa}))`;
``"scalar"``
    one for the whole state (Pulido & van Leeuwen 2019),
    :math:`K(x, x') = \exp(-(x - x')^T B^{-1} (x - x') / (2 \alpha))`.

In high dimensions distances of whole states are all large: members no longer repel each other, and all go to the mode.
Those of single elements are not.

The prior is Gaussian, with the mean of the forecast and its covariance B, tapered with the distance
(`sdaxr.filters.localisation`): :math:`\nabla \log p(x | y) = \nabla \log p(y | x) - B^{-1} (x - \bar x)`. B is the
preconditioner D, too, so that what is observed moves what is not. Without localisation B has the rank of the ensemble,
and :math:`B^{-1}` is its pseudo-inverse; with it, the eigenvectors of B cost :math:`n^3`.

The pseudo-time has Euler steps whose length adapts: shorter by 1.5, and the step is made anew, where the mean square of
the flow grows by more than 2 %; longer by 1.5 after seven that did not. No step moves an element of a member by more
than half of its standard deviation in the forecast: beyond, operators such as the arctangent may be flat, and a flow
that got stuck there would be small. The flow ends where its root mean square, in units of the prior's standard
deviations, is a fraction ``tolerance`` of that at the start, or after ``steps``.

With more members, the flow of the scalar kernel ends at draws of the posterior, whatever its width and the operator (of
two correlated elements, 200 members with the width 0.3 have 0.99 of all covariances); the width 1/N is too narrow for
that in two dimensions already, where it leaves 0.6. That of the matrix kernel ends where the marginal distribution of
each element agrees with the slopes of the posterior averaged over the others: for a Gaussian posterior with the
precision matrix L, where the mean is right and the covariance S of the members has :math:`(L S)_{aa} = 1` for all a. A
single element is then a draw of the posterior; between elements, this leaves correlations as the flow has made them on
its way from those of the forecast. Few members are too narrow: where the flow ends, 20 for a scalar have 0.94 of the
standard deviation of the Kalman filter, 80 have 0.96, and 320 have 0.98. An end at the default ``tolerance`` leaves out
about a twentieth of what the mean has to move with few members, more with many.

What flows between modes far apart is little, since the flow is proportional to the density: the members in each are
those that were on its side of the crest early on.

References
----------
.. [1] Hu, C.-C. & van Leeuwen, P. J. (2021). A particle flow filter for high-dimensional system applications.
   doi:10.1002/qj.4028
.. [2] Pulido, M. & van Leeuwen, P. J. (2019). Sequential Monte Carlo with kernel embedded mappings: the mapping
   particle filter. doi:10.1016/j.jcp.2019.06.060
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import Forecast, LocalFilter, Update
from sdaxr.filters.flows import Tangent, replaced
from sdaxr.filters.localisation import Points
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import OptionError
from sdaxr.states.validation import Positive, ShareBelowOne, Steps

_log = logging.getLogger(__name__)

# Eigenvectors of B with less of the largest eigenvalue are noise of the estimate: no member moves along them.
_LEAST = 1e-5
# Length of a step at which the flow ends: shorter ones do not move the members.
_SHORTEST = 1e-6
# Largest change of an element in a step, in standard deviations of the forecast.
_FARTHEST = 0.5
# Numbers of the largest array of the kernel, members times members times elements: 64 MB.
_NUMBERS = 8_000_000


@dataclass(frozen=True)
class PFF(LocalFilter):
    r"""Particle flow filter (Hu & van Leeuwen 2021, doi:10.1002/qj.4028).

    Any system, operators of any kind, errors of any family. The forecast is taken as Gaussian. What the members become
    as their number grows depends on the kernel (`sdaxr.filters.pff`).

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    localisation
        Half of the distance at which covariances of the forecast vanish, in the units of the coordinates, km on the
        sphere (`sdaxr.filters.localisation`). None: they are those of the ensemble.
    kernel
        ``"matrix"``, one for each element, or ``"scalar"``, one for the whole state.
    width
        Square of the width of the kernel over the variance of the forecast, :math:`\alpha`. None: one over the number
        of members.
    steps
        Most steps of the flow.
    step
        Length of the first step.
    tolerance
        The flow ends where it is less than this fraction of that at the start.
    """

    name: ClassVar[str] = "pff"
    gaussian: ClassVar[bool] = False
    transfers: ClassVar[bool] = False

    kernel: str = "matrix"
    width: Positive | None = None
    steps: Steps = 150
    step: Positive = 0.05
    tolerance: ShareBelowOne = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("kernel", self.kernel in ("matrix", "scalar"), "'matrix' or 'scalar'")

    def points(self, model: StateSpaceModel) -> Points | None:
        """Where the points of the grid are; an error beside scalars, whose tapered covariances would be none."""
        found = super().points(model)
        if found is not None and found.scalars:
            raise OptionError(
                f"localisation= of method={self.name!r} is for fields alone, found {found.scalars} scalars beside them "
                f"in the state of {model.system.name}; leave localisation= out, or take method='letkf'"
            )
        return found

    def analyse(self, forecast: Forecast) -> Update:
        """The ensemble is replaced by that at the end of the flow."""
        states = forecast.states
        prior = Covariance.of(states, forecast.points, self.localisation)
        centre, width = states.mean(0), 1 / len(states) if self.width is None else self.width

        def flow(x: np.ndarray) -> np.ndarray:
            gradient = Tangent(forecast.observation, x).gradient() - prior.solve(x - centre)
            if self.kernel == "scalar":
                return scalar_flow(x, gradient, prior, width)
            return matrix_flow(x, gradient, width * prior.variances)

        return replaced(self.moved(states, flow, prior))

    def moved(self, x: np.ndarray, flow: Callable[[np.ndarray], np.ndarray], prior: Covariance) -> np.ndarray:
        """The members at the end of the flow, (members, n)."""
        spread, length, since = np.sqrt(prior.variances), self.step, 0
        # An element without variance does not move, in whatever unit.
        unit = np.where(spread > 0, spread, 1.0)
        drift = flow(x)
        size = first = _size(drift * spread)
        for _ in range(self.steps):
            if length < _SHORTEST or size <= self.tolerance * first:
                break
            moving = prior.times(drift)
            there = x + min(length, _FARTHEST / max(np.abs(moving / unit).max(), _SHORTEST)) * moving
            with np.errstate(over="ignore", invalid="ignore"):
                following = flow(there)
                larger = _size(following * spread)
            if not larger <= 1.02 * size:  # what is not finite is larger, too
                length, since = length / 1.5, 0
                continue
            x, drift, size, since = there, following, larger, since + 1
            if since > 7:
                length, since = 1.5 * length, 0
        else:
            _log.debug("the flow of pff is %.3g of that at the start after %d steps", size / first, self.steps)
        return x


@dataclass(frozen=True)
class Covariance:
    """The covariance B of a forecast by its eigenvectors.

    Attributes
    ----------
    vectors
        Shape (n, k).
    values
        Eigenvalues, shape (k,).
    """

    vectors: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, points: Points | None, half: float | None) -> Covariance:
        """The covariance of members (members, n), tapered where there are ``points`` and ``half``."""
        away = (states - states.mean(0)) / np.sqrt(len(states) - 1)
        if points is None or half is None:
            _, roots, rows = np.linalg.svd(away, full_matrices=False)
            values, vectors = roots**2, rows.T
        else:
            taper = points.spread(points.spread(points.tapers(points.places, half)).T)
            values, vectors = np.linalg.eigh(taper * (away.T @ away))
        kept = values > _LEAST * values.max(initial=0.0)
        return cls(vectors[:, kept], values[kept])

    @property
    def variances(self) -> np.ndarray:
        """The diagonal of B, shape (n,)."""
        variances: np.ndarray = (self.vectors**2) @ self.values
        return variances

    def times(self, x: np.ndarray) -> np.ndarray:
        """B times vectors (..., n)."""
        product: np.ndarray = (x @ self.vectors) * self.values @ self.vectors.T
        return product

    def solve(self, x: np.ndarray) -> np.ndarray:
        """The pseudo-inverse of B times vectors (..., n)."""
        solved: np.ndarray = (x @ self.vectors) / self.values @ self.vectors.T
        return solved


def matrix_flow(x: np.ndarray, gradient: np.ndarray, widths: np.ndarray) -> np.ndarray:
    r"""I(x) of a kernel for each element at the members, (members, n).

    Parameters
    ----------
    x, gradient
        Members and :math:`\nabla \log p(x | y)` there, shape (members, n).
    widths
        :math:`\alpha B_{aa}`, shape (n,). Elements without variance do not move.
    """
    found = np.zeros_like(x)
    size = max(1, _NUMBERS // len(x) ** 2)
    there = np.flatnonzero(widths > 0)
    for first in range(0, len(there), size):
        part = there[first : first + size]
        apart = x[:, None, part] - x[:, part]
        kernel = np.exp(-(apart**2) / (2 * widths[part]))
        drawn = np.einsum("ija,ja->ia", kernel, gradient[:, part])
        found[:, part] = (drawn + (kernel * apart).sum(1) / widths[part]) / len(x)
    return found


def scalar_flow(x: np.ndarray, gradient: np.ndarray, prior: Covariance, width: float) -> np.ndarray:
    r"""I(x) of a kernel for the whole state at the members, (members, n).

    Parameters
    ----------
    x, gradient
        As of `matrix_flow`.
    prior, width
        B and :math:`\alpha`.
    """
    solved = prior.solve(x)
    products = x @ solved.T
    squares = products.diagonal()[:, None] + products.diagonal() - 2 * products
    kernel = np.exp(-squares.clip(min=0.0) / (2 * width))
    apart = kernel.sum(1)[:, None] * solved - kernel @ solved
    flow: np.ndarray = (kernel @ gradient + apart / width) / len(x)
    return flow


def _size(drift: np.ndarray) -> float:
    return float(np.sqrt((drift**2).mean()))
