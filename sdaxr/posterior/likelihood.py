"""Observations as tensors: what one network of instruments saw of a normalised trajectory, and how well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sdaxr.schema import DataError


@dataclass(frozen=True)
class Pointwise:
    """Of observations :math:`H(x) = f(A x)`, the affine A and the f of each value by itself.

    Attributes
    ----------
    inner
        A: normalised trajectories (batch, time, channel, *space) to (batch, n).
    outer
        f, of any shape.
    group
        Numbers from zero on, shape (n,); values of the same number vary alike.
    """

    inner: Callable[[Tensor], Tensor]
    outer: Callable[[Tensor], Tensor]
    group: Tensor


@dataclass(frozen=True)
class GaussianObservation:
    r"""Observations :math:`y = H(x) + N(0, R)` with :math:`R = \mathrm{diag}(e)\, C\, \mathrm{diag}(e)`.

    Attributes
    ----------
    operator
        H: normalised trajectories (batch, time, channel, *space) to all observed quantities (batch, n), differentiable.
    values
        y, shape (n,), or (members, n) where every member has observations of its own.
    errors
        e, standard deviations; shape (n,).
    scale
        How much each observed quantity varies under the prior, its standard deviation; shape (n,). Variances that are
        set in units of the normalised state are multiplied by its square.
    unresolved
        Variance of each observed quantity given z, a function of r; shape (n,).
    correlation
        C, shape (n, n); None where the errors are independent, which is quicker.
    pointwise
        How the operator is made up, where it is a function of each value of something affine.
    """

    operator: Callable[[Tensor], Tensor]
    values: Tensor
    errors: Tensor
    scale: Tensor
    unresolved: Callable[[float], Tensor] | None = None
    correlation: Tensor | None = None
    pointwise: Pointwise | None = None

    def of(self, members: Tensor) -> GaussianObservation:
        """The observations of some members."""
        return self if self.values.ndim == 1 else replace(self, values=self.values[members.to(self.values.device)])

    def innovation(self, x: Tensor) -> Tensor:
        """y - H(x), shape (batch, n)."""
        return self.values - self.operator(x)

    @cached_property
    def covariance(self) -> Tensor:
        """R, shape (n, n), in double precision."""
        errors = self.errors.double()
        if self.correlation is None:
            return torch.diag(errors.square())
        return errors[:, None] * self.correlation.double() * errors

    @cached_property
    def root(self) -> Tensor:
        """The lower triangular L with R = L L^T, shape (n, n), in double precision.

        Raises
        ------
        DataError
            If the errors are so correlated that R cannot be inverted.
        """
        root: Tensor = torch.linalg.cholesky_ex(self.covariance).L
        own = root.diagonal().square() / self.covariance.diagonal()
        none = ~(own > 1e-8)
        if bool(none.any()):
            raise DataError(
                f"the error of observation {int(none.int().argmax())} follows from those of others (their covariance "
                "is not positive definite), expected each with a part of its own; leave it out, or average the values"
            )
        return root

    def whiten(self, values: Tensor) -> Tensor:
        """L^-1 of values (batch, n): in units of the errors, and uncorrelated."""
        white: Tensor = values / self.errors
        if self.correlation is None:
            return white
        white = torch.linalg.solve_triangular(self.root, values.double().T, upper=False)
        return white.T.to(values.dtype)

    def matched(self, x: Tensor, r: float) -> GaussianObservation:
        """Gaussian observations for the members x (batch, time, channel, *space) at the level r: these themselves."""
        del x, r
        return self

    def deviance(self, x: Tensor) -> Tensor:
        """Sum of the squared innovations in units of the errors, shape (batch,)."""
        return (self.innovation(x) / self.errors).square().sum(1)

    def weigh(self, values: Tensor, variance: Tensor) -> Tensor:
        """(R + diag(variance))^-1 of values (batch, n), for a variance of shape (n,)."""
        if self.correlation is None:
            return values / (self.errors.square() + variance)
        return solve_positive(self.covariance + torch.diag(variance.double()), values)


def solve_positive(matrix: Tensor, values: Tensor) -> Tensor:
    """matrix^-1 of values (batch, n), for a symmetric positive definite matrix (n, n), in double precision."""
    root = torch.linalg.cholesky(matrix.double())
    solved: Tensor = torch.cholesky_solve(values.double().T, root)
    return solved.T.to(values.dtype)


def joint_covariance(observations: Sequence[GaussianObservation]) -> Tensor:
    """R of several networks, whose errors are independent of each other; shape (n, n), in double precision."""
    joint: Tensor = torch.block_diag(*(o.covariance for o in observations))
    return joint
