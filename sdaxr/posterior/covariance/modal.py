r"""Covariance of trajectories of fields given z, mode by mode.

.. math:: \mathrm{Cov}[x_m(t), x_m(t') | z] = q \frac{S_m r^2}{S_m + r^2} \rho^{|t - t'|}

The file of a prior of fields contains the modes m of the fields and their variances :math:`S_m` (`sdaxr.prior.modes`).
For a Gaussian prior with these variances, mode m has the variance :math:`S_m r^2 / (S_m + r^2)` given z. The network
differs from a Gaussian prior. Two numbers correct for the difference. They are measured on held-out windows, at each
noise level, over bands of modes of about the same wavenumber (`sdaxr.posterior.covariance.ratios`):

- the variance ratio :math:`q`, the mean square of :math:`x_m - \hat x_m` over the Gaussian variance, or that of the
  network's Jacobian where this is larger;
- the temporal correlation :math:`\rho` of :math:`x_m - \hat x_m` between consecutive states.

Some priors of windows know modes in time, too. The variances of these modes are measured instead, and treated as
uncorrelated. Then no temporal correlation is fitted, and modes of high frequency keep their small variances.

Where the network is silent, q = 1 and :math:`\rho = 0`, and guidance is exact.

Neighbouring observations have correlated uncertainties given z, above all at large r, where only the largest scales are
known. Guidance that treats them as independent counts the same information many times, and overshoots.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance, given_noise
from sdaxr.posterior.covariance.ratios import Errors
from sdaxr.posterior.covariance.statistical import linearise
from sdaxr.posterior.covariance.unresolved import place_of
from sdaxr.posterior.linear import Likelihood, Linearised, residual, solve
from sdaxr.prior.files import Prior
from sdaxr.prior.held_out import HeldOut
from sdaxr.prior.modes import Modes

# The covariance is accurate to a few percent in the mean over a band. This fraction of the measured variance of each
# observation is treated as independent of all others. It bounds the condition of the system, and so the number of steps
# of conjugate gradients, and keeps forecasts stable, where whole states are observed almost exactly. It stands on the
# right side of the gain alone: too large a fraction leaves observations unused. Where one point in a hundred of a
# quasi-geostrophic flow is observed, 0.05 left normalised residuals of 1.08 and 1.20, 0.02 of 1.02 and 1.11, 0.01 of
# 1.00 and 1.07; the steps grow by a quarter from 0.05 to 0.02, and by a sixth from there to 0.01.
_INDEPENDENT = 0.02
# Conjugate gradients stop at this residual, relative to the innovations. With dense observations, a tenth takes a third
# less time than convergence to rounding, at the same scores.
_TOLERANCE = 0.1
# Number of pairs of draws for the expectation of an operator that does not act on each value by itself.
_PAIRS = 4


@dataclass(frozen=True)
class ModalCovariance(StateCovariance):
    """Cov[x | z] of trajectories (time, channel, *space).

    Attributes
    ----------
    modes
        Modes of a state, with their variances S, shape (*wavenumbers, n).
    bands
        Index of the band of each wavenumber, shape (*wavenumbers,).
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    variance_ratio, temporal_correlation
        q and rho of each noise level and band, shape (level, band).
    """

    modes: Modes
    bands: Tensor
    levels: tuple[float, ...]
    variance_ratio: Tensor
    temporal_correlation: Tensor
    # Whether the denoiser is that of the Gaussian process of the modes, so that this covariance is exact.
    exact: bool = field(default=False, kw_only=True)

    # A part of the measured variance of each observation is taken for its own, see `_INDEPENDENT`.
    measured: ClassVar[bool] = True

    @classmethod
    def of_prior(cls, prior: Prior, device: torch.device) -> ModalCovariance | None:
        """The covariance of a prior; None where the prior does not know the modes of its states."""
        return cls.of_patch(prior, device) if prior.patches is None else None

    @classmethod
    def of_patch(cls, prior: Prior, device: torch.device) -> ModalCovariance | None:
        """The covariance on one patch of a prior of patches, else that of the prior; None where modes are not known."""
        modes = prior.network.to(device).modes
        if not isinstance(modes, Modes):
            return None
        kind = cls if modes.window is None else WindowCovariance
        if prior.network.silent:
            return kind.gaussian(modes)
        windows = prior.held_out(device) if prior.patches is None else prior.held_out_windows(device)
        return kind.measure(modes, windows)

    @classmethod
    def gaussian(cls, modes: Modes) -> ModalCovariance:
        """The covariance of the Gaussian process of the modes: q = 1 and rho = 0."""
        bands = bands_of(modes)
        ones = modes.variances.new_ones(2, int(bands.max()) + 1)
        return cls(modes, bands, (1.0, 2.0), ones, 0 * ones, exact=True)

    @classmethod
    def measure(cls, modes: Modes, held_out: HeldOut) -> ModalCovariance:
        """Measure q and rho on held-out windows."""
        # The correlation is measured at a lag of half a window; rho is its value per step.
        lag, bands, rows = max(1, held_out.states.shape[1] // 2), bands_of(modes), []
        for number in range(len(held_out.levels)):
            errors = Errors.of(held_out, number, modes, modes.variances, bands)
            rows.append((errors.ratio(), errors.correlation(lag) ** (1 / lag)))
        ratio, correlation = (torch.stack(row) for row in zip(*rows, strict=True))
        return cls(modes, bands, held_out.levels, ratio, correlation)

    def weights(self, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
        """The residual, and the weights w of the analysis step in units of the errors, (batch, n).

        Nonlinear operators are linearised statistically (`sdaxr.posterior.covariance.statistical`). Where the
        covariance is exact and the system is solved directly, no variance of each observation is treated as
        independent; else see `modal_weights`.
        """
        matrix = likelihood.matrix(xhat) if self.exact else None
        if matrix is not None:
            around = residual(likelihood.matched(xhat, r), xhat)
            return around, solve(around, lambda u: self.product(u, r), matrix)
        return modal_weights(self, likelihood, xhat, r)

    def product_everywhere(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), at all times and channels."""
        return self._product(u, r, everywhere=True)

    def product(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), at the times and channels where u is not zero."""
        return self._product(u, r, everywhere=False)

    def _product(self, u: Tensor, r: float, *, everywhere: bool) -> Tensor:
        size = u.flatten(3).abs().amax((0, 3)) if u.ndim > 3 else u.abs().amax(0)
        (times,), (channels,) = (torch.nonzero((size.amax(d) > 0) | everywhere, as_tuple=True) for d in (1, 0))
        parts = self.modes(u.index_select(1, times).index_select(2, channels), channels)
        found = self.modes.inverse(self._modal_product(parts, r, times, u.shape[1]), channels).to(u.dtype)
        return torch.zeros_like(u).index_copy_(1, times, _placed(found, channels, u.shape[2]))

    def _modal_product(self, parts: Tensor, r: float, times: Tensor, length: int) -> Tensor:
        """The covariance times modes (batch, times, *wavenumbers, n), at these times of a trajectory of this length."""
        del length  # This covariance does not depend on the length.
        ratio, correlation = self._at(r)
        variances = self.modes.variances
        parts = parts * (ratio[self.bands, None] * given_noise(variances, r))
        decay = correlation[self.bands, None] ** times.diff().reshape(-1, *[1] * variances.ndim)
        # Sums with the weights rho^|t - t'| over all earlier times and over all later times, by recursion: the cost is
        # linear in the number of times.
        earlier, later = list(parts.unbind(1)), list(parts.unbind(1))
        for i in range(1, len(times)):
            earlier[i] = earlier[i] + decay[i - 1] * earlier[i - 1]
            later[-1 - i] = later[-1 - i] + decay[-i] * later[-i]
        return torch.stack(earlier, 1) + torch.stack(later, 1) - parts

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space); r determines the random numbers."""
        ratio, correlation = self._at(r)
        variances = self.modes.variances
        fresh = torch.randn(count, shape[0], *variances.shape, generator=self._seed(r)).to(variances)
        rho = correlation[self.bands, None]
        parts = list(fresh.unbind(1))
        for before, after in pairwise(range(shape[0])):
            parts[after] = rho * parts[before] + (1 - rho.square()).sqrt() * parts[after]
        scale = (ratio[self.bands, None] * given_noise(variances, r)).sqrt()
        return self.modes.inverse(scale * torch.stack(parts, dim=1))

    def spread(self, noise: Tensor, r: float) -> Tensor:
        """Draws of independent states from standard normal noise (batch, time, channel, *space), with q and no rho."""
        scale = (self._at(r)[0][self.bands, None] * given_noise(self.modes.variances, r)).sqrt()
        return self.modes.inverse(scale * self.modes(noise))

    @staticmethod
    def _seed(r: float) -> torch.Generator:
        return torch.Generator().manual_seed(int.from_bytes(struct.pack("<d", r), "little") % 2**63)

    def _at(self, r: float) -> tuple[Tensor, Tensor]:
        """q and rho of the bands at the noise level r, interpolated in log r."""
        lower, part = place_of(r, self.levels)
        ratio = torch.lerp(self.variance_ratio[lower].log(), self.variance_ratio[lower + 1].log(), part).exp()
        return ratio, torch.lerp(self.temporal_correlation[lower], self.temporal_correlation[lower + 1], part)


