r"""Linearised observation operators, and the linear systems of guidance.

All networks of observations are joined, in units of their errors. With the error covariance :math:`R = L L^T`, the
whitened innovation e and the whitened tangent G of the observation operator H are

.. math:: e = L^{-1} (y - H(x)), \qquad G = L^{-1} H'(x) .

The errors of e have the covariance I. With a covariance V of the states, the weights of an analysis step are

.. math:: w = (I + G V G^T)^{-1} e ,

and the increment of the states is :math:`V G^T w` (Lorenc 1986, doi:10.1002/qj.49711247414).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from scipy.special import chdtri
from torch import Tensor

from sdaxr.posterior.krylov import conjugate_gradients
from sdaxr.posterior.likelihood import GaussianObservation, solve_positive
from sdaxr.posterior.mixture import MixtureObservation

# Up to these sizes a system is solved directly: G fits in memory in double precision (256 MB), and the direct solution
# takes less time than conjugate gradients.
DENSE_OBSERVATIONS, DENSE_ELEMENTS = 1024, 2**25

T = TypeVar("T")
Weigh = Callable[[list[Tensor]], Sequence[Tensor]]


class Linearised:
    """A function linearised around x: products with its Jacobian and with the transpose of its Jacobian.

    Parameters
    ----------
    function
        States (batch, time, channel, *space) to (batch, n); members do not depend on each other.
    x
        States, shape (batch, time, channel, *space).
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._value = function(self._x)

    @property
    def shape(self) -> torch.Size:
        """Shape of one trajectory, (time, channel, *space)."""
        return self._x.shape[1:]

    @property
    def value(self) -> Tensor:
        """The function at x, shape (batch, n)."""
        return self._value.detach()

    def adjoint(self, weights: Tensor) -> Tensor:
        """Transposed Jacobian times weights (batch, n), of the shape of x."""
        (pulled,) = torch.autograd.grad(self._value, self._x, weights, retain_graph=True)
        return pulled

    def forward(self, direction: Tensor) -> Tensor:
        """Jacobian times a direction of the shape of x: (batch, n)."""
        pulled, probe = self._transposed
        (pushed,) = torch.autograd.grad(pulled, probe, direction, retain_graph=True)
        return pushed

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor]:
        # The transposed product is linear in its weights, and its derivative is the Jacobian: reverse mode twice.
        # PyTorch has no forward mode for some of the operators.
        with torch.enable_grad():
            probe = torch.zeros_like(self._value, requires_grad=True)
            (pulled,) = torch.autograd.grad(self._value, self._x, probe, create_graph=True)
        return pulled, probe


def residual(networks: Sequence[GaussianObservation], x: Tensor) -> Linearised:
    """-e, linearised around x; the Jacobian of -e is G."""
    return Linearised(lambda s: torch.cat([-o.whiten(o.innovation(s)) for o in networks], dim=1), x)


