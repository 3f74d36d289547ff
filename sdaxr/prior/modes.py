r"""The modes of a field, and the Wiener filter that their variances make.

The spectra of flows are steep: the smallest scales of a field have a millionth of its variance. A network whose output
is the whole state, in one unit, learns the large scales and adds noise to the small ones. Here a state is first
projected onto orthonormal modes :math:`m`: sines and cosines along periodic dimensions, cosines along bounded ones and,
among the channels that share a wavenumber, the eigenvectors of their covariance. For a field with homogeneous
statistics these modes are uncorrelated, with the variances :math:`S_m`. The denoiser of a Gaussian prior then is the
Wiener filter,

.. math:: E[x_m | z] = \frac{S_m}{S_m + r^2} z_m, \qquad \mathrm{Var}[x_m | z] = \frac{S_m r^2}{S_m + r^2} .

The network learns the remainder, in units of the standard deviation that the filter leaves. A mode that a linear
relation between channels excludes has no variance: the estimate of a flow without divergence has none from the first
step of the training on.

States that follow each other closely have a steep spectrum in time, too. The modes of whole windows are those of the
states times cosines in time. With the variances of these modes the filter is the smoother of a Gaussian process with
the same spectra in space and time, up to the ends of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# Smallest variance of a mode over the mean variance: below it there is only the rounding of single precision.
_FLOOR = 1e-9
# States for each number whose covariance is measured; with fewer, correlations are noise, and are taken as zero.
_ENOUGH = 20


class Modes(nn.Module):
    """Orthonormal modes of states, one state at a time, and of windows of them.

    Parameters
    ----------
    channels
        Number of channels.
    shape, periodic
        For each horizontal dimension, its size, and whether it is periodic.
    window
        Number of states in a window, for modes in space and time; None for modes in space.

    Attributes
    ----------
    vectors
        Eigenvectors of the covariance of the numbers that share a wavenumber, shape (*wavenumbers, n, n).
    variances
        Their variances, shape (*wavenumbers, n).
    shares
        With a window: the variance of each cosine in time over that of the mode in space,
        (window, *wavenumbers, n), in half precision.
    """

    vectors: Tensor
    variances: Tensor
    shares: Tensor
    cosines: Tensor
    basis0: Tensor
    basis1: Tensor

    def __init__(
        self, channels: int, shape: Sequence[int], periodic: Sequence[bool], window: int | None = None
    ) -> None:
        super().__init__()
        self.dimensions = len(shape)
        self.channels, self.size = channels, channels * math.prod(shape)
        self.window = window
        waves, together = [], channels
        for number, (size, wraps) in enumerate(zip(shape, periodic, strict=True)):
            basis = _fourier(size) if wraps else cosines(size)[None].float()
            self.register_buffer(f"basis{number}", basis, persistent=False)
            waves.append(basis.shape[1])
            together *= basis.shape[0]
        self.register_buffer("vectors", torch.eye(together).repeat(*waves, 1, 1))
        self.register_buffer("variances", torch.ones(*waves, together))
        if window is not None:
            self.register_buffer("shares", torch.ones(window, *waves, together, dtype=torch.float16))
            self.register_buffer("cosines", cosines(window).float(), persistent=False)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set the modes and their variances from normalised states, batches of shape (..., channel, *space).

        With a window, batches are of shape (batch, window, channel, *space).
        """
        times = self.window or 1
        total, count = torch.zeros(times, *self.vectors.shape, dtype=torch.float64, device=self.vectors.device), 0
        for states in batches:
            waves = self._waves(self.in_time(states.to(self.vectors))).double()
            waves = waves.flatten(0, -2 - self.dimensions).unflatten(0, (-1, times))
            total += torch.einsum("nf...i,nf...j->f...ij", waves, waves)
            count += len(waves)
        covariances = total / count
        covariance = covariances.mean(0)
        if count * times < _ENOUGH * covariance.shape[-1]:
            covariance = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
        variances, vectors = torch.linalg.eigh(covariance)
        least = _FLOOR * float(variances.mean())
        variances = variances.clamp_min(least)
        self.vectors.copy_(vectors)
        self.variances.copy_(variances)
        if self.window is not None:
            by_time = torch.einsum("...ij,f...ik,...kj->f...j", vectors, covariances, vectors)
            self.shares.copy_(by_time.clamp_min(least) / variances)

    @torch.no_grad()
    def orthonormalise(self) -> None:
        """Make the eigenvectors orthonormal again after they were rounded to half precision."""
        basis, upper = torch.linalg.qr(self.vectors.double())
        self.vectors.copy_(basis * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :])

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """Modes (..., *wavenumbers, n) of states (..., channel, *space), in single precision.

        Parameters
        ----------
        x
            States, or the ``channels`` of states that are zero in all other channels.
        channels
            Indices of the channels of x; None for all.
        """
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("...i,...ij->...j", self._waves(x.float()), self._rows(channels))

    def inverse(self, modes: Tensor, channels: Tensor | None = None) -> Tensor:
        """States (..., channel, *space) of modes (..., *wavenumbers, n); only these ``channels`` where given."""
        with torch.autocast(modes.device.type, enabled=False):
            waves = torch.einsum("...j,...ij->...i", modes, self._rows(channels))
            if self.dimensions == 0:
                return waves
            first = self.basis0
            if self.dimensions == 1:
                parts = waves.unflatten(-1, (-1, first.shape[0]))
                return torch.einsum("pky,...kcp->...cy", first, parts)
            second = self.basis1
            parts = waves.unflatten(-1, (-1, first.shape[0], second.shape[0]))
            return torch.einsum("pky,...kcpx->...cyx", first, torch.einsum("qlx,...klcpq->...kcpx", second, parts))

    def _rows(self, channels: Tensor | None) -> Tensor:
        """The rows of the eigenvectors that belong to these channels, (*wavenumbers, rows, n)."""
        if channels is None or len(channels) == self.channels:
            return self.vectors
        by_channel: Tensor = self.vectors.unflatten(-2, (self.channels, -1))
        return by_channel.index_select(-3, channels).flatten(-3, -2)

    @property
    def spectrum(self) -> Tensor:
        """Variances of the modes: (window, *wavenumbers, n) with a window, else (*wavenumbers, n)."""
        return self.variances if self.window is None else self.shares.float() * self.variances

    def in_time(self, x: Tensor) -> Tensor:
        """Coefficients of cosines in time, (batch, window, ...), of windows (batch, time, ...).

        Without a window these are the states themselves.
        """
        if self.window is None:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("ft,bt...->bf...", self.cosines, x.float())

    def states(self, x: Tensor) -> Tensor:
        """Inverse of `in_time`."""
        if self.window is None:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("ft,bf...->bt...", self.cosines, x)

    def filter(self, z: Tensor, r: Tensor) -> Tensor:
        """Wiener's estimate of the states from z (batch, time, channel, *space) at noise levels r (batch,)."""
        return self._scale(z, self._gain(r))

    def unfiltered(self, x: Tensor, r: Tensor) -> Tensor:
        """x times the standard deviation of each mode given z, (batch, time, channel, *space), at noise levels r."""
        level = r.float().reshape(-1, *[1] * (2 + self.dimensions))
        return self._scale(x, level * self._gain(r).sqrt())

    @property
    def shown(self) -> bool:
        """Whether the network sees the filtered states, too."""
        return self.window is not None

    def estimated(self, r: Tensor, length: int) -> Tensor:
        """Standard deviation of the estimate `filter`, over all channels, times and grid points; (batch,)."""
        del length  # That of the window.
        known = (self._gain(r) * self.spectrum).flatten(1).sum(1)
        return (known / (self.size * (self.window or 1))).sqrt()

    def _gain(self, r: Tensor) -> Tensor:
        level = r.float().reshape(-1, *[1] * (2 + self.dimensions))
        return self.spectrum / (self.spectrum + level.square())

    def _scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.states(self.inverse(factor * self(self.in_time(x))))

    def _waves(self, x: Tensor) -> Tensor:
        """Coefficients of sines and cosines, (..., *wavenumbers, n), of states (..., channel, *space)."""
        if self.dimensions == 0:
            return x
        if self.dimensions == 1:
            return torch.einsum("pky,...cy->...kcp", self.basis0, x).flatten(-2)
        (both, ky, _), (two, kx, _) = self.basis0.shape, self.basis1.shape
        parts = self.basis0.flatten(0, 1) @ (x @ self.basis1.flatten(0, 1).T)
        parts = parts.reshape(-1, x.shape[-3], both, ky, two, kx)
        # Each wavenumber has all states together in memory, so that the projection is one matrix product for each.
        return parts.permute(3, 5, 0, 1, 2, 4).reshape(ky, kx, *x.shape[:-3], -1).movedim((0, 1), (-3, -2))


def _fourier(size: int) -> Tensor:
    """Cosines and sines on a ring, (2, wavenumbers, size); sines that vanish on the grid are kept, as zeros."""
    waves = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None]
    angles: Tensor = 2 * torch.pi * waves * torch.arange(size) / size
    basis: Tensor = torch.stack([angles.cos(), angles.sin()]) * (2 / size) ** 0.5
    alone = (waves == 0) | (2 * waves == size)
    basis[0] = torch.where(alone, basis[0] / 2**0.5, basis[0])
    basis[1] = torch.where(alone, 0.0, basis[1])
    return basis.float()


def cosines(size: int) -> Tensor:
    """Orthonormal cosines with zero slope at both ends (DCT-II), (wavenumber, size), in double precision."""
    waves = torch.arange(size, dtype=torch.float64)[:, None]
    basis: Tensor = (torch.pi * waves * (torch.arange(size) + 0.5) / size).cos() * (2 / size) ** 0.5
    basis[0] /= 2**0.5
    return basis
