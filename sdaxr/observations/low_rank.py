r"""Covariances of errors of which the values of one group share a part.

.. math:: R = D + A A^T

D is diagonal. The row of A of a value has K entries, in the columns of the group of this value. With
:math:`B = D^{-1/2} A`, the matrix :math:`B^T B` is block diagonal: K x K for each group. Then (Woodbury 1950; Golub &
Van Loan 2013, section 2.1.4)

.. math::
    R^{-1} = D^{-1/2} (I - B (I + B^T B)^{-1} B^T) D^{-1/2}, \qquad \det R = \det D \, \det(I + B^T B),

and with :math:`T = (I + B^T B)^{1/2}`,

.. math:: W = (I - B\, T^{-1} (I + T)^{-1} B^T)\, D^{-1/2}, \qquad W R W^T = I .

The cost of all of them is linear in the number of values; no matrix (n, n) is built, except by
`SharedCovariance.dense`.

References
----------
.. [1] Golub, G. H. & Van Loan, C. F. (2013). Matrix computations, 4th edition. Johns Hopkins University Press.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sdaxr.observations.correlation import LARGEST
from sdaxr.observations.shared import Biases
from sdaxr.schema import DataError


@dataclass(frozen=True)
class SharedCovariance:
    """R of n values, in double precision.

    Attributes
    ----------
    variance
        The diagonal of D, shape (n,).
    group
        Group of each value, integers from 0 on, shape (n,).
    loadings
        The entries of A, shape (n, K).
    """

    variance: Tensor
    group: Tensor
    loadings: Tensor

    @classmethod
    def of(cls, variance: np.ndarray, biases: Biases | None) -> SharedCovariance:
        """R of the errors of one variable: independent parts with the variances D, shape (n,), and biases."""
        number = np.zeros(len(variance), int) if biases is None else biases.number
        loadings = np.zeros((len(variance), 0)) if biases is None else biases.loadings
        return cls(*(torch.from_numpy(np.array(a)) for a in (variance.astype(float), number, loadings)))

    @classmethod
    def joined(cls, parts: Sequence[SharedCovariance]) -> SharedCovariance:
        """R of several parts that share nothing with each other."""
        most = max(part.loadings.shape[1] for part in parts)
        columns = [torch.nn.functional.pad(part.loadings, (0, most - part.loadings.shape[1])) for part in parts]
        first = np.cumsum([0, *(part.groups for part in parts)])
        group = [part.group + int(start) for part, start in zip(parts, first[:-1], strict=True)]
        return cls(torch.cat([part.variance for part in parts]), torch.cat(group), torch.cat(columns))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group.max()) + 1 if len(self.group) else 0

    def to(self, device: torch.device) -> SharedCovariance:
        """R on another device."""
        return SharedCovariance(self.variance.to(device), self.group.to(device), self.loadings.to(device))

    def part(self, chosen: Tensor) -> SharedCovariance:
        """R of some of the values, given by their numbers (m,)."""
        return SharedCovariance(self.variance[chosen], self.group[chosen], self.loadings[chosen])

    def plus(self, variance: Tensor) -> SharedCovariance:
        """R + diag(variance), for a variance of shape (n,)."""
        return replace(self, variance=self.variance + variance.double())

    def dense(self) -> Tensor:
        """R, shape (n, n).

        Raises
        ------
        DataError
            If there are more than 5000 values.
        """
        count = len(self.variance)
        if count > LARGEST:
            raise DataError(
                f"found {count} observations with a bias in one network, expected at most {LARGEST} for a method that "
                "needs the matrix of the covariances of all errors; average or thin them, split them into networks, or "
                "take method='sda'"
            )
        columns = self.columns()
        return torch.diag(self.variance) + columns @ columns.T

    def columns(self) -> Tensor:
        """A, shape (n, groups K), the K columns of one group after the other."""
        found = self.loadings.new_zeros(len(self.group), self.groups, self.loadings.shape[1])
        found[torch.arange(len(self.group), device=self.group.device), self.group] = self.loadings
        return found.flatten(1)

    def whiten(self, values: Tensor) -> Tensor:
        """W times values (..., n)."""
        return self._applied(self._whitening, values.double() / self.variance.sqrt()).to(values.dtype)

    def solve(self, values: Tensor) -> Tensor:
        """R^-1 times values (..., n)."""
        solved = self._applied(torch.linalg.inv(self._precision), values.double() / self.variance.sqrt())
        return (solved / self.variance.sqrt()).to(values.dtype)

    @cached_property
    def log_determinant(self) -> float:
        """log det R."""
        return float(self.variance.log().sum() + torch.linalg.slogdet(self._precision).logabsdet.sum())

    def coefficients(self, values: Tensor) -> tuple[Tensor, Tensor]:
        r"""The distribution of c given errors :math:`A c + N(0, D)`, with :math:`c \sim N(0, I)`.

        Parameters
        ----------
        values
            Errors, shape (..., n), double precision.

        Returns
        -------
        Means of c, shape (..., groups, K); and the lower triangular root of the inverse of its covariance,
        :math:`I + B^T B`, shape (groups, K, K).
        """
        root = torch.linalg.cholesky(self._precision)
        projected = self._projected(values / self.variance.sqrt())
        return torch.cholesky_solve(projected[..., None], root)[..., 0], root

    @cached_property
    def _scaled(self) -> Tensor:
        """B, shape (n, K)."""
        return self.loadings / self.variance.sqrt()[:, None]

    @cached_property
    def _precision(self) -> Tensor:
        """I + B^T B, shape (groups, K, K)."""
        one = torch.eye(self.loadings.shape[1]).to(self.loadings).repeat(self.groups, 1, 1)
        return one.index_add(0, self.group, self._scaled[:, :, None] * self._scaled[:, None, :])

    @cached_property
    def _whitening(self) -> Tensor:
        """T^-1 (I + T)^-1, shape (groups, K, K)."""
        values, vectors = torch.linalg.eigh(self._precision)
        t = values.sqrt()
        found: Tensor = (vectors / (t * (1 + t))[:, None, :]) @ vectors.mT
        return found

    def _projected(self, values: Tensor) -> Tensor:
        """B^T times values (..., n): (..., groups, K)."""
        empty = self.loadings.new_zeros(*values.shape[:-1], self.groups, self.loadings.shape[1])
        return empty.index_add(-2, self.group, values[..., None] * self._scaled)

    def _applied(self, blocks: Tensor, values: Tensor) -> Tensor:
        """(I - B blocks B^T) times values (..., n), for blocks (groups, K, K)."""
        inner = (blocks @ self._projected(values)[..., None])[..., 0]
        return values - (self._scaled * inner.index_select(-2, self.group)).sum(-1)