def weighted_slope(networks: Sequence[GaussianObservation], x: Tensor, weigh: Weigh) -> Tensor:
    """H'(x)^T w, of the shape of x; ``weigh`` turns the innovations y - H(x) of each network into its weights w."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        innovations = [o.innovation(x) for o in networks]
    weights = weigh([i.detach() for i in innovations])
    (slope,) = torch.autograd.grad(innovations, x, [-w for w in weights])
    return slope


@dataclass(frozen=True)
class Likelihood:
    """Several networks of observations; the errors of one network are independent of the errors of the others.

    Properties of the operators that do not depend on x are computed once. Their argument ``like`` gives the shape of
    the states (batch, time, channel, *space), the type and the device.

    Attributes
    ----------
    networks
        The observations of each network.
    """

    networks: Sequence[GaussianObservation]
    _known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def select(self, members: Tensor) -> Likelihood:
        """The observations of some members, given by their numbers."""
        # What does not depend on x does not depend on the values, either.
        return Likelihood([o.select(members) for o in self.networks], self._known)

    def matched(self, x: Tensor, r: float) -> list[GaussianObservation]:
        """Gaussian observations for the members x at the noise level r, see `GaussianObservation.matched`."""
        return [o.matched(x, r) for o in self.networks]

    def misfit(self, x: Tensor) -> Tensor:
        """Deviance of samples, over the largest deviance that observation errors explain; shape (batch,).

        The deviance of Gaussian errors is the sum of the squared innovations in units of the errors. For n observations
        the largest deviance is the value that one sample of a chi-square distribution in a million exceeds, and at
        least 4 n: samples still count as near where the given errors are too small by a factor of up to about two.
        """
        count = sum(o.values.shape[-1] for o in self.networks)
        return self.deviance(x) / max(4.0 * count, float(chdtri(count, 1e-6)))

    def deviance(self, x: Tensor) -> Tensor:
        """Sum of the squared innovations of all networks in units of the errors, (batch,)."""
        with torch.no_grad():
            return torch.stack([o.deviance(x) for o in self.networks]).sum(0)

    def log_density(self, x: Tensor) -> Tensor:
        """log p(y | x) up to a constant, (batch,)."""
        with torch.no_grad():
            logs = [o.log_likelihood(o.innovation(x), torch.zeros_like(o.scale)) for o in self.networks]
            return torch.stack(logs).sum(0)

    def linear(self, like: Tensor) -> tuple[bool, ...]:
        """Whether the operator of each network is affine (linear up to a constant)."""
        return self.once("linear", lambda: tuple(is_linear(o, like) for o in self.networks))

    def matrix(self, like: Tensor) -> Tensor | None:
        """G, shape (n, d) for trajectories of d values, in double precision.

        None where an operator is not linear, where G is large, or where errors are not Gaussian: L then differs from
        member to member.
        """
        return self.once("matrix", lambda: _matrix(self.networks, like) if all(self.linear(like)) else None)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """The value that ``compute`` returned at the first call with this key."""
        if key not in self._known:
            self._known[key] = compute()
        found: T = self._known[key]
        return found


def _matrix(networks: Sequence[GaussianObservation], like: Tensor) -> Tensor | None:
    count, size = sum(len(o.errors) for o in networks), like[0].numel()
    gaussian = not any(isinstance(o, MixtureObservation) for o in networks)
    if not gaussian or count > DENSE_OBSERVATIONS or count * size > DENSE_ELEMENTS:
        return None
    # Members do not depend on each other, so one product with a batch of n members gives all n rows of G.
    zero = like.new_zeros(count, *like.shape[1:])
    rows = Linearised(lambda x: torch.cat([o.whiten(o.operator(x)) for o in networks], dim=1), zero)
    return rows.adjoint(torch.eye(count).to(like)).flatten(1).double()


def is_linear(network: GaussianObservation, like: Tensor) -> bool:
    """Whether H(a + b) - H(a) - H(b) + H(0) vanishes for random states a and b of standard deviation 3."""
    random = torch.Generator().manual_seed(0)
    a, b = (3 * torch.randn(1, *like.shape[1:], generator=random).to(like) for _ in range(2))
    with torch.no_grad():
        zero = network.operator(torch.zeros_like(a))
        departure = network.operator(a + b) - network.operator(a) - network.operator(b) + zero
    return bool((departure.abs() <= 1e-3 * network.scale + 1e-5 * zero.abs()).all())


def solve(
    around: Linearised,
    spread: Callable[[Tensor], Tensor],
    matrix: Tensor | None,
    *,
    e: Tensor | None = None,
    own: Tensor | float = 0.0,
    tolerance: float | None = None,
    expected: Tensor | float = 0.0,
) -> Tensor:
    """Solve for the weights w = (I + diag(own) + G V G^T)^-1 e.

    Parameters
    ----------
    around
        -e, linearised around x, see `residual`.
    spread
        V times states (batch, time, channel, *space); V is symmetric and positive semi-definite.
    matrix
        G, see `Likelihood.matrix`; the system is then solved directly. None: by conjugate gradients.
    e
        Right-hand sides, (batch, n), in the place of those of ``around``.
    own
        A further variance of each observation, independent of the others, in units of the squared error; shape (n,),
        or (batch, n) without ``matrix``.
    tolerance
        Tolerance of `sdaxr.posterior.krylov.conjugate_gradients`.
    expected
        Estimate of the diagonal of G V G^T, for the convergence of the conjugate gradients; shape as of ``own``.

    Returns
    -------
    w, shape (batch, n).

    Raises
    ------
    DivergenceError
        If the conjugate gradients do not converge.
    """
    e = -around.value if e is None else e
    if matrix is None:
        diagonal = torch.as_tensor(1 + own + expected).expand(e.shape).to(e)
        return conjugate_gradients(
            lambda w: (1 + own) * w + around.forward(spread(around.adjoint(w))), e, tolerance=tolerance,
            diagonal=diagonal,
        )  # fmt: skip
    product = matrix @ spread(matrix.reshape(-1, *around.shape)).flatten(1).T
    diagonal = torch.as_tensor(1 + own).expand(len(matrix)).to(product)
    return solve_positive(torch.diag(diagonal) + (product + product.T) / 2, e)
