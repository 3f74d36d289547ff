r"""The hybrid covariance of large states: a diagonal and a modulated ensemble, which is never a matrix of the state.

A taper of the distance is :math:`\rho = L L^T` with a few columns (pivoted Cholesky factors; Harbrecht, Peters &
Schneider 2012, doi:10.1016/j.apnum.2011.10.001). The tapered covariance of members :math:`x_i` then is that of the
modulated members :math:`l_j \circ x_i` (Bishop, Whitaker & Lei 2017, doi:10.1175/MWR-D-17-0102.1). Here :math:`x_i` are
white fields, in which all scales vary alike: the product of a steep field and a taper would have the large scales'
variance at small ones. Each band of scales keeps the variance of the members. The hybrid of `sdaxr.posterior.hybrid` is

.. math:: P = (1 - s)\, D + U U^T, \qquad U = \sqrt{s / (m - 1)}\, (l_j \circ x_i)_{ij}

in coordinates in which the climate is N(0, I). In no direction P is larger than the climate: with
:math:`\kappa < 1`, U is cut to :math:`U U^T \le \kappa I - (1 - s) D`. What the ensemble tells beyond the climate,
:math:`\Lambda = P^{-1} - I`, is the diagonal :math:`\Delta = ((1 - s) D)^{-1} - I` less a part of low rank,

.. math:: \Lambda = \Delta^{1/2} (I - Q \sigma^2 Q^T) \Delta^{1/2} = H^T H, \qquad
          H = (I - Q (1 - \sqrt{1 - \sigma^2}) Q^T) \Delta^{1/2} ,

so that :math:`H c` are observed with independent errors of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.posterior.hybrid import KNOWN, LEAST, Told, by_band, left_out, mean_of_band, numbered, taper_lengths
from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import channel_positions

# Shares s. The diagonal is what keeps P regular where the modulated members do not reach.
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)
# Modulated members, and the numbers in all of them; a taper that needs more is left out.
_COLUMNS, _NUMBERS = 2048, 2**24
# Part of the trace of a taper that its columns may lack.
_LACKING = 0.05
# Groups of members that are left out to choose the share and the taper.
_GROUPS = 4


def told_of_large(
    members: Tensor, mean: Tensor, modulated: Callable[[Tensor], Tensor], bands: Tensor, layout: StateLayout
) -> Told | None:
    """What members of a state tell whose covariance is no matrix in memory.

    Parameters
    ----------
    members
        Coordinates of the deviations of the members from their mean, (member, n).
    mean
        Coordinates of the mean, (n,).
    modulated
        Function of factors (k, channel, *space): coordinates (member, k, n) of the modulated members.
    bands
        Band of each coordinate, (n,).
    layout
        Where the values are.
    """
    count = len(members)
    size = 1 + 1 / count
    known = (size * by_band(members, bands) < KNOWN).nonzero()[:, 0]
    if not len(known):
        return None
    members, bands = members[:, known], numbered(bands[known])
    own, share, score = members[:0], 0.0, -math.inf
    for columns in taper_columns(layout, count):
        factors = columns.T.to(members).unflatten(1, (layout.channels, *layout.shape))
        parts = modulated(factors)[..., known]
        # The product with a taper takes variance from scales that are known badly to those that are known well.
        blurred = mean_of_band(parts.square().sum((0, 1)) / (count - 1), bands)
        parts = parts * (by_band(members, bands) / blurred.clamp_min(1e-30)).sqrt()
        for each, found in zip(SHARES, likelihoods(members, parts, bands), strict=True):
            if found > score:
                own, share, score = parts.flatten(0, 1) if each else members[:0], each, found
    diagonal = (size * (1 - share) * by_band(members, bands)).clamp_min(LEAST)
    low = Downdate.of(diagonal, own * math.sqrt(size * share / (count - 1)))
    errors = (1 / diagonal - 1).rsqrt()
    return Told(lambda c: low(c[:, known]), low.values(mean[known]).to(mean), errors, low.lengths().to(mean), bands)


@dataclass(frozen=True)
class Downdate:
    """The observations of P, which is diagonal but for a part of low rank; each in units of its diagonal error.

    Attributes
    ----------
    diagonal
        (1 - s) D, (n,), below one.
    added
        The part of low rank, within the climate: U, (column, n).
    basis, sizes
        Q and sigma, (column, n) and (column,).
    """

    diagonal: Tensor
    added: Tensor
    basis: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, diagonal: Tensor, columns: Tensor) -> Downdate:
        """Of a diagonal (n,) and the columns of U (column, n); these are cut so that P stays within the climate."""
        diagonal = diagonal.double()
        room = (KNOWN - diagonal).clamp_min(1e-6).sqrt()
        basis, sizes = _principal(columns / room)
        added = sizes.clamp_max(1.0)[:, None] * basis * room
        root = diagonal.sqrt()
        own, lengths = _principal(added / root)
        part = (lengths / (1 + lengths.square()).sqrt())[:, None] * own / root
        basis, sizes = _principal(part / (1 / diagonal - 1).sqrt())
        return cls(diagonal, added, basis, sizes.clamp_max(1 - 1e-6))

    def __call__(self, c: Tensor) -> Tensor:
        """The observed quantities (batch, n) of coordinates (batch, n)."""
        basis, error = self.basis.to(c), (1 / self.diagonal - 1).rsqrt().to(c)
        less = 1 - (1 - self.sizes.square()).sqrt()
        quantities: Tensor = c - error * ((c / error) @ basis.T * less.to(c) @ basis)
        return quantities

    def values(self, mean: Tensor) -> Tensor:
        """The observations (n,) that leave the mean (n,)."""
        mean, error = mean.double(), (1 / self.diagonal - 1).rsqrt()
        # P^-1 mean, by the identity of Sherman, Morrison and Woodbury.
        white = self.added / self.diagonal
        inner = torch.eye(len(white)).to(white) + self.added @ white.T
        weighed = mean / self.diagonal - white.T @ torch.linalg.solve(inner, white @ mean)
        right = error * weighed
        more = (1 - self.sizes.square()).rsqrt() - 1
        observed: Tensor = error * (right + self.basis.T @ (more * (self.basis @ right)))
        return observed

    def lengths(self) -> Tensor:
        """Standard deviations of the observed quantities in the climate, (n,)."""
        error = (1 / self.diagonal - 1).rsqrt()
        left = error * self.basis.T.mul(1 - (1 - self.sizes.square()).sqrt()).T
        right = self.basis / error
        square = 1 - 2 * (left * right).sum(0) + (left * ((right @ right.T) @ left)).sum(0)
        return square.clamp_min(0.0).sqrt()


def likelihoods(plain: Tensor, modulated: Tensor, bands: Tensor) -> list[float]:
    """Logarithms of the likelihood of members that are left out, group by group, for each of `SHARES`.

    Parameters
    ----------
    plain
        Coordinates of the members, (member, n), deviations from the mean of all.
    modulated
        The same of the modulated members, (member, column, n).
    bands
        Band of each coordinate, (n,).
    """
    found = [0.0] * len(SHARES)
    for kept, group in left_out(len(plain), _GROUPS):
        mean, size = plain[kept].mean(0), 1 + 1 / len(kept)
        diagonal = by_band(plain[kept] - mean, bands).clamp_min(LEAST)
        parts = modulated[kept]
        own = (parts - parts.mean(0)).flatten(0, 1) / ((len(kept) - 1) * diagonal).sqrt()
        away = ((plain[group] - mean) / diagonal.sqrt()).double()
        basis, sizes = _principal(own)
        along, square = (away @ basis.double().T).square(), away.square().sum(1)
        logarithm = float(diagonal.double().log().sum())
        for number, share in enumerate(SHARES):
            ratio = share / (1 - share) * sizes.square()
            rest = square - along @ (ratio / (1 + ratio))
            log_size = logarithm + len(diagonal) * math.log(size * (1 - share)) + float(ratio.log1p().sum())
            found[number] -= 0.5 * (float(rest.sum()) / (size * (1 - share)) + len(group) * log_size)
    return found


def taper_columns(layout: StateLayout, members: int) -> list[Tensor]:
    """Columns (value, k) of each taper that has few enough of them for so many members."""
    places = torch.as_tensor(channel_positions(layout)[0], dtype=torch.float32)
    most = min(_COLUMNS, _NUMBERS // len(places)) // members
    found = []
    for length in taper_lengths(places):
        columns = columns_of(places, length, most)
        found += [] if columns is None else [columns]
    return found


def columns_of(places: Tensor, length: float, most: int) -> Tensor | None:
    """Columns (value, k) of the Gaussian function of the distances of places (value, d); None where k is above most."""
    rest, columns = torch.ones(len(places)), torch.zeros(0, len(places))
    while float(rest.mean()) > _LACKING:
        if len(columns) >= most:
            return None
        pivot = int(rest.argmax())
        row = torch.exp(-0.5 * (places - places[pivot]).square().sum(1) / length**2)
        new = (row - columns[:, pivot] @ columns) / rest[pivot].sqrt()
        columns = torch.cat([columns, new[None]])
        rest = (rest - new.square()).clamp_min(0.0)
    # Each value keeps its whole variance.
    return (columns / columns.square().sum(0).sqrt()).T


def _principal(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows (k, n) and their sizes (k,) in double precision, of rows (column, n) with the same products."""
    columns = columns.double()
    squares, vectors = torch.linalg.eigh(columns @ columns.T)
    kept = squares > (1e-10 * squares[-1:]).clamp_min(1e-30)
    sizes = squares[kept].sqrt()
    return vectors[:, kept].T @ columns / sizes[:, None], sizes
