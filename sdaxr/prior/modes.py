r"""The modes of a field, and what a Gaussian prior knows about them.

The spectra of flows are steep: the smallest scales of a field carry a millionth of its variance. A network that is
asked for all of a state, in one unit, learns the large scales and adds noise to the small ones. Here a state is first
taken apart into orthonormal modes :math:`m`: sines and cosines along periodic dimensions, cosines along bounded ones,
and, among the channels that share a wavenumber, the eigenvectors of their covariance. For a field whose statistics are
the same everywhere these modes are uncorrelated, with the variances :math:`S_m`, and the denoiser of a Gaussian prior
is the filter of Wiener,

.. math:: E[x_m | z] = \frac{S_m}{S_m + r^2} z_m, \qquad \mathrm{Var}[x_m | z] = \frac{S_m r^2}{S_m + r^2} .

The network has the rest to learn, in units of the standard deviation that the filter leaves. What a linear relation
between channels rules out has no variance: in a flow without divergence, so has its estimate from the first step on.

States that follow each other closely are as steep in time. With modes of whole windows, which are those of the states
times cosines in time, the filter also knows that what is quick is small: it is the smoother of a Gaussian process with
these spectra, up to the ends of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# Below this share of the mean variance there is rounding only.
_FLOOR = 1e-9


class Modes(nn.Module):
    """Orthonormal modes of states, one state at a time, and of windows of them.

    Parameters
    ----------
    channels
        Number of channels.
    shape, periodic
        For each horizontal dimension, its size, and whether it is periodic.
    window
        States of a window whose modes in time are known; None for states by themselves.

    Attributes
    ----------
    vectors
        Eigenvectors of the covariance of the numbers that share a wavenumber, shape (*wavenumbers, n, n).
    variances
        Their variances, shape (*wavenumbers, n).
    shares
        With a window: variances of the cosines in time over that of the state, (window, *wavenumbers, n), in half
        precision.
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
            basis = _fourier(size) if wraps else _cosines(size)
            self.register_buffer(f"basis{number}", basis, persistent=False)
            waves.append(basis.shape[1])
            together *= basis.shape[0]
        self.register_buffer("vectors", torch.eye(together).repeat(*waves, 1, 1))
        self.register_buffer("variances", torch.ones(*waves, together))
        if window is not None:
            self.register_buffer("shares", torch.ones(window, *waves, together, dtype=torch.float16))
            self.register_buffer("cosines", _cosines(window)[0], persistent=False)

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
        if count * times < 20 * covariance.shape[-1]:  # too few for the correlations
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
        """Make vectors that have been rounded orthonormal again."""
        basis, upper = torch.linalg.qr(self.vectors.double())
        self.vectors.copy_(basis * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :])

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """Modes (..., *wavenumbers, n) of states (..., channel, *space); in single precision.

        With numbers of ``channels``, x is those of states that are zero in all others.
        """
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("...i,...ij->...j", self._waves(x.float()), self._rows(channels))

    def inverse(self, modes: Tensor, channels: Tensor | None = None) -> Tensor:
        """States (..., channel, *space) of modes (..., *wavenumbers, n), or these ``channels`` of them."""
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
        """The vectors' rows of these channels, (*wavenumbers, n of them, n)."""
        if channels is None or len(channels) == self.channels:
            return self.vectors
        by_channel = self.vectors.unflatten(-2, (self.channels, -1))
        return by_channel.index_select(-3, channels).flatten(-3, -2)

    @property
    def spectrum(self) -> Tensor:
        """Variances of the modes of a window, (window, *wavenumbers, n); of a state, (*wavenumbers, n), without one."""
        return self.variances if self.window is None else self.shares.float() * self.variances

    def in_time(self, x: Tensor) -> Tensor:
        """Cosines in time of windows (batch, time, ...), in the place of the states; without a window, the states."""
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
        """Wiener's estimate of the states from z (batch, time, channel, *space), for noise levels r (batch,)."""
        return self._scale(z, self._gain(r))

    def unfiltered(self, x: Tensor, r: Tensor) -> Tensor:
        """x in units of what the filter leaves, (batch, time, channel, *space), for noise levels r (batch,)."""
        level = r.float().reshape(-1, *[1] * (2 + self.dimensions))
        return self._scale(x, level * self._gain(r).sqrt())

    def estimated(self, r: Tensor) -> Tensor:
        """Standard deviation of `filter`, over all channels, times and places; (batch,)."""
        known = (self._gain(r) * self.spectrum).flatten(1).sum(1)
        return (known / (self.size * (self.window or 1))).sqrt()

    def _gain(self, r: Tensor) -> Tensor:
        level = r.float().reshape(-1, *[1] * (2 + self.dimensions))
        return self.spectrum / (self.spectrum + level.square())

    def _scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.states(self.inverse(factor * self(self.in_time(x))))

    def _waves(self, x: Tensor) -> Tensor:
        """Coefficients of sines and cosines, (..., *wavenumbers, n)."""
        if self.dimensions == 0:
            return x
        if self.dimensions == 1:
            return torch.einsum("pky,...cy->...kcp", self.basis0, x).flatten(-2)
        (both, ky, _), (two, kx, _) = self.basis0.shape, self.basis1.shape
        parts = self.basis0.flatten(0, 1) @ (x @ self.basis1.flatten(0, 1).T)
        parts = parts.reshape(-1, x.shape[-3], both, ky, two, kx)
        # In memory, each wavenumber has all states together, so that what follows is one product for each.
        return parts.permute(3, 5, 0, 1, 2, 4).reshape(ky, kx, *x.shape[:-3], -1).movedim((0, 1), (-3, -2))


def _fourier(size: int) -> Tensor:
    """Cosines and sines on a ring, (2, wavenumbers, size); a sine that is zero everywhere is kept as zero."""
    waves = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None]
    angles = 2 * torch.pi * waves * torch.arange(size) / size
    basis = torch.stack([angles.cos(), angles.sin()]) * (2 / size) ** 0.5
    alone = (waves == 0) | (2 * waves == size)
    basis[0] = torch.where(alone, basis[0] / 2**0.5, basis[0])
    basis[1] = torch.where(alone, 0.0, basis[1])
    return basis.float()


def _cosines(size: int) -> Tensor:
    """Cosines with zero slope at both ends (DCT-II), (1, wavenumbers, size)."""
    waves = torch.arange(size, dtype=torch.float64)[:, None]
    basis = (torch.pi * waves * (torch.arange(size) + 0.5) / size).cos() * (2 / size) ** 0.5
    basis[0] /= 2**0.5
    return basis[None].float()
