r"""Local ensemble transform Kalman filter: the analysis of each point, with the observations near it.

At each point of the grid, the analysis of `sdaxr.filters.etkf` is made with observations whose errors grow with the
distance, :math:`R_{jj} / \rho_j` with the taper :math:`\rho` of `sdaxr.filters.localisation` (Hunt, Kostelich &
Szunyogh 2007): beyond its support they do not act. All values at a point (variables and layers) share the weights of
the members, which vary smoothly from point to point. Points are independent of each other: their transforms are
computed in batches.

References
----------
.. [1] Hunt, B. R., Kostelich, E. J. & Szunyogh, I. (2007). Efficient data assimilation for spatiotemporal chaos: a
   local ensemble transform Kalman filter. doi:10.1016/j.physd.2006.11.008
.. [2] Ott, E. et al. (2004). A local ensemble Kalman filter for atmospheric data assimilation.
   doi:10.3402/tellusa.v56i5.14462
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import Forecast, LocalFilter, Update, check_independent
from sdaxr.filters.etkf import rotated, transform
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import OptionError
from sdaxr.states.validation import Positive

# Numbers of the largest array of a batch of points, members times members or times near observations: 64 MB.
_NUMBERS = 8_000_000


@dataclass(frozen=True)
class LETKF(LocalFilter):
    r"""Local ensemble transform Kalman filter (Hunt, Kostelich & Szunyogh 2007, doi:10.1016/j.physd.2006.11.008).

    At each point, the analysis of `ETKF` with the errors :math:`R_{jj} / \rho_j`. Any system with space, operators of
    any kind, independent Gaussian errors.

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    localisation
        Half of the distance beyond which observations do not act, in the units of the coordinates, km on the sphere
        (`sdaxr.filters.localisation`). It has to be given.
    rotation
        Whether the deviations are rotated at random after each analysis, at all points alike.
    finite_size
        How sure the hyperprior of the finite-size filter is, which inflates before the analysis at each point
        (`sdaxr.filters.inflation`). None: no such inflation.
    """

    name: ClassVar[str] = "letkf"

    rotation: bool = False
    finite_size: Positive | None = None

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if there is no localisation, errors are not independent, or as the base class."""
        if self.localisation is None:
            raise OptionError(
                f"method={self.name!r} needs localisation=, half of the distance beyond which observations do not act, "
                "found none; give it in the units of the coordinates, or take method='etkf'"
            )
        check_independent(model, self.name)
        super().check(model, members)

    def analyse(self, forecast: Forecast) -> Update:
        """Linear combinations of the members at each point."""
        points = forecast.points
        if points is None or self.localisation is None:
            raise OptionError(f"method={self.name!r} needs localisation= and the points of the grid, found none")
        deviations, innovation = forecast.whitened
        weights = local_transforms(deviations, innovation, self.weights(forecast), self.finite_size)
        if self.rotation:
            weights = rotated(weights, forecast.random)

        def update(states: np.ndarray) -> np.ndarray:
            fields, scalars = np.split(states, [points.channels * points.count], axis=-1)
            at_points = fields.reshape(*states.shape[:-1], points.channels, points.count)
            moved: np.ndarray = np.einsum("pij,...jcp->...icp", weights[: points.count], at_points, optimize=True)
            others = np.einsum("pij,...jp->...ip", weights[points.count :], scalars, optimize=True)
            return np.concatenate([moved.reshape(fields.shape), others], axis=-1)

        return update


def local_transforms(
    deviations: np.ndarray, innovation: np.ndarray, tapers: np.ndarray, finite_size: float | None = None
) -> np.ndarray:
    """Weights of the members at each point or scalar, (points, members, members).

    Parameters
    ----------
    deviations, innovation
        Y, (members, m), and d, (m,), in units of the errors.
    tapers
        Taper of each observation at each point, (points, m).
    finite_size
        As of `LETKF`.
    """
    members = len(deviations)
    weights = np.broadcast_to(np.eye(members), (len(tapers), members, members)).copy()
    near = np.count_nonzero(tapers, axis=1)
    # Points with about as many observations nearby are one batch, which holds no more than the nearest of them.
    order = np.flatnonzero(near)[np.argsort(near[np.flatnonzero(near)], kind="stable")]
    first = 0
    while first < len(order):
        size = max(1, _NUMBERS // (members * max(members, int(near[order[first]]))))
        batch = order[first : first + size]
        most = int(near[batch].max())
        chosen = np.argpartition(-tapers[batch], most - 1, axis=1)[:, :most]
        roots = np.sqrt(np.take_along_axis(tapers[batch], chosen, axis=1))
        seen = deviations.T[chosen].swapaxes(1, 2) * roots[:, None]
        weights[batch] = transform(seen, innovation[chosen] * roots, finite_size)
        first += size
    return weights
