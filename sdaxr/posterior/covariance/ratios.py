r"""The variance of modes given z over that of a Gaussian prior: the number q of `sdaxr.posterior.covariance.modal`.

.. math:: \hat x + r^2 J^T H^T (R + H V H^T)^{-1} (y - H \hat x), \qquad J = d \hat x / d z

is the analysis of a method whose gradient goes through the network. By Tweedie's formula :math:`r^2 J` is a covariance
of x given z: the network's. The factor of :math:`y - H \hat x` is a gain only if V is the same covariance. Otherwise
the analysis is off by the factor :math:`r^2 J / V` in each mode that the observations determine. Held-out windows
:math:`z = x + r \epsilon` give two measurements of V.

- From the Jacobian, by Stein's identity (1981, doi:10.1214/aos/1176345632):
  :math:`r^2 E[J_{mm}] = r E[\epsilon_m \hat x_m]`. The Jacobian of the prior's Wiener filter is known, so that only
  what the network adds to the filter is measured. A network that adds nothing has q = 1, without sampling error.
- From the errors :math:`x_m - \hat x_m`. Their mean square equals the first one if the network is a posterior mean, and
  the held-out windows are as variable as the training data: if they have a fifth of the variance, q is a fifth where
  little is known. With the independent numbers n of a band (windows, states and modes) the relative standard error is
  :math:`\sqrt{2 / n}`, also where the first one is uncertain: in modes with variances far below :math:`r^2`.

`settled` takes the second one where the first one does not contradict it by more than two standard errors. Where
it does, and is the larger one, the first one counts: too small a V lets the analysis overshoot, too large a V only
leaves some of the observations unused. Smaller variances from the Jacobian, which is not a covariance in each mode by
itself, tripled the errors of forecasts with the shipped prior of Kolmogorov flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.covariance.base import given_noise
from sdaxr.prior.held_out import HeldOut

# Bounds of q: a covariance is positive, and in some bands the held-out windows have almost no variance.
_RATIOS = (1e-3, 10.0)
# Standard errors by which the two measurements have to differ: with one, the second one would count by chance in every
# third of a thousand bands and levels.
_ERRORS = 2.0
# Correlation above which errors do not count: each state keeps some error of its own.
_LARGEST = 0.95


@dataclass(frozen=True)
class Errors:
    """Errors of the estimate of held-out windows at one noise level, mode by mode.

    Attributes
    ----------
    error, noise, added
        Modes of :math:`x - \\hat x`, of :math:`r \\epsilon`, and of what the network adds to the Wiener filter, all of
        the shape (window, time, *wavenumbers, n).
    variances
        Variances of the modes given z for a Gaussian prior, of that shape, too.
    bands
        Index of the band of each wavenumber, (*wavenumbers,).
    """

    error: Tensor
    noise: Tensor
    added: Tensor
    variances: Tensor
    bands: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, held_out: HeldOut, number: int, to_modes: Callable[[Tensor], Tensor], variances: Tensor, bands: Tensor
    ) -> Errors:
        """The errors at one of the noise levels.

        Parameters
        ----------
        held_out, number
            Held-out windows, and the number of the level.
        to_modes
            Modes of states (window, time, channel, *space).
        variances
            Variances of the modes, which broadcast against them.
        bands
            Index of the band of each wavenumber.
        """
        r = held_out.levels[number]
        true, noise, found = (to_modes(x) for x in (held_out.states, r * held_out.noise, held_out.denoised[number]))
        added = found - variances / (variances + r**2) * (true + noise)
        return cls(true - found, noise, added, given_noise(variances, r).expand_as(true), bands)

    def by_time(self) -> list[Errors]:
        """Those of each time by itself."""
        parts = (x.split(1, dim=1) for x in (self.error, self.noise, self.added, self.variances))
        return [Errors(e, n, a, v, self.bands) for e, n, a, v in zip(*parts, strict=True)]

    def ratio(self) -> Tensor:
        """q of each band, (band,)."""
        expected = self._total(self.variances).clamp_min(1e-30)
        products = self.noise * self.added
        claimed = 1 + self._total(products) / expected
        error = self._total(products.square()).sqrt() / expected
        measured = self._total(self.error.square()) / expected
        return settled(measured.clamp(*_RATIOS), claimed.clamp(*_RATIOS), error)

    def correlation(self, lag: int) -> Tensor:
        """Correlation of the errors at a lag in time, of each band, (band,)."""
        count = self.error.shape[1] - lag
        pairs = self._total(torch.ones_like(self.error[:, :count])).clamp_min(1.0)
        of_errors = self._total(self.error[:, lag:] * self.error[:, :count]) / pairs
        square = self._total(self.error.square()) / self._total(torch.ones_like(self.error)).clamp_min(1.0)
        # Two standard errors are subtracted: independent errors get the correlation zero.
        return (of_errors / square.clamp_min(1e-30) - 2 / pairs.sqrt()).clamp(0.0, _LARGEST)

    def _total(self, values: Tensor) -> Tensor:
        return pooled(values.sum((0, 1, -1)), self.bands)


def settled(measured: Tensor, claimed: Tensor, error: Tensor) -> Tensor:
    r"""Of two measurements, the first one, moved up to the second as far as this is certain.

    With the difference d and two standard errors e of the second one, the weight of the second one is
    :math:`\max(0, 1 - e^2 / d^2)`, as in the positive-part estimate of James & Stein (1961).
    """
    square = (claimed - measured).square()
    weight = 1 - (_ERRORS * error).square() / square.clamp_min(1e-30)
    return torch.where(claimed > measured, torch.lerp(measured, claimed, weight.clamp_min(0.0)), measured)


def pooled(values: Tensor, bands: Tensor) -> Tensor:
    """Totals of values (*wavenumbers) over each band, (band,)."""
    return values.new_zeros(int(bands.max()) + 1).index_add_(0, bands.flatten(), values.flatten())
