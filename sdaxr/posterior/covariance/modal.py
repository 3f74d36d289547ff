r"""Covariance of the states of a trajectory of fields given z, mode by mode.

A prior of fields knows their modes and the variances :math:`S_m` of these (`sdaxr.prior.modes`), and so how a Gaussian
prior with these would know them, :math:`S_m r^2 / (S_m + r^2)`. How much more the network knows is measured on the
held-out windows that the prior carries: for modes of about the same wavenumber, the ratio :math:`q` of the mean square
of :math:`x_m - \hat x_m` to that variance, and the correlation :math:`\rho` of these errors from one state to the next,

.. math:: \mathrm{Cov}[x_m(t), x_m(t') | z] = q \frac{S_m r^2}{S_m + r^2} \rho^{|t - t'|} .

Of a prior of windows whose modes in time are known, too, the errors in these modes are measured instead, and taken for
uncorrelated. Then no correlation in time is fitted, and modes of high frequency keep their small variances.

Neighbouring observations have errors in common, above all at large r, where a few of the largest scales are what there
is to know. A guidance that takes them for independent counts the same information many times, and overshoots.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance
from sdaxr.posterior.covariance.statistical import linearise
from sdaxr.posterior.covariance.unresolved import place_of
from sdaxr.posterior.linear import Likelihood, Linearised, residual, solve
from sdaxr.prior.files import Prior
from sdaxr.prior.held_out import HeldOut
from sdaxr.prior.modes import Modes

# The covariance is known to some percent. This part of the measured variance of each observation is taken for its own,
# which bounds the number of steps that conjugate gradients take.
_OWN = 0.05
# The residual that conjugate gradients leave, over the innovations. With a tenth, dense observations take a third less
# time than with rounding only, at the same scores.
_TOLERANCE = 0.1
# Pairs of draws that expectations of operators are taken over which are no functions of each value.
_PAIRS = 4
# Bounds of q, against bands in which the held-out windows have nearly nothing.
_RATIOS = (1e-3, 10.0)


@dataclass(frozen=True)
class ModalCovariance(StateCovariance):
    """Cov[x | z] of trajectories (time, channel, *space).

    Attributes
    ----------
    modes
        Modes of a state.
    bands
        Number of the band of each wavenumber, shape (*wavenumbers,).
    levels
        Noise levels r, increasing, evenly spaced in their logarithm.
    variance_ratio, temporal_correlation
        q and rho by level and band, shape (level, band).
    """

    modes: Modes
    bands: Tensor
    levels: tuple[float, ...]
    variance_ratio: Tensor
    temporal_correlation: Tensor

    # A part of the measured variance of each observation is taken for its own, see `_OWN`.
    measured: ClassVar[bool] = True

    @classmethod
    def of_prior(cls, prior: Prior, device: torch.device) -> ModalCovariance | None:
        """That of a prior; None where it does not know the modes of its states."""
        modes = prior.network.to(device).modes
        if modes is None:
            return None
        kind = cls if modes.window is None else WindowCovariance
        return kind.measure(modes, prior.held_out(device))

    @classmethod
    def measure(cls, modes: Modes, held_out: HeldOut) -> ModalCovariance:
        """Measure q and rho on held-out windows."""
        states = held_out.states
        bands = _bands(modes)
        lag = max(1, states.shape[1] // 2)
        sizes = _pooled(torch.ones(bands.shape, device=states.device), bands, total=True).clamp(min=1)
        rows = []
        for r, denoised in zip(held_out.levels, held_out.denoised, strict=True):
            with torch.no_grad():
                errors = modes(states - denoised)
            left = modes.variances * r**2 / (modes.variances + r**2)
            # Everything but the wavenumbers is pooled.
            over = (0, 1, errors.ndim - 1)
            square = _pooled(errors.square().mean(over), bands)
            later = _pooled((errors[:, lag:] * errors[:, : len(errors[0]) - lag]).sum(over), bands, total=True)
            pairs = sizes * errors.shape[-1] * len(states) * max(1, states.shape[1] - lag)
            # What chance makes of independent errors is no correlation.
            kept = (later / pairs / square - 2 / pairs.sqrt()).clamp(0.0, 0.95)
            rows.append((square / _pooled(left.mean(-1), bands), kept ** (1 / lag)))
        ratio, correlation = (torch.stack(row) for row in zip(*rows, strict=True))
        return cls(modes, bands, held_out.levels, ratio.clamp(*_RATIOS), correlation)

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """H'^T (R + H Cov[x | z] H^T)^-1 (y - H(xhat)); operators that are not linear are linearised statistically."""
        around, weights = self.weights(likelihood, xhat, r)
        return around.adjoint(weights)

    def weights(self, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
        """The residual around xhat, and (R + H Cov[x | z] H^T)^-1 (y - H(xhat)) in units of the errors, (batch, n)."""
        matched, linear = likelihood.matched(xhat, r), likelihood.linear(xhat)
        known = [0 * o.errors if o.unresolved is None else o.unresolved(r) for o in matched]
        parts = [_OWN * v / o.errors.square() for v, o in zip(known, matched, strict=True)]
        own = torch.cat([part.expand(len(xhat), -1) for part in parts], dim=1)
        if all(linear):
            around = residual(matched, xhat)
        else:
            around, missed = linearise(matched, linear, xhat, self.draw(xhat.shape[1:], r, _PAIRS))
            own = own + missed
        return around, solve(around, lambda u: self.given(u, r), None, own=own, tolerance=_TOLERANCE)

    def spread(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), everywhere."""
        return self._times(u, r, everywhere=True)

    def given(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space), at the times and channels where u is not zero."""
        return self._times(u, r, everywhere=False)

    def _times(self, u: Tensor, r: float, *, everywhere: bool) -> Tensor:
        size = u.flatten(3).abs().amax((0, 3)) if u.ndim > 3 else u.abs().amax(0)
        (times,), (channels,) = (torch.nonzero((size.amax(d) > 0) | everywhere, as_tuple=True) for d in (1, 0))
        parts = self.modes(u.index_select(1, times).index_select(2, channels), channels)
        found = self.modes.inverse(self._spread(parts, r, times, u.shape[1]), channels).to(u.dtype)
        return torch.zeros_like(u).index_copy_(1, times, _placed(found, channels, u.shape[2]))

    def _spread(self, parts: Tensor, r: float, times: Tensor, length: int) -> Tensor:
        """The covariance times modes at these times of a trajectory of this length, (batch, times, *wavenumbers, n)."""
        del length  # the same for all
        ratio, correlation = self._at(r)
        variances = self.modes.variances
        parts = parts * (ratio[self.bands, None] * variances * r**2 / (variances + r**2))
        fade = correlation[self.bands, None] ** times.diff().reshape(-1, *[1] * variances.ndim)
        # Sums over all times before and after with the weights rho^|t - t'|, one after the other.
        ahead, behind = list(parts.unbind(1)), list(parts.unbind(1))
        for i in range(1, len(times)):
            ahead[i] = ahead[i] + fade[i - 1] * ahead[i - 1]
            behind[-1 - i] = behind[-1 - i] + fade[-i] * behind[-i]
        return torch.stack(ahead, 1) + torch.stack(behind, 1) - parts

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space); the same ones for the same r."""
        ratio, correlation = self._at(r)
        variances = self.modes.variances
        fresh = torch.randn(count, shape[0], *variances.shape, generator=self._seed(r)).to(variances)
        kept = correlation[self.bands, None]
        parts = list(fresh.unbind(1))
        for before, now in pairwise(range(shape[0])):
            parts[now] = kept * parts[before] + (1 - kept.square()).sqrt() * parts[now]
        scale = (ratio[self.bands, None] * variances * r**2 / (variances + r**2)).sqrt()
        return self.modes.inverse(scale * torch.stack(parts, dim=1))

    @staticmethod
    def _seed(r: float) -> torch.Generator:
        return torch.Generator().manual_seed(int.from_bytes(struct.pack("<d", r), "little") % 2**63)

    def _at(self, r: float) -> tuple[Tensor, Tensor]:
        """q and rho of the bands at level r, interpolated in log r."""
        lower, part = place_of(r, self.levels)
        ratio = torch.lerp(self.variance_ratio[lower].log(), self.variance_ratio[lower + 1].log(), part).exp()
        return ratio, torch.lerp(self.temporal_correlation[lower], self.temporal_correlation[lower + 1], part)


@dataclass(frozen=True)
class WindowCovariance(ModalCovariance):
    """Cov[x | z] of windows whose modes in time are known; longer trajectories are those of `ModalCovariance`.

    Attributes
    ----------
    high_frequency_ratio
        q of the cosines in time, shape (level, window, band).
    """

    high_frequency_ratio: Tensor

    @classmethod
    def measure(cls, modes: Modes, held_out: HeldOut) -> WindowCovariance:
        """Measure q on held-out windows."""
        found = ModalCovariance.measure(modes, held_out)
        rows = []
        for r, denoised in zip(held_out.levels, held_out.denoised, strict=True):
            with torch.no_grad():
                square = modes(modes.in_time(held_out.states - denoised)).square().mean((0, -1))
            left = (modes.spectrum * r**2 / (modes.spectrum + r**2)).mean(-1)
            ratios = [_pooled(a, found.bands) / _pooled(b, found.bands) for a, b in zip(square, left, strict=True)]
            rows.append(torch.stack(ratios))
        ratio = torch.stack(rows).clamp(*_RATIOS)
        return cls(modes, found.bands, found.levels, found.variance_ratio, found.temporal_correlation, ratio)

    def _spread(self, parts: Tensor, r: float, times: Tensor, length: int) -> Tensor:
        """As that of `ModalCovariance`."""
        if length != self.modes.window:
            return super()._spread(parts, r, times, length)
        cosines = self.modes.cosines[:, times]
        return torch.einsum("ft,bf...->bt...", cosines, torch.einsum("ft,bt...->bf...", cosines, parts) * self._left(r))

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """As that of `ModalCovariance`."""
        if shape[0] != self.modes.window:
            return super().draw(shape, r, count)
        left = self._left(r)
        fresh = torch.randn(count, *left.shape, generator=self._seed(r)).to(left)
        return self.modes.states(self.modes.inverse(left.sqrt() * fresh))

    def _left(self, r: float) -> Tensor:
        """Variances of the modes, (window, *wavenumbers, n)."""
        lower, part = place_of(r, self.levels)
        table = self.high_frequency_ratio
        ratio = torch.lerp(table[lower].log(), table[lower + 1].log(), part).exp()
        spectrum = self.modes.spectrum
        return ratio[:, self.bands, None] * spectrum * r**2 / (spectrum + r**2)


def _bands(modes: Modes) -> Tensor:
    """Wavenumbers of about the same size, in steps of one on the longest side: (*wavenumbers,)."""
    shape = modes.variances.shape[:-1]
    axes = [torch.arange(n, dtype=torch.float64) * max(shape) / n for n in shape]
    square = torch.zeros(shape, dtype=torch.float64)
    for axis in torch.meshgrid(*axes, indexing="ij") if axes else ():
        square = square + axis.square()
    return square.sqrt().round().long().to(modes.variances.device)


def _placed(x: Tensor, channels: Tensor, count: int) -> Tensor:
    """Some channels (batch, time, channel, *space) among so many, the others zero."""
    if len(channels) == count:
        return x
    return x.new_zeros(*x.shape[:2], count, *x.shape[3:]).index_copy_(2, channels, x)


def _pooled(values: Tensor, bands: Tensor, *, total: bool = False) -> Tensor:
    """Mean or total of values (*wavenumbers) over each band."""
    sums = values.new_zeros(int(bands.max()) + 1).index_add_(0, bands.flatten(), values.flatten())
    return sums if total else sums / _pooled(torch.ones_like(values), bands, total=True).clamp(min=1)
