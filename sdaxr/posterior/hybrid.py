r"""What an ensemble tells of a state beyond the climate, with the hybrid covariance of small states.

In coordinates c in which the climate is N(0, I), the ensemble is N(c^b, P). The hybrid (Hamill & Snyder 2000,
doi:10.1175/1520-0493(2000)128<2905:AHEKFV>2.0.CO;2) is

.. math:: P = s\, \rho \circ S + (1 - s)\, D

S is the covariance of the members, rho a taper of the distance (Houtekamer & Mitchell 2001,
doi:10.1175/1520-0493(2001)129<0123:ASEKFF>2.0.CO;2), and D has the shape of the climate and the size of the ensemble,
band by band. The share s and the taper are those of the largest likelihood of members that were left out. Of large
states, see `sdaxr.posterior.modulation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdaxr.states.fields import StateLayout
from sdaxr.states.geometry import channel_positions

# Directions in which the ensemble has a larger part of the climate's variance tell next to nothing.
KNOWN = 0.98
# No direction is known better than to this part of the climate's variance: members may agree by chance.
LEAST = 1e-4
# Shares s, and lengths of the tapers in widths of the domain (`taper_lengths`).
SHARES, TAPERS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0), (0.06, 0.1, 0.17, 0.3, math.inf)
# Groups of members that are left out to choose among them.
_GROUPS = 8


@dataclass(frozen=True)
class Told:
    """Observations of the coordinates c with independent errors, which turn the climate into the ensemble.

    Attributes
    ----------
    along
        Coordinates (batch, n) to the observed quantities (batch, k).
    values, errors, scale
        As in `sdaxr.posterior.likelihood.GaussianObservation`, (k,).
    bands
        Band of each quantity, (k,): those of one band have one variance given z. None: each has its own.
    """

    along: Callable[[Tensor], Tensor]
    values: Tensor
    errors: Tensor
    scale: Tensor
    bands: Tensor | None


def told_of_small(members: Tensor, mean: Tensor, matrix: Tensor, bands: Tensor, layout: StateLayout) -> Told | None:
    """What members of a state tell whose covariance is a matrix in memory.

    Parameters
    ----------
    members
        Deviations of the members from their mean, (member, value).
    mean
        Coordinates of the mean, (n,).
    matrix
        Coordinates of unit values of a state, (value, n).
    bands
        Band of each coordinate, (n,).
    layout
        Where the values are.
    """
    hybrids = [Hybrid(matrix.double(), bands, taper.to(members.device)) for taper in tapers(layout)]
    members = members.double()
    scored = [(hybrid.likelihoods(members), hybrid) for hybrid in hybrids]
    scores, best = max(scored, key=lambda each: max(each[0]))
    ratio, directions = torch.linalg.eigh(best(members, SHARES[scores.index(max(scores))]))
    # The mean of the members has an error of its own.
    ratio = (ratio * (1 + 1 / len(members))).clamp_min(LEAST)
    known = ratio < KNOWN
    if not bool(known.any()):
        return None
    ratio, directions = ratio[known].to(mean), directions[:, known].to(mean)
    errors = (ratio / (1 - ratio)).sqrt()
    return Told(lambda c: c @ directions, mean @ directions / (1 - ratio), errors, torch.ones_like(ratio), None)


@dataclass(frozen=True)
class Hybrid:
    """A share of the tapered covariance of an ensemble, and a rest that is diagonal in the coordinates of the climate.

    Attributes
    ----------
    matrix, bands
        See `told_of_small`.
    taper
        Factors of the covariances between the values of a state, (value, value).
    """

    matrix: Tensor
    bands: Tensor
    taper: Tensor

    def __call__(self, members: Tensor, share: float) -> Tensor:
        """The covariance, (n, n), of deviations from the mean (member, value)."""
        own, rest = self.parts(members)
        return share * own + (1 - share) * rest

    def parts(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts, each of the whole size."""
        sample = self.taper * (members.T @ members) / (len(members) - 1)
        return self.matrix.T @ sample @ self.matrix, torch.diag(by_band(members @ self.matrix, self.bands))

    def likelihoods(self, members: Tensor) -> list[float]:
        """Logarithms of the likelihood of members that are left out, group by group, for each of `SHARES`."""
        found = [0.0] * len(SHARES)
        for kept, group in left_out(len(members), _GROUPS):
            mean = members[kept].mean(0)
            own, rest = self.parts(members[kept] - mean)
            away = ((members[group] - mean) @ self.matrix).T
            for number, share in enumerate(SHARES):
                matrix = (1 + 1 / len(kept)) * (share * own + (1 - share) * rest)
                root, failed = torch.linalg.cholesky_ex(matrix)
                white = torch.linalg.solve_triangular(root, away, upper=False)
                score = -0.5 * float(white.square().sum()) - len(group) * float(root.diagonal().log().sum())
                found[number] += -math.inf if int(failed) or not math.isfinite(score) else score
        return found


def left_out(members: int, groups: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of the members that are kept, two or more, and of those that are left out, group by group."""
    numbers = torch.arange(members)
    for group in numbers.chunk(min(groups, members)):
        kept = numbers[~torch.isin(numbers, group)]
        if len(kept) > 1:
            yield kept, group


def tapers(layout: StateLayout) -> list[Tensor]:
    """Factors by the distance of two points, for all channels: of each of `taper_lengths`."""
    places = torch.as_tensor(channel_positions(layout)[0])
    distance = torch.cdist(places, places)
    return [torch.exp(-0.5 * (distance / length).square()) for length in taper_lengths(places)]


def taper_lengths(places: Tensor) -> list[float]:
    """Lengths of the tapers of places (value, d): parts of the width of the domain; no taper within a single point.

    The width is twice the largest distance from the centre: the largest distance of two points of a circle, a sphere or
    a rectangle. Of other domains it is a bound that costs no pairs of points.
    """
    width = 2 * float((places - places.mean(0)).square().sum(1).max().sqrt())
    return [length * width for length in TAPERS] if width else [math.inf]


def by_band(members: Tensor, bands: Tensor) -> Tensor:
    """The variance of deviations (member, n), the same for all of a band."""
    return mean_of_band(members.square().sum(0) / (len(members) - 1), bands)


def mean_of_band(values: Tensor, bands: Tensor) -> Tensor:
    """The mean of the values (n,) of each band, at each of its values."""
    total = torch.zeros(int(bands.max()) + 1).to(values)
    mean: Tensor = total.index_add(0, bands, values) / total.index_add(0, bands, torch.ones_like(values))
    return mean[bands]


def numbered(bands: Tensor) -> Tensor:
    """The same bands with numbers from 0 on."""
    numbers: Tensor = bands.unique(return_inverse=True)[1]
    return numbers
