r"""Serial ensemble square root filter: one observation after another, without perturbed observations.

For an observation with the error variance r, the innovation d and the deviations h of the predicted quantity, with the
variance :math:`s^2 = h^T h / (N - 1)` (Whitaker & Hamill 2002),

.. math::
    K = \rho \circ \frac{X^T h}{(N - 1)(s^2 + r)}, \qquad \bar x \leftarrow \bar x + K d, \qquad
    X \leftarrow X - \alpha\, h K^T, \qquad \alpha = \left(1 + \sqrt{r / (s^2 + r)}\right)^{-1} .

The predicted quantities of the observations that follow change in the same way. Without localisation the mean and the
covariance are those of the Kalman filter for the covariance of the ensemble; with localisation the result depends on
the order of the observations, which is that of the networks.

References
----------
.. [1] Whitaker, J. S. & Hamill, T. M. (2002). Ensemble data assimilation without perturbed observations.
   doi:10.1175/1520-0493(2002)130<1913:EDAWPO>2.0.CO;2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import Forecast, LocalFilter, Update, check_independent
from sdaxr.filters.state_space import StateSpaceModel


@dataclass(frozen=True)
class EnSRF(LocalFilter):
    r"""Serial square root filter (Whitaker & Hamill 2002, doi:10.1175/1520-0493(2002)130<1913:EDAWPO>2.0.CO;2).

    .. math:: \bar x \leftarrow \bar x + K d, \qquad X \leftarrow X - \alpha\, h K^T

    Any system, operators of any kind, independent Gaussian errors. Every observation costs a regression on the whole
    state: for many observations `LETKF` is faster.

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    localisation
        Half of the distance beyond which observations do not act, in the units of the coordinates, km on the sphere
        (`sdaxr.filters.localisation`). None: they act everywhere.
    """

    name: ClassVar[str] = "ensrf"

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if errors are not independent, or as the base class."""
        check_independent(model, self.name)
        super().check(model, members)

    def analyse(self, forecast: Forecast) -> Update:
        """Regressions on one predicted quantity after another."""
        deviations, innovation = forecast.whitened
        taper, among = self.tapers(forecast)
        steps = []
        predicted, left = deviations.copy(), innovation.copy()
        for number in range(len(left)):
            h, d = predicted[:, number].copy(), float(left[number])
            steps.append((h, d))
            gain = _gain(predicted, h, _column(among, number))
            left -= gain * d
            predicted -= _shrink(h) * np.outer(h, gain)

        def update(states: np.ndarray) -> np.ndarray:
            mean = states.mean(-2, keepdims=True)
            away = states - mean
            for number, (h, d) in enumerate(steps):
                gain = _gain(away, h, _column(taper, number))
                mean = mean + (gain * d)[..., None, :]
                away = away - _shrink(h) * h[:, None] * gain[..., None, :]
            moved: np.ndarray = mean + away
            return moved

        return update


def _gain(away: np.ndarray, h: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Gain of deviations (..., members, n) for an observation of error variance 1, (..., n)."""
    gain: np.ndarray = taper * (h @ away) / (h @ h + len(h) - 1)
    return gain


def _shrink(h: np.ndarray) -> float:
    """The factor alpha for an observation of error variance 1."""
    return float(1 / (1 + np.sqrt((len(h) - 1) / (h @ h + len(h) - 1))))


def _column(taper: np.ndarray, number: int) -> np.ndarray:
    return taper[..., number] if taper.ndim else taper