@dataclass(frozen=True)
class WindowCovariance(ModalCovariance):
    """Cov[x | z] of windows with known modes in time; trajectories of another length are as in `ModalCovariance`.

    Attributes
    ----------
    high_frequency_ratio
        q of each noise level, cosine in time and band, shape (level, window, band).
    """

    high_frequency_ratio: Tensor

    @classmethod
    def measure(cls, modes: Modes, held_out: HeldOut) -> WindowCovariance:
        """Measure q on held-out windows."""
        found, rows = ModalCovariance.measure(modes, held_out), []
        for number in range(len(held_out.levels)):
            errors = Errors.of(held_out, number, lambda x: modes(modes.in_time(x)), modes.spectrum, found.bands)
            rows.append(torch.stack([each.ratio() for each in errors.by_time()]))
        ratio = torch.stack(rows)
        return cls(modes, found.bands, found.levels, found.variance_ratio, found.temporal_correlation, ratio)

    @classmethod
    def gaussian(cls, modes: Modes) -> WindowCovariance:
        """The covariance of the Gaussian process of the modes: q = 1 for windows, and for other lengths, too."""
        found = ModalCovariance.gaussian(modes)
        ones = found.variance_ratio[:, None].expand(-1, len(modes.spectrum), -1)
        return cls(modes, found.bands, found.levels, found.variance_ratio, found.temporal_correlation, ones, exact=True)

    def _modal_product(self, parts: Tensor, r: float, times: Tensor, length: int) -> Tensor:
        """The covariance times modes (batch, times, *wavenumbers, n), at these times of a trajectory of this length."""
        if length != self.modes.window:
            return super()._modal_product(parts, r, times, length)
        cosines = self.modes.cosines[:, times]
        in_time = torch.einsum("ft,bt...->bf...", cosines, parts)
        return torch.einsum("ft,bf...->bt...", cosines, in_time * self._variances(r))

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space); r determines the random numbers."""
        if shape[0] != self.modes.window:
            return super().draw(shape, r, count)
        variances = self._variances(r)
        fresh = torch.randn(count, *variances.shape, generator=self._seed(r)).to(variances)
        return self.modes.states(self.modes.inverse(variances.sqrt() * fresh))

    def spread(self, noise: Tensor, r: float) -> Tensor:
        """Draws of windows from standard normal noise (batch, time, channel, *space)."""
        modes = self.modes(self.modes.in_time(noise))
        return self.modes.states(self.modes.inverse(self._variances(r).sqrt() * modes))

    def _variances(self, r: float) -> Tensor:
        """Variances of the modes in space and time given z, (window, *wavenumbers, n)."""
        lower, part = place_of(r, self.levels)
        table = self.high_frequency_ratio
        ratio = torch.lerp(table[lower].log(), table[lower + 1].log(), part).exp()
        spectrum = self.modes.spectrum
        return ratio[:, self.bands, None] * given_noise(spectrum, r)


class Drawable(Protocol):
    """A covariance of states given z from which deviations can be drawn."""

    def product(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space)."""
        ...

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space)."""
        ...


def modal_weights(covariance: Drawable, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
    """The weights w of the analysis step in units of the errors, (batch, n), and the residual that they belong to.

    The residual is -e, linearised around xhat; w = (I + diag(own) + G Cov[x | z] G^T)^-1 e, see
    `sdaxr.posterior.linear`. ``own`` is the variance of each observation that is treated as independent.
    """
    matched, linear = likelihood.matched(xhat, r), likelihood.linear(xhat)
    measured = [0 * o.errors if o.unresolved is None else o.unresolved(r) for o in matched]
    parts = [v / o.errors.square() for v, o in zip(measured, matched, strict=True)]
    expected = torch.cat([part.expand(len(xhat), -1) for part in parts], dim=1)
    own = _INDEPENDENT * expected
    if all(linear):
        around = residual(matched, xhat)
    else:
        around, missed = linearise(matched, linear, xhat, covariance.draw(xhat.shape[1:], r, _PAIRS))
        own = own + missed
    return around, solve(
        around, lambda u: covariance.product(u, r), None, own=own, tolerance=_TOLERANCE, expected=expected
    )


def bands_of(modes: Modes) -> Tensor:
    """Index of the band of each wavenumber, (*wavenumbers,); a band is one wavenumber of the longest side wide."""
    shape = modes.variances.shape[:-1]
    axes = [torch.arange(n, dtype=torch.float64) * max(shape) / n for n in shape]
    square = torch.zeros(shape, dtype=torch.float64)
    for axis in torch.meshgrid(*axes, indexing="ij") if axes else ():
        square = square + axis.square()
    return square.sqrt().round().long().to(modes.variances.device)


def _placed(x: Tensor, channels: Tensor, count: int) -> Tensor:
    """x (batch, time, channel, *space) at its channels among ``count`` channels; zero at the other channels."""
    if len(channels) == count:
        return x
    return x.new_zeros(*x.shape[:2], count, *x.shape[3:]).index_copy_(2, channels, x)
