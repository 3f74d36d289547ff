r"""Krylov methods for a batch of linear systems :math:`A x = b`; each member has its own Krylov space.

After k products with A, the solution is sought in :math:`\mathrm{span}(b, A b, \ldots, A^{k - 1} b)`.

References
----------
.. [1] Hestenes, M. R. & Stiefel, E. (1952). Methods of conjugate gradients for solving linear systems.
   doi:10.6028/jres.049.044
.. [2] Saad, Y. & Schultz, M. H. (1986). GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
   systems. doi:10.1137/0907058
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdaxr.schema import DivergenceError

Product = Callable[[Tensor], Tensor]


def conjugate_gradients(
    product: Product, b: Tensor, limit: int = 500, tolerance: float | None = None, diagonal: Tensor | None = None
) -> Tensor:
    """Solve A x = b for symmetric positive definite A (Hestenes & Stiefel 1952, doi:10.6028/jres.049.044).

    Parameters
    ----------
    product
        A times vectors (batch, n); each member has its own A.
    b
        Right-hand sides, shape (batch, n).
    limit
        Largest number of steps.
    tolerance
        The iteration stops when the norm of the residual is below ``tolerance`` times the norm of b. Default: a hundred
        times the rounding error of the type of b.
    diagonal
        An estimate of the diagonal of A, positive, (n,) or (batch, n). The system is solved, and its residual taken, in
        units of the square root of it, so that steps are few where elements have different sizes. None: in those of b.

    Returns
    -------
    x, shape (batch, n).

    Raises
    ------
    DivergenceError
        If the square of b or of a residual is not finite; if, after ``limit`` steps, the norm of the residual is not
        below a thousandth of the norm of b, or twice ``tolerance`` where this is larger.
    """
    if diagonal is not None:
        unit = diagonal.rsqrt()
        return unit * conjugate_gradients(lambda x: unit * product(unit * x), unit * b, limit, tolerance)
    x, residual, direction = torch.zeros_like(b), b, b
    square = start = b.square().sum(dim=1)
    check_finite(start, "conjugate gradients: the square of the right-hand side")
    target = (100 * torch.finfo(b.dtype).eps if tolerance is None else tolerance) ** 2 * start
    for _ in range(limit):
        going = square > target
        if not going.any():
            return x
        image = product(direction)
        # Members that have converged keep their solution.
        step = torch.where(going, square / (direction * image).sum(dim=1), 0.0)[:, None]
        x, residual = x + step * direction, residual - step * image
        before, square = square, residual.square().sum(dim=1)
        # A comparison with NaN is false: a residual that is not finite would count as solved.
        check_finite(square, "conjugate gradients: the square of the residual")
        direction = residual + torch.where(going, square / before, 0.0)[:, None] * direction
    worst = float((square / start.clamp_min(1e-30)).max().sqrt())
    if not worst < max(1e-3, 2 * (tolerance or 0.0)):
        raise DivergenceError(
            f"conjugate gradients left a residual of {worst:.1e} after {limit} steps, expected less than 1e-3: "
            "the observations are nearly redundant; thin the observations, or give them larger errors"
        )
    return x


def gmres(product: Product, b: Tensor, steps: int) -> Tensor:
    """Approximate the solution of A x = b by a few steps of GMRES (Saad & Schultz 1986, doi:10.1137/0907058).

    A should be I + S with a positive semi-definite S; A need not be symmetric. For a symmetric S the solution
    (I + S)^-1 b is never longer than b. Where GMRES finds a solution that is longer than b, because A is indefinite or
    far from symmetric, the member takes a single step along b instead, which is not longer than b.

    Parameters
    ----------
    product
        A times vectors (batch, n); called once a step, with the next vector of an orthonormal basis of the Krylov
        space.
    b
        Right-hand sides, shape (batch, n).
    steps
        Dimension of the Krylov space.

    Returns
    -------
    Coefficients of x in the orthonormal basis, shape (batch, steps).

    Raises
    ------
    DivergenceError
        If b or the solution is not finite.
    """
    length = b.norm(dim=1, dtype=torch.float64)
    check_finite(length, "GMRES: the norm of the right-hand side")
    basis = [_unit(b, length, torch.zeros_like(length))]
    h = torch.zeros(len(b), steps + 1, steps, dtype=torch.float64, device=b.device)
    for j in range(steps):
        image = product(basis[j])
        size = image.norm(dim=1, dtype=torch.float64)
        for _ in range(2):  # The second pass removes rounding errors; after one pass the basis loses orthogonality.
            for i, q in enumerate(basis):
                part = (q * image).sum(dim=1)
                h[:, i, j] += part
                image = image - part[:, None] * q
        rest = image.norm(dim=1, dtype=torch.float64)
        basis.append(_unit(image, rest, 10 * torch.finfo(b.dtype).eps * size))
        h[:, j + 1, j] = rest
    # Where the Krylov space is exhausted, the basis vector is zero: its column is zero, and so is its coefficient.
    normal = h.mT @ h + torch.diag_embed((h.abs().sum(dim=1) == 0).double())
    best, _ = torch.linalg.solve_ex(normal, (h[:, 0] * length[:, None]))
    single = torch.zeros_like(best)
    single[:, 0] = length / h[:, 0, 0].clamp_min(1.0)
    sound = best.norm(dim=1) <= 1.001 * length  # a thousandth more for rounding
    found = torch.where(sound[:, None], best, single)
    check_finite(found, "GMRES: the solution")
    return found.to(b.dtype)


def check_finite(values: Tensor, what: str) -> None:
    """Raise `DivergenceError` unless all values are finite; ``what`` says what the values are."""
    finite = values.isfinite()
    if not bool(finite.all()):
        raise DivergenceError(
            f"{what} is {float(values[~finite][0])}, expected a finite number: a value, an error or a state is far too "
            "large; check the observations and their errors"
        )


def _unit(vector: Tensor, length: Tensor, least: Tensor) -> Tensor:
    """The vector at unit length; zero where it is not longer than ``least``, the size of rounding errors."""
    kept = length > least
    return torch.where(kept[:, None], vector / length.where(kept, 1.0)[:, None].to(vector), 0.0)
