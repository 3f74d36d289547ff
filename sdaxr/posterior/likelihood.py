r"""The likelihood of one network of observations, as tensors.

.. math:: y = H(x) + \epsilon, \qquad \epsilon \sim N(0, R), \qquad R = L L^T

for a normalised trajectory x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.posterior.krylov import check_finite
from sdaxr.schema import DataError, DivergenceError


@dataclass(frozen=True)
class Pointwise:
    """An observation operator :math:`H(x) = f(A x)`: an affine map A, then a function f of each value by itself.

    Attributes
    ----------
    inner
        A: normalised trajectories (batch, time, channel, *space) to (batch, n).
    outer
        f, applied to each element of a tensor of any shape.
    group
        Group of each value, integers from 0 on, shape (n,). Values of one group share one variance of A x given z.
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
        e, standard deviations of the observation errors; shape (n,), or (batch, n).
    scale
        Natural scale of each observed quantity, its standard deviation under the prior; shape (n,). A variance that is
        given in units of the normalised state is multiplied by the square of this scale.
    unresolved
        Function of the noise level r: variance of each observed quantity given z, shape (n,). None where it is not
        measured.
    correlation
        C, shape (n, n); None where the errors are independent, or ``shared`` is their covariance.
    pointwise
        The parts of an operator f(A x); None for another operator.
    shared
        R of errors that are independent but for biases of their sources; None for other errors. The cost of `whiten`
        and `weigh` is linear in n with it, as it is with independent errors.
    """

    operator: Callable[[Tensor], Tensor]
    values: Tensor
    errors: Tensor
    scale: Tensor
    unresolved: Callable[[float], Tensor] | None = None
    correlation: Tensor | None = None
    pointwise: Pointwise | None = None
    shared: SharedCovariance | None = None

    @property
    def independent(self) -> bool:
        """Whether R is diagonal."""
        return self.correlation is None and self.shared is None

    def select(self, members: Tensor) -> GaussianObservation:
        """The observations of some members, given by their numbers."""
        return self if self.values.ndim == 1 else replace(self, values=self.values[members.to(self.values.device)])

    def part(self, chosen: Tensor) -> GaussianObservation:
        """Some of the observations, given by their numbers (m,), alone."""
        unresolved, inside = self.unresolved, self.pointwise
        return replace(
            self,
            operator=lambda x: self.operator(x)[:, chosen],
            values=self.values[..., chosen],
            errors=self.errors[..., chosen],
            scale=self.scale[chosen],
            unresolved=None if unresolved is None else lambda r: unresolved(r)[chosen],
            correlation=None if self.correlation is None else self.correlation[chosen][:, chosen],
            pointwise=None
            if inside is None
            else Pointwise(lambda x: inside.inner(x)[:, chosen], inside.outer, inside.group[chosen]),
            shared=None if self.shared is None else self.shared.part(chosen),
        )

    def innovation(self, x: Tensor) -> Tensor:
        """The innovation y - H(x), shape (batch, n)."""
        return self.values - self.operator(x)

    @cached_property
    def covariance(self) -> Tensor:
        """R, shape (n, n), in double precision.

        Raises
        ------
        DataError
            If there are more than 5000 errors with biases.
        """
        if self.shared is not None:
            return self.shared.dense()
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
        # Part of each variance that the errors before it do not determine. Below 1e-8, the square root of the rounding
        # error of double precision, R^-1 loses half of its digits.
        independent = root.diagonal().square() / self.covariance.diagonal()
        dependent = ~(independent > 1e-8)
        if bool(dependent.any()):
            raise DataError(
                f"the error of observation {int(dependent.int().argmax())} follows from the errors of others (the "
                "covariance of the errors is not positive definite), expected an independent part in each error; leave "
                "this observation out, or average the observations"
            )
        return root

    def whiten(self, values: Tensor) -> Tensor:
        """L^-1 times values (batch, n): errors become uncorrelated, with unit variance.

        With ``shared``, L is another root of R, see `sdaxr.observations.low_rank`.
        """
        if self.shared is not None:
            return self.shared.whiten(values)
        white: Tensor = values / self.errors
        if self.correlation is None:
            return white
        white = torch.linalg.solve_triangular(self.root, values.double().T, upper=False)
        return white.T.to(values.dtype)

    def matched(self, x: Tensor, r: float) -> GaussianObservation:
        """Gaussian observations for the members x (batch, time, channel, *space) at the noise level r: ``self``."""
        del x, r
        return self

    def deviance(self, x: Tensor) -> Tensor:
        """Sum of the squared innovations in units of the errors, shape (batch,); correlations are not used."""
        return (self.innovation(x) / self.errors).square().sum(1)

    def log_likelihood(self, innovation: Tensor, variance: Tensor) -> Tensor:
        """log N(innovation; 0, R + diag(variance)) up to a constant, (batch,), for a variance of shape (n,)."""
        return -(innovation * self.weigh(innovation, variance)).sum(1) / 2

    def weigh(self, values: Tensor, variance: Tensor) -> Tensor:
        """(R + diag(variance))^-1 times values (batch, n), for a variance of shape (n,)."""
        if self.shared is not None:
            return self.shared.plus(variance).solve(values)
        if self.correlation is None:
            return values / (self.errors.square() + variance)
        return solve_positive(self.covariance + torch.diag(variance.double()), values)


def solve_positive(matrix: Tensor, values: Tensor) -> Tensor:
    """matrix^-1 times values (batch, n), for a symmetric positive definite matrix (n, n), in double precision.

    Raises
    ------
    DivergenceError
        If the values or the solution are not finite, or the matrix is not positive definite.
    """
    check_finite(values, "the right-hand side of a linear system")
    root, failed = torch.linalg.cholesky_ex(matrix.double())
    if int(failed):
        raise DivergenceError(
            "the covariance of the innovations is not positive definite or not finite, expected finite variances above "
            "0; check the observations and their errors"
        )
    solved: Tensor = torch.cholesky_solve(values.double().T, root)
    check_finite(solved, "the solution of a linear system")
    return solved.T.to(values.dtype)


def joint_covariance(observations: Sequence[GaussianObservation]) -> Tensor:
    """R of several networks with independent errors: block diagonal, shape (n, n), in double precision."""
    joint: Tensor = torch.block_diag(*(o.covariance for o in observations))
    return joint
