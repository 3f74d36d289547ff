r"""Adaptive inflation of the ensembles that are carried from window to window, by what the observations say of them.

An ensemble of N members with the mean b and the covariance P forecasts the first state of a window, with which the
observations of the window are analysed. If the error of the mean has the covariance :math:`\Delta P'`, with
:math:`P' = (1 + 1 / N) P` because the mean has an error of its own, and the analysis, an ensemble of M members with the
mean a and the covariance A, knows this, then

.. math:: \mathrm{E} |a - b|^2 = \Delta\, \mathrm{tr} P' - \mathrm{tr} A + \mathrm{tr} A / M

(Desroziers et al. 2005, doi:10.1256/qj.05.108). The difference to what is found tells the factor. With the share
:math:`f = 1 - \mathrm{tr} A / (\Delta\, \mathrm{tr} P')` of the variance that observations take away from forecasts,

.. math:: \Delta^o = \Delta + \frac{|a - b|^2 - \mathrm{tr} A / M - (\Delta\, \mathrm{tr} P' - \mathrm{tr} A)}
                                   {f^2\, \mathrm{tr} P'}, \qquad
          v^o = \frac{2}{n} \left(\frac{\Delta}{f}\right)^2, \qquad n = \frac{(\mathrm{tr} P)^2}{\mathrm{tr} P^2}

are the unbiased estimate from the innovations of the window, and its variance (Miyoshi 2011,
doi:10.1175/2010MWR3570.1), without the innovations themselves: where a single quantity is observed with the gain f,
these are the same numbers. What stands in the denominators is a mean over the windows so far, since a few members know
it badly. A scalar Kalman filter, whose state is the factor, keeps the memory of the windows before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

ADAPTIVE = "adaptive"
"""The word in the place of a factor."""

# Variance of the factor before the first window, and what is added from each window to the next.
_FIRST, _DRIFT = 0.5**2, 0.05**2
# What the windows before count in the means over windows, from each window to the next.
_KEPT = 0.95
# A smaller share of the variance says nothing about the factor.
_TOLD = 0.02
# The factors on the variance between which an ensemble is still a forecast.
_SMALLEST, _LARGEST = 0.25, 100.0


@dataclass(frozen=True)
class AdaptiveFactor:
    """The factor on the variance of a forecast that is carried to the next window.

    Attributes
    ----------
    value
        The factor.
    variance
        Variance of its error.
    sums
        Over the windows before, with less weight for older ones: one, tr P', the same with the factor, tr A, and 1/n.
    """

    value: float = 1.0
    variance: float = _FIRST
    sums: np.ndarray = field(default_factory=lambda: np.zeros(5))

    def after(self, forecast: np.ndarray, analysis: np.ndarray) -> AdaptiveFactor:
        """The factor for the next window.

        Parameters
        ----------
        forecast
            Members of the first state of a window before the factor, in units of the climate, shape (N, n).
        analysis
            Members of this state given the observations of the window, with the factor, shape (M, n).
        """
        away = forecast - forecast.mean(0)
        products = away @ away.T / (len(forecast) - 1)
        before, left = (1 + 1 / len(forecast)) * products.trace(), analysis.var(0, ddof=1).sum()
        widths = (products**2).sum() / max(products.trace() ** 2, np.finfo(float).tiny)
        sums = _KEPT * self.sums + np.array([1, before, self.value * before, left, widths])
        count, size, wide, narrow, fewness = sums
        told = 1 - narrow / max(wide, np.finfo(float).tiny)
        later = replace(self, sums=sums, variance=self.variance + _DRIFT)
        if not told > _TOLD:
            return later
        moved = ((analysis.mean(0) - forecast.mean(0)) ** 2).sum() - left / len(analysis)
        change = (moved - (self.value * before - left)) * count / (told**2 * size)
        gain = later.variance / (later.variance + 2 * fewness / count * (self.value / told) ** 2)
        value = float(np.clip(self.value + gain * change, _SMALLEST, _LARGEST))
        return replace(later, value=value, variance=(1 - gain) * later.variance)
