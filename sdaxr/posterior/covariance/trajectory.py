r"""Covariance of the states of a trajectory given z, from that of a prior of state vectors.

Of a Gaussian prior with the covariance C, a state x given :math:`z = x + r \epsilon` has the covariance
(Rozet & Louppe 2023, appendix B)

.. math:: \mathrm{Cov}[x | z] = r^2 C (C + r^2 I)^{-1},

which one eigen-decomposition of C gives at every noise level. C is estimated from windows of a stationary series: their
lag covariances fill a block Toeplitz matrix. It is continued beyond the estimated lags by the Yule-Walker equations, so
that it belongs to the vector autoregression (the Gaussian chain of largest entropy) with these lag covariances, and is
positive definite for trajectories of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance, Uncertainty
from sdaxr.posterior.linear import Likelihood
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior

LARGEST = 4096  # numbers in a trajectory
ORDER = 8  # of the autoregression


@dataclass(frozen=True)
class Covariance(Uncertainty):
    """The covariance of the prior's trajectories, estimated from the held-out windows that the prior carries.

    For state vectors (at most 4096 numbers in a trajectory). With it `SDA` and `JacobianFree` are exact for Gaussian
    priors (Rozet & Louppe 2023, appendix B, arXiv:2306.10574).
    """

    name: ClassVar[str] = "covariance"

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> TrajectoryCovariance:
        """The estimate for trajectories on ``times``.

        Raises
        ------
        OptionError
            If the matrix would be too large.
        """
        return TrajectoryCovariance.estimate(torch.as_tensor(prior.reference[0], device=device), times.size)

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """Not before the covariance has been estimated."""
        del likelihood, xhat, r
        raise OptionError("the covariance has not been estimated; call resolve, or TrajectoryCovariance.from_matrix")


@dataclass(frozen=True)
class TrajectoryCovariance(StateCovariance):
    """Cov[x | z], from C taken apart.

    Attributes
    ----------
    values
        Eigenvalues, shape (d,), d being the number of numbers in a trajectory; double precision.
    vectors
        Eigenvectors, shape (d, d), of trajectories (time, channel, *space) flattened.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> TrajectoryCovariance:
        """From C, shape (d, d)."""
        values, vectors = torch.linalg.eigh(matrix.double())
        return cls(values.clamp_min(0.0), vectors)

    @classmethod
    def estimate(cls, windows: Tensor, length: int) -> TrajectoryCovariance:
        """For trajectories of ``length`` states, from windows of normalised states (sample, time, channel, *space).

        Raises
        ------
        OptionError
            If the matrix would be too large.
        """
        if length * windows[0, 0].numel() > LARGEST:
            raise OptionError(
                f"the covariance of {length} states of {windows[0, 0].numel()} numbers is too large, expected at most "
                f"{LARGEST} numbers in all; take Measured() in the place of Covariance(), or a shorter window (times=)"
            )
        order = min(windows.shape[1] // 2, ORDER)
        return cls.from_matrix(block_toeplitz(continued(lag_covariances(windows, order), length)))

    def given(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space)."""
        spectrum = r**2 * self.values / (self.values + r**2)
        return ((u.flatten(1).double() @ self.vectors) * spectrum @ self.vectors.T).reshape(u.shape).to(u.dtype)


def lag_covariances(windows: Tensor, order: int) -> list[Tensor]:
    """E[x_{i+k} x_i^T] for k = 0..order, pooled over windows (sample, time, ...) and times; each (m, m).

    All lags but 0 are shrunk by as little as makes the block Toeplitz matrix of these lags positive definite.
    """
    x = windows.double().flatten(2)
    x = x - x.mean(dim=(0, 1))
    count = x.shape[1]
    pairs = [(x[:, k:].flatten(0, 1), x[:, : count - k].flatten(0, 1)) for k in range(order + 1)]
    lags = [later.T @ earlier / len(later) for later, earlier in pairs]
    floor = 1e-6 * float(lags[0].diagonal().mean())
    ridge = max(0.0, 2 * floor - float(torch.linalg.eigvalsh(lags[0])[0]))
    lags[0] = lags[0] + ridge * torch.eye(len(lags[0])).to(lags[0])
    smallest = float(torch.linalg.eigvalsh(block_toeplitz(lags))[0])
    white = float(torch.linalg.eigvalsh(lags[0])[0])
    shrinkage = max(0.0, (floor - smallest) / (white - smallest)) if smallest < floor else 0.0
    return [lags[0], *((1 - shrinkage) * lag for lag in lags[1:])]


def continued(lags: Sequence[Tensor], length: int) -> list[Tensor]:
    """Lag covariances of ``length`` states: C_n = sum_j A_j C_{n-j} with the coefficients of Yule and Walker."""
    lags, order = list(lags[:length]), len(lags) - 1
    if length <= order + 1 or order == 0:
        return lags + [torch.zeros_like(lags[0])] * (length - len(lags))
    size = len(lags[0])
    # [C_1 .. C_p] = [A_1 .. A_p] M, where M is the covariance of the last p states, the latest first.
    rows = torch.cat(lags[1:], dim=1)
    past = block_toeplitz([lag.T for lag in lags[:-1]])
    coefficients = torch.linalg.solve(past, rows.T).T.reshape(size, order, size).transpose(0, 1)
    while len(lags) < length:
        lags.append(sum((a @ lags[-1 - j] for j, a in enumerate(coefficients)), torch.zeros_like(lags[0])))
    return lags


def block_toeplitz(lags: Sequence[Tensor]) -> Tensor:
    """The covariance of as many states as there are lags: block (i, j) is C_{i-j}, and C_{j-i}^T above the diagonal."""
    count, size = len(lags), len(lags[0])
    every = torch.stack([*(lag.T for lag in reversed(lags[1:])), *lags])  # lags from -(count - 1) on
    at = torch.arange(count)[:, None] - torch.arange(count) + count - 1
    return every[at].transpose(1, 2).reshape(count * size, count * size)
