"""Krylov methods for many systems at once: each member of a batch has a space of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdaxr.schema import DivergenceError

Product = Callable[[Tensor], Tensor]


def conjugate_gradients(product: Product, b: Tensor, limit: int = 500, tolerance: float | None = None) -> Tensor:
    """Solve A x = b for symmetric positive definite A (Hestenes & Stiefel 1952).

    Parameters
    ----------
    product
        A times vectors (batch, n), for each member its own A.
    b
        Shape (batch, n).
    limit
        Most steps.
    tolerance
        Norm of the residual to stop at, in units of that of b; a hundred roundings by default.

    Raises
    ------
    DivergenceError
        If the residual is not below a thousandth of b after so many steps.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = start = b.square().sum(dim=1)
    target = (100 * torch.finfo(b.dtype).eps if tolerance is None else tolerance) ** 2 * start
    for _ in range(limit):
        going = square > target
        if not going.any():
            return x
        moved = product(direction)
        # Members that have converged stay where they are.
        step = torch.where(going, square / (direction * moved).sum(dim=1), 0.0)[:, None]
        x, residual = x + step * direction, residual - step * moved
        before, square = square, residual.square().sum(dim=1)
        direction = residual + torch.where(going, square / before, 0.0)[:, None] * direction
    worst = float((square / start.clamp_min(1e-30)).max().sqrt())
    if not worst < max(1e-3, 2 * (tolerance or 0.0)):
        raise DivergenceError(
            f"conjugate gradients left {worst:.1e} of the residual after {limit} steps, expected less than 1e-3: "
            "observations are nearly redundant; thin them, or give them larger errors"
        )
    return x


def gmres(product: Product, b: Tensor, steps: int) -> Tensor:
    """Some steps of GMRES (Saad & Schultz 1986) towards A x = b, where A should be at least the identity.

    A may be unsymmetric. If it is indefinite, or so far from symmetric that the solution of these steps would be longer
    than b (which (I + S)^-1 b never is for a positive semi-definite S), a member takes a single step along b instead,
    no longer than b either.

    Parameters
    ----------
    product
        A times vectors (batch, n); called once a step, with an orthonormal basis of the Krylov space.
    b
        Shape (batch, n).
    steps
        Dimension of the Krylov space.

    Returns
    -------
    Coefficients of x in that basis, shape (batch, steps).
    """
    length = b.norm(dim=1, dtype=torch.float64)
    basis = [_unit(b, length, torch.zeros_like(length))]
    h = torch.zeros(len(b), steps + 1, steps, dtype=torch.float64, device=b.device)
    for j in range(steps):
        moved = product(basis[j])
        size = moved.norm(dim=1, dtype=torch.float64)
        for _ in range(2):  # the second time against rounding, without which the basis would not stay orthogonal
            for i, q in enumerate(basis):
                part = (q * moved).sum(dim=1)
                h[:, i, j] += part
                moved = moved - part[:, None] * q
        rest = moved.norm(dim=1, dtype=torch.float64)
        basis.append(_unit(moved, rest, 10 * torch.finfo(b.dtype).eps * size))
        h[:, j + 1, j] = rest
    # A basis vector of zero (the space is exhausted) has a column of zeros, and gets the coefficient zero.
    normal = h.mT @ h + torch.diag_embed((h.abs().sum(dim=1) == 0).double())
    best, _ = torch.linalg.solve_ex(normal, (h[:, 0] * length[:, None]))
    single = torch.zeros_like(best)
    single[:, 0] = length / h[:, 0, 0].clamp_min(1.0)
    sound = best.norm(dim=1) <= 1.001 * length
    return torch.where(sound[:, None], best, single).to(b.dtype)


def _unit(vector: Tensor, length: Tensor, least: Tensor) -> Tensor:
    # Of unit length, or zero where nothing but rounding is left.
    kept = length > least
    return torch.where(kept[:, None], vector / length.where(kept, 1.0)[:, None].to(vector), 0.0)
