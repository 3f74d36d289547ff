r"""Stochastic ensemble Kalman filter: every member is compared with observations that have errors of their own.

With the deviations X of the members and Y of the predicted quantities H(x), and draws e of the observation errors,

.. math:: x_i \leftarrow x_i + K (y + e_i - H(x_i)), \qquad
          K = \left(\rho \circ \frac{X^T Y}{N - 1}\right) \left(\rho \circ \frac{Y^T Y}{N - 1} + R\right)^{-1} .

The draws of the members have the mean zero. With localisation, the covariances are multiplied, element by element
(Schur), by the taper :math:`\rho` of their distances (Houtekamer & Mitchell 2001); without it, :math:`\rho` is 1.

References
----------
.. [1] Evensen, G. (1994). Sequential data assimilation with a nonlinear quasi-geostrophic model using Monte Carlo
   methods to forecast error statistics. doi:10.1029/94JC00572
.. [2] Burgers, G., van Leeuwen, P. J. & Evensen, G. (1998). Analysis scheme in the ensemble Kalman filter.
   doi:10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2
.. [3] Houtekamer, P. L. & Mitchell, H. L. (2001). A sequential ensemble Kalman filter for atmospheric data
   assimilation. doi:10.1175/1520-0493(2001)129<0123:ASEKFF>2.0.CO;2
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import Forecast, LocalFilter, Update


@dataclass(frozen=True)
class EnKF(LocalFilter):
    r"""Stochastic ensemble Kalman filter (Burgers et al. 1998, doi:10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2).

    .. math:: x_i \leftarrow x_i + K (y + e_i - H(x_i)), \qquad e_i \sim N(0, R)

    Any system, operators of any kind, Gaussian errors, which may be correlated.

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    localisation
        Half of the distance beyond which observations do not act, in the units of the coordinates, km on the sphere
        (`sdaxr.filters.localisation`). None: they act everywhere.
    """

    name: ClassVar[str] = "enkf"

    def analyse(self, forecast: Forecast) -> Update:
        """Linear combinations of the members; with localisation, a gain for each element of the state."""
        noise = forecast.random.standard_normal(forecast.predicted.shape)
        noise -= noise.mean(0)
        taper, among = self.tapers(forecast)
        # The smaller of the two systems of equations: that of the observations, or that of the members.
        if not taper.ndim and noise.shape[1] > len(noise):
            return partial(np.matmul, _weights(*forecast.whitened, noise))
        return _gain_update(forecast, noise, taper, among)


def _weights(deviations: np.ndarray, innovation: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Weights W, (members, members), of the analysis W E; all in units of the errors."""
    members = len(deviations)
    inverse = np.linalg.inv(deviations @ deviations.T + (members - 1) * np.eye(members))
    # Y^T (Y Y^T + (N - 1) I)^-1 is the gain in the space of the members, however many observations there are.
    moved = (innovation + noise - deviations) @ deviations.T @ inverse
    weights: np.ndarray = np.eye(members) + moved - moved.mean(1, keepdims=True)
    return weights


def _gain_update(forecast: Forecast, noise: np.ndarray, taper: np.ndarray, among: np.ndarray) -> Update:
    """The update by a gain whose covariances are tapered, of states (n, m) and of predicted quantities (m, m)."""
    observation, deviations, members = forecast.observation, forecast.deviations, len(noise)
    covariance = observation.errors.covariance
    spread = among * (deviations.T @ deviations) / (members - 1)
    errors = noise @ np.linalg.cholesky(covariance).T
    departures = np.linalg.solve(spread + covariance, (observation.values + errors - forecast.predicted).T)

    def update(states: np.ndarray) -> np.ndarray:
        if states.ndim > 2:  # one time after the other: a gain has the size of state times observations
            return np.stack([update(each) for each in states])
        gain = taper * ((states - states.mean(0)).T @ deviations) / (members - 1)
        moved: np.ndarray = states + (gain @ departures).T
        return moved

    return update
