r"""Empirical orthogonal functions: the modes of fields whose statistics vary from place to place.

The Gaussian process of a prior of such fields has the covariance

.. math:: B = \sum_k e_k e_k^T \otimes T_k + (I - \sum_k e_k e_k^T) \otimes T_0

between points and times. :math:`e_k` are the leading eigenvectors of a localised covariance
(`sdaxr.prior.localisation`), :math:`T_k` is the covariance in time of the coefficient of :math:`e_k`, and :math:`T_0`
that of what no :math:`e_k` resolves, taken as white in space. In time all :math:`T_k` are diagonal in the cosines of
the length of the trajectory, whatever that is: their variances follow from those that were measured for one length.
Then the denoiser of the Gaussian process is a Wiener filter in cosines times EOFs, with the variances :math:`S_{fk}`,

.. math:: E[x_{fk} | z] = \frac{S_{fk}}{S_{fk} + r^2} z_{fk}, \qquad
          \mathrm{Var}[x_{fk} | z] = \frac{S_{fk} r^2}{S_{fk} + r^2} ,

and conditional simulation with the same B is optimal interpolation (Gandin 1963; Lorenc 1986,
doi:10.1002/qj.49711247414). There is no process on land.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdaxr.prior.modes import cosines

# States with which covariances can be measured: two in each block of time that is left out once.
LEAST = 12
# A pattern of unit length is spanned by modes that leave no more of it.
_SPANNED = 1e-3
# Shares of a cosine in the variance of another one that are rounding.
_ROUNDING = 1e-28


class Eofs(nn.Module):
    """Orthonormal patterns of one state, their variances by frequency, and what they leave.

    Parameters
    ----------
    channels
        Number of channels.
    shape
        Sizes of the horizontal dimensions.
    rank
        Number of EOFs.
    length
        Number of states of the series whose cosines have the variances.

    Attributes
    ----------
    vectors
        EOFs as columns, zero on land, shape (channel * points, rank).
    variances
        Of cosines in time times EOFs, in series of ``length`` states, shape (length, rank + 1). The last column is that
        of each direction that the EOFs leave.
    present
        1 where there are data, 0 on land, shape (channel, *space).
    """

    # Modes of trajectories of any length.
    window = None
    # The network sees the filtered states, too.
    shown = True

    vectors: Tensor
    variances: Tensor
    present: Tensor

    def __init__(self, channels: int, shape: Sequence[int], rank: int, length: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.eye(channels * math.prod(shape), rank))
        self.register_buffer("variances", torch.zeros(length, rank + 1))
        self.register_buffer("present", torch.ones(channels, *shape))
        # Of `scaled` modes: the variances that theirs come from, and constant levels, (m, rank).
        self.usual: Tensor | None = None
        self.levels: Tensor | None = None
        self._spectra: dict[tuple[int, torch.device], Tensor] = {}
        self._rotations: dict[tuple[int, torch.device], Tensor] = {}

    @property
    def rank(self) -> int:
        """Number of EOFs."""
        return self.vectors.shape[1]

    @torch.no_grad()
    def orthonormalise(self) -> None:
        """Make the EOFs orthonormal again after they were rounded to half precision."""
        basis, upper = torch.linalg.qr(self.vectors.double())
        self.vectors.copy_(basis * upper.diagonal().sign() * (self.present.reshape(-1, 1) > 0))

    def spanning(self, patterns: Tensor) -> Eofs:
        """The same process with more modes, so that they span ``patterns`` (m, channel * point).

        What the EOFs leave is white in space: any direction of it may be a mode.
        """
        left = patterns.T.to(self.vectors)
        left = left - self.vectors @ (self.vectors.T @ left)
        basis, upper = torch.linalg.qr(left - self.vectors @ (self.vectors.T @ left))
        more = basis[:, upper.diagonal().abs() > _SPANNED]
        found = copy.copy(self)
        last = self.variances[:, -1:].expand(-1, more.shape[1] + 1)
        found._buffers = {
            **self._buffers,
            "vectors": torch.cat([self.vectors, more], 1),
            "variances": torch.cat([self.variances[:, :-1], last], 1),
        }
        found._spectra, found._rotations = {}, {}
        return found

    def scaled(self, factors: Tensor, levels: Tensor) -> Eofs:
        """The same EOFs with other variances, and levels.

        Parameters
        ----------
        factors
            Factors of the variances; they broadcast to (length, rank + 1).
        levels
            Coefficients (m, rank) of patterns that are constant in a trajectory. The process has m more terms, each of
            them a pattern times a standard normal number. They correlate the EOFs of the constant part.
        """
        found = copy.copy(self)
        found._buffers = {**self._buffers, "variances": self.variances * factors.to(self.variances)}
        found.usual, found.levels = self.variances, levels.to(self.variances)
        found._spectra, found._rotations = {}, {}
        return found

    def spectrum(self, length: int) -> Tensor:
        """Variances of cosines in time times EOFs for trajectories of ``length`` states, (length, rank + 1).

        With levels, those of the constant part are variances of its own modes, see `rotated`.
        """
        key = (length, self.vectors.device)
        if key not in self._spectra:
            found = spectrum(self.variances, length, self.usual)
            if self.levels is not None:
                levels = self.levels.double()
                constant = torch.diag(found[0, :-1].double()) + length * levels.T @ levels
                values, rotation = torch.linalg.eigh(constant)
                found[0, :-1] = values
                self._rotations[key] = rotation.to(found)
            self._spectra[key] = found
        return self._spectra[key]

    def rotated(self, coefficients: Tensor, *, back: bool = False) -> Tensor:
        """Coefficients of cosines times EOFs, (..., length, rank), as those of uncorrelated modes, and back again.

        Without levels they are the same. With levels, the EOFs of the constant part are rotated.
        """
        if self.levels is None:
            return coefficients
        length = coefficients.shape[-2]
        self.spectrum(length)
        rotation = self._rotations[length, self.vectors.device]
        constant = coefficients[..., :1, :] @ (rotation.T if back else rotation)
        return torch.cat([constant, coefficients[..., 1:, :]], -2)

    def coefficients(self, x: Tensor) -> Tensor:
        """Coefficients of the EOFs, (..., rank), of states (..., channel, *space)."""
        with torch.autocast(x.device.type, enabled=False):
            return x.float().flatten(x.ndim - self.present.ndim) @ self.vectors

    def patterns(self, coefficients: Tensor) -> Tensor:
        """States (..., channel, *space) of coefficients (..., rank)."""
        with torch.autocast(coefficients.device.type, enabled=False):
            found: Tensor = (coefficients @ self.vectors.T).unflatten(-1, self.present.shape)
            return found

    def filter(self, z: Tensor, r: Tensor) -> Tensor:
        """The Gaussian process's E[x | z] of z (batch, time, channel, *space) at noise levels r (batch,)."""
        return self.scale(z, self.gain(r, z.shape[1]))

    def unfiltered(self, x: Tensor, r: Tensor) -> Tensor:
        """x times the standard deviation of each mode given z, (batch, time, channel, *space), at noise levels r."""
        level = r.float().reshape(-1, 1, 1)
        return self.scale(x, level * self.gain(r, x.shape[1]).sqrt())

    def estimated(self, r: Tensor, length: int) -> Tensor:
        """Standard deviation of the estimate `filter`, over all channels, times and points with data; (batch,)."""
        known = (self.gain(r, length) * self.spectrum(length)).sum(1)
        points = self.present.sum()
        return ((known[:, :-1].sum(1) + (points - self.rank).clamp_min(0) * known[:, -1]) / (points * length)).sqrt()

    def gain(self, r: Tensor, length: int) -> Tensor:
        """S / (S + r^2) at noise levels r (batch,): (batch, length, rank + 1)."""
        variances = self.spectrum(length)
        found: Tensor = variances / (variances + r.float().reshape(-1, 1, 1).square())
        return found

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        """Modes of trajectories x (batch, time, channel, *space) times factors (1 or batch, length, rank + 1)."""
        with torch.autocast(x.device.type, enabled=False):
            basis = cosines(x.shape[1]).to(self.vectors)
            waves = torch.einsum("ft,bt...->bf...", basis, x.float() * self.present)
            last = factor[..., -1:]
            scaled = (factor[..., :-1] - last) * self.rotated(self.coefficients(waves))
            resolved = self.patterns(self.rotated(scaled, back=True))
            rest = last.reshape(*last.shape[:2], *[1] * self.present.ndim) * waves
            return torch.einsum("ft,bf...->bt...", basis, resolved + rest)


