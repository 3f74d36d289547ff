r"""Covariance of a trajectory of state vectors given z, from the covariance C of the prior.

For a Gaussian prior with the covariance C and :math:`z = x + r \epsilon` (Rozet & Louppe 2023, appendix B,
arXiv:2306.10574),

.. math:: \mathrm{Cov}[x | z] = r^2 C (C + r^2 I)^{-1} .

One eigendecomposition of C gives this covariance at every noise level. C is estimated from windows of a stationary
series: the lag covariances of the windows fill a block Toeplitz matrix. Beyond the estimated lags, C is continued by
the Yule-Walker equations (Whittle 1963, doi:10.1093/biomet/50.1-2.129). So C is the covariance of the vector
autoregression with the estimated lag covariances, the Gaussian chain of largest entropy, and is positive definite for
trajectories of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import xarray as xr
from torch import Tensor

from sdaxr.posterior.covariance.base import StateCovariance, Uncertainty, given_noise
from sdaxr.posterior.linear import Likelihood
from sdaxr.schema import OptionError

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior

LARGEST = 4096  # Values in a trajectory; in double precision, a matrix of this size takes 128 MB.
ORDER = 8  # Largest order of the autoregression; half the window of the prior where this is smaller.


@dataclass(frozen=True)
class Covariance(Uncertainty):
    r"""The covariance of the prior's trajectories, estimated from the held-out windows in the file of the prior.

    .. math:: V = r^2 C (C + r^2 I)^{-1}

    with the covariance C of the prior, for state vectors: at most 4096 values in a trajectory. With this covariance,
    `SDA` and `JacobianFree` are exact for Gaussian priors (Rozet & Louppe 2023, appendix B, arXiv:2306.10574).
    """

    name: ClassVar[str] = "covariance"

    def resolve(self, prior: Prior, times: xr.DataArray, device: torch.device) -> TrajectoryCovariance:
        """The estimate for trajectories on ``times``.

        Raises
        ------
        OptionError
            If the matrix would be too large.
        """
        return TrajectoryCovariance.estimate(torch.as_tensor(prior.examples, device=device), times.size)

    def slope(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """Always an error: this object holds no estimate, the object that `resolve` returns does.

        Raises
        ------
        OptionError
            Always.
        """
        del likelihood, xhat, r
        raise _not_estimated()

    def log_likelihood(self, likelihood: Likelihood, xhat: Tensor, r: float) -> Tensor:
        """Always an error, see `slope`.

        Raises
        ------
        OptionError
            Always.
        """
        del likelihood, xhat, r
        raise _not_estimated()


def _not_estimated() -> OptionError:
    return OptionError("the covariance has not been estimated; call resolve, or TrajectoryCovariance.from_matrix")


@dataclass(frozen=True)
class TrajectoryCovariance(StateCovariance):
    """Cov[x | z] from the eigendecomposition of C.

    Attributes
    ----------
    values
        Eigenvalues of C, shape (d,), for trajectories of d values; double precision.
    vectors
        Eigenvectors of C as columns, shape (d, d); trajectories (time, channel, *space) are flattened.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> TrajectoryCovariance:
        """The covariance given z for C of shape (d, d)."""
        values, vectors = torch.linalg.eigh(matrix.double())
        return cls(values.clamp_min(0.0), vectors)

    @classmethod
    def estimate(cls, windows: Tensor, length: int) -> TrajectoryCovariance:
        """Estimate C for trajectories of ``length`` states from windows (sample, time, channel, *space), normalised.

        Raises
        ------
        OptionError
            If the matrix would be too large.
        """
        if length * windows[0, 0].numel() > LARGEST:
            raise OptionError(
                f"the covariance of {length} states of {windows[0, 0].numel()} values is too large, expected at most "
                f"{LARGEST} values in all; take Measured() in the place of Covariance(), or a shorter window (times=)"
            )
        order = min(windows.shape[1] // 2, ORDER)
        return cls.from_matrix(block_toeplitz(continued(lag_covariances(windows, order), length)))

    def product(self, u: Tensor, r: float) -> Tensor:
        """Cov[x | z] times u (batch, time, channel, *space)."""
        return self._scaled(u, given_noise(self.values, r))

    def spread(self, noise: Tensor, r: float) -> Tensor:
        """Draws with the covariance Cov[x | z] from standard normal noise (batch, time, channel, *space)."""
        return self._scaled(noise, given_noise(self.values, r).sqrt())

    def _scaled(self, u: Tensor, factors: Tensor) -> Tensor:
        return ((u.flatten(1).double() @ self.vectors) * factors @ self.vectors.T).reshape(u.shape).to(u.dtype)


def lag_covariances(windows: Tensor, order: int) -> list[Tensor]:
    """C_k = E[x_{i+k} x_i^T] for k = 0, ..., order, as means over windows (sample, time, ...) and times; each (m, m).

    All lags except 0 are shrunk by the smallest factor that makes their block Toeplitz matrix positive definite.
    """
    x = windows.double().flatten(2)
    x = x - x.mean(dim=(0, 1))
    count = x.shape[1]
    pairs = [(x[:, k:].flatten(0, 1), x[:, : count - k].flatten(0, 1)) for k in range(order + 1)]
    lags = [later.T @ earlier / len(later) for later, earlier in pairs]
    # Smallest eigenvalue of the block Toeplitz matrix: a standard deviation of a thousandth.
    floor = 1e-6 * float(lags[0].diagonal().mean())
    ridge = max(0.0, 2 * floor - float(torch.linalg.eigvalsh(lags[0])[0]))
    lags[0] = lags[0] + ridge * torch.eye(len(lags[0])).to(lags[0])
    smallest = float(torch.linalg.eigvalsh(block_toeplitz(lags))[0])
    white = float(torch.linalg.eigvalsh(lags[0])[0])
    shrinkage = max(0.0, (floor - smallest) / (white - smallest)) if smallest < floor else 0.0
    return [lags[0], *((1 - shrinkage) * lag for lag in lags[1:])]


def continued(lags: Sequence[Tensor], length: int) -> list[Tensor]:
    """Lag covariances of ``length`` states: C_n = sum_j A_j C_{n-j}, where A_j solve the Yule-Walker equations."""
    lags, order = list(lags[:length]), len(lags) - 1
    if length <= order + 1 or order == 0:
        return lags + [torch.zeros_like(lags[0])] * (length - len(lags))
    size = len(lags[0])
    # Yule-Walker: [C_1 .. C_p] = [A_1 .. A_p] M. M is the covariance of p consecutive states, the latest first.
    rows = torch.cat(lags[1:], dim=1)
    past = block_toeplitz([lag.T for lag in lags[:-1]])
    coefficients = torch.linalg.solve(past, rows.T).T.reshape(size, order, size).transpose(0, 1)
    while len(lags) < length:
        lags.append(sum((a @ lags[-1 - j] for j, a in enumerate(coefficients)), torch.zeros_like(lags[0])))
    return lags


def block_toeplitz(lags: Sequence[Tensor]) -> Tensor:
    """Covariance of consecutive states, one for each lag: block (i, j) is C_{i-j}, above the diagonal C_{j-i}^T."""
    count, size = len(lags), len(lags[0])
    every = torch.stack([*(lag.T for lag in reversed(lags[1:])), *lags])  # C_k for k = -(count - 1), ..., count - 1
    at = torch.arange(count)[:, None] - torch.arange(count) + count - 1
    return every[at].transpose(1, 2).reshape(count * size, count * size)
