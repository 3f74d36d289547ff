r"""Covariance of trajectories given z, of priors that know the empirical orthogonal functions of their fields.

.. math:: \mathrm{Cov}[x | z] = r^2 B (B + r^2 I)^{-1}

with the covariance B of the prior's Gaussian process (`sdaxr.prior.eofs`). This is the covariance that belongs to the
Jacobian of the Gaussian process's denoiser: a gain has the same covariance in its numerator and in its denominator, and
guidance of the process is exact.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance, given_noise
from sdaxr.posterior.covariance.statistical import linearise
from sdaxr.posterior.krylov import conjugate_gradients
from sdaxr.posterior.likelihood import GaussianObservation, solve_positive
from sdaxr.posterior.linear import Likelihood, Linearised
from sdaxr.posterior.mixture import MixtureObservation
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.modes import cosines
from sdaxr.schema import DivergenceError

# Up to so many observations linear systems are solved directly.
_DENSE = 1000
# More are solved by conjugate gradients, where these converge in so many steps at the first noise level; else directly,
# up to so many observations, whose matrix takes 0.5 GB, and numbers of their coefficients. Three thousand observations
# of a day of hours on 1617 points take a tenth of the time of the direct solution; those with biases do not converge.
_STEPS, _LARGEST, _NUMBERS = 150, 8192, 2**28
# Rows of the observation operator that are computed at once, and their numbers.
_ROWS, _AT_ONCE = 64, 2**26
# Conjugate gradients stop at this residual, relative to the innovations.
_TOLERANCE = 1e-3
# Number of pairs of draws for the expectation of an operator that does not act on each value by itself.
_PAIRS = 4


@dataclass(frozen=True)
class EofCovariance(StateCovariance):
    """Cov[x | z] of trajectories (time, channel, *space), of any length.

    Attributes
    ----------
    modes
        EOFs, with their variances by frequency.
    """

    modes: Eofs

    def factors(self, r: float, length: int) -> Tensor:
        """Variances of the modes given z, (length, rank + 1); those of the prior where r is infinite."""
        return given_noise(self.modes.spectrum(length), r)

    def product(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space)."""
        return self.modes.scale(u, self.factors(r, u.shape[1])[None]).to(u.dtype)

    def weights(self, likelihood: Likelihood, xhat: Tensor, r: float) -> tuple[Linearised, Tensor]:
        """The residual -e, and w = (I + G Cov[x | z] G^T)^-1 e, (batch, n), see `sdaxr.posterior.linear`.

        Nonlinear operators are linearised statistically (`sdaxr.posterior.covariance.statistical`).
        """
        linear = likelihood.linear(xhat)
        if all(linear):
            return super().weights(likelihood, xhat, r)
        matched, draws = likelihood.matched(xhat, r), self.draw(xhat.shape[1:], r, _PAIRS)
        around, own = linearise(matched, linear, xhat, draws)
        return around, self._iterated(around, -around.value, r, own)

    def solve(self, likelihood: Likelihood, around: Linearised, e: Tensor, r: float) -> Tensor:
        """(I + G Cov[x | z] G^T)^-1 e, (batch, n), for linear operators."""
        like = torch.zeros(1, *around.shape).to(e)
        direct = e.shape[1] <= _DENSE or not likelihood.once("converges", lambda: self._converges(around, e, r))
        system = likelihood.once("eofs", lambda: System.of(likelihood.networks, self.modes, like)) if direct else None
        if system is None:
            return self._iterated(around, e, r, 0.0)
        return solve_positive(system.at(r, self.factors(r, around.shape[0])), e)

    def _converges(self, around: Linearised, e: Tensor, r: float) -> bool:
        try:
            self._iterated(around, e, r, 0.0, limit=_STEPS)
        except DivergenceError:
            return False
        return True

    def _iterated(self, around: Linearised, e: Tensor, r: float, own: Tensor | float, limit: int = 500) -> Tensor:
        return conjugate_gradients(
            lambda w: (1 + own) * w + around.forward(self.product(around.adjoint(w), r)), e, limit, _TOLERANCE
        )

    def draw(self, shape: Sequence[int], r: float, count: int) -> Tensor:
        """Deviations of x from its mean given z, (count, time, channel, *space); r determines the random numbers."""
        seed = torch.Generator().manual_seed(int.from_bytes(struct.pack("<d", r), "little") % 2**63)
        return self.spread(torch.randn(count, *shape, generator=seed).to(self.modes.vectors), r)

    def spread(self, noise: Tensor, r: float) -> Tensor:
        """Draws with the covariance Cov[x | z] from standard normal noise (batch, time, channel, *space)."""
        return self.modes.scale(noise, self.factors(r, noise.shape[1]).sqrt()[None])