def spectrum(variances: Tensor, length: int, usual: Tensor | None = None) -> Tensor:
    """Variances (length, n) of the cosines of series of ``length`` values, from those of series of K values, (K, n).

    A shorter series is a part of one of K values, and its cosines have the mean variance over all such parts. A longer
    one has the same power at the same frequency, up to the factor by which ``usual`` variances, these ones where they
    are not given, keep their mean. The result is linear in ``variances`` where ``usual`` is given.
    """
    known, whole = len(variances), cosines(len(variances)).to(variances.device)
    if length <= known:
        basis, starts = cosines(length).to(variances.device), range(known - length + 1)
        shares = torch.stack([(basis @ whole[:, first : first + length].T).square() for first in starts]).mean(0)
        # Where cosines are orthogonal, rounding would give variances whose products are subnormal, and slow.
        return (shares.where(shares > _ROUNDING, 0.0) @ variances.double()).float()
    place = torch.arange(length, dtype=torch.float64, device=variances.device) * (known / length)
    lower = place.long().clamp_max(known - 1)
    upper, share = (lower + 1).clamp_max(known - 1), (place - lower)[:, None]

    def interpolated(values: Tensor) -> Tensor:
        return values[lower].double() * (1 - share) + values[upper].double() * share

    base = variances if usual is None else usual
    kept = base.double().mean(0) / interpolated(base).mean(0).clamp_min(1e-30)
    return (interpolated(variances) * kept).float()