class System:
    """I + G Cov[x | z] G^T of linear operators, from the modes of the rows of their matrix H.

    Parameters
    ----------
    resolved
        Coefficients of the rows in cosines and EOFs, (n, length, rank).
    overlaps
        Products of the rows with each other, by frequency: sparse matrices (n, n), as most measurements are local.
    whiten
        L^-1 times vectors (..., n).
    """

    def __init__(self, resolved: Tensor, overlaps: Sequence[Tensor], whiten: Callable[[Tensor], Tensor]) -> None:
        self.resolved, self.overlaps, self.whiten = resolved, overlaps, whiten
        self._last: tuple[float, Tensor] | None = None

    @classmethod
    def of(cls, networks: Sequence[GaussianObservation], modes: Eofs, like: Tensor) -> System | None:
        """None where there are too many observations, or errors are not Gaussian: G differs from member to member."""
        counts, length = [len(o.errors) for o in networks], like.shape[1]
        large = sum(counts) > _LARGEST or sum(counts) * length * modes.rank > _NUMBERS
        if large or any(isinstance(o, MixtureObservation) for o in networks):
            return None
        rows, points = _rows(networks, like, modes.present)
        vectors, resolved, overlaps = modes.vectors[points].to(like), [], []
        for wave in cosines(length).to(like):
            weights = rows.values() * wave[rows.indices()[1]]
            at_points = _sparse(rows.indices()[[0, 2]], weights, rows.shape[::2])
            resolved.append(torch.sparse.mm(at_points, vectors))
            overlaps.append(_gram(at_points))

        def whiten(values: Tensor) -> Tensor:
            parts = zip(networks, values.split(counts, dim=-1), strict=True)
            return torch.cat([o.whiten(part) for o, part in parts], dim=-1)

        return cls(modes.rotated(torch.stack(resolved, 1)), overlaps, whiten)

    def at(self, r: float, factors: Tensor) -> Tensor:
        """I + G Cov[x | z] G^T, (n, n), in double precision, for variances of the modes (length, rank + 1)."""
        if self._last is None or self._last[0] != r:
            matrix = self.product(factors)
            self._last = r, matrix + torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
        return self._last[1]

    def product(self, variances: Tensor) -> Tensor:
        """G V G^T, (n, n), in double precision, for variances of the modes (length, rank + 1)."""
        last = variances[:, -1:]
        more = (self.resolved * (variances[:, :-1] - last)).flatten(1) @ self.resolved.flatten(1).T
        matrix = (more + more.T).double() / 2
        for overlap, factor in zip(self.overlaps, last, strict=True):
            matrix += (overlap * factor).to_dense()
        return self.whiten(self.whiten(matrix).T)


def _rows(networks: Sequence[GaussianObservation], like: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """H where there are data, sparse, (n, length, m), and which values of a state its m columns are, (m,)."""
    count, found = sum(len(o.errors) for o in networks), []
    together = max(1, min(_ROWS, _AT_ONCE // like[0].numel()))
    for chosen in torch.eye(count, device=like.device, dtype=like.dtype).split(together):
        zero = like.new_zeros(len(chosen), *like.shape[1:])
        around = Linearised(lambda x: torch.cat([o.operator(x) for o in networks], dim=1), zero)
        found.append((around.adjoint(chosen) * present).flatten(2).to_sparse())
    rows = torch.cat(found).coalesce()
    points, column = rows.indices()[2].unique(return_inverse=True)
    at = torch.cat([rows.indices()[:2], column[None]])
    return _sparse(at, rows.values(), (*rows.shape[:2], len(points))), points


def _gram(rows: Tensor) -> Tensor:
    """Products of sparse rows (n, m) with each other, sparse, (n, n)."""
    # SciPy's product, as PyTorch has one only with experimental formats.
    (row, column), values = rows.indices().cpu().numpy(), rows.values().cpu().numpy()
    matrix = csr_array((values, (row, column)), shape=tuple(rows.shape))
    found = (matrix @ matrix.T).tocoo()
    indices = torch.as_tensor(np.stack(found.coords))
    return _sparse(indices, torch.as_tensor(found.data), found.shape).to(rows.device)


def _sparse(indices: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, tuple(shape), check_invariants=False).coalesce()
