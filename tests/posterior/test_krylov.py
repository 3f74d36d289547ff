"""Krylov methods against direct solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdaxr.posterior.krylov import conjugate_gradients, gmres
from sdaxr.schema import DivergenceError


def system(seed: int, skew: float = 0.0, shift: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four systems (shift I + S + skew part) x = b of six unknowns, S positive semi-definite."""
    random = torch.Generator().manual_seed(seed)
    a, k = (torch.randn(4, 6, 6, generator=random, dtype=torch.float64) for _ in range(2))
    return shift * torch.eye(6) + a @ a.mT + skew * (k - k.mT), torch.randn(4, 6, generator=random, dtype=torch.float64)


def run_gmres(matrix: torch.Tensor, b: torch.Tensor, steps: int) -> torch.Tensor:
    basis = []

    def product(v: torch.Tensor) -> torch.Tensor:
        basis.append(v)
        return (matrix @ v[:, :, None])[:, :, 0]

    coefficients = gmres(product, b, steps)
    assert len(basis) == steps
    return torch.einsum("bk,kbn->bn", coefficients, torch.stack(basis))


def test_conjugate_gradients_solve_every_system() -> None:
    matrix, b = system(0)
    b[2] = 0
    found = conjugate_gradients(lambda v: (matrix @ v[:, :, None])[:, :, 0], b)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)
    with pytest.raises(DivergenceError, match="after 2 steps, expected less than"):
        conjugate_gradients(lambda v: (matrix @ v[:, :, None])[:, :, 0], b, limit=2)


def test_conjugate_gradients_in_units_of_the_diagonal_need_few_steps() -> None:
    """A diagonal over six orders and one coupling: in units of the diagonal I plus a matrix of rank one."""
    diagonal = torch.logspace(0, 6, 100, dtype=torch.float64)
    coupling = diagonal.sqrt() * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
    b = diagonal.sqrt()[None]
    exact = torch.linalg.solve(torch.diag(diagonal) + torch.outer(coupling, coupling), b[0])

    def product(x: torch.Tensor) -> torch.Tensor:
        return diagonal * x + (x @ coupling)[:, None] * coupling

    found = conjugate_gradients(product, b, limit=3, diagonal=diagonal)[0]
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
    with pytest.raises(DivergenceError, match="after 3 steps"):
        conjugate_gradients(product, b, limit=3)


@pytest.mark.parametrize("skew", [0.0, 0.5])
def test_gmres_solves_unsymmetric_systems(skew: float) -> None:
    matrix, b = system(1, skew)
    b[2] = 0
    torch.testing.assert_close(run_gmres(matrix, b, 6), torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)
    # Beyond the space that there is, nothing happens.
    torch.testing.assert_close(run_gmres(matrix, b, 9), torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


def test_gmres_has_the_smallest_residual_in_its_space() -> None:
    matrix, b = system(2, 0.5)
    power = [b, *((matrix @ b[:, :, None])[:, :, 0],)]
    space = torch.stack(power, dim=2)
    best = torch.linalg.lstsq(matrix @ space, b[:, :, None]).solution
    torch.testing.assert_close(run_gmres(matrix, b, 2), (space @ best)[:, :, 0], rtol=1e-7, atol=1e-9)


def test_gmres_does_not_follow_an_indefinite_system() -> None:
    """(S - 0.3 I) has inverses as long as one likes; the guarded step is no longer than b."""
    matrix, b = system(3, 0.5, shift=-0.3)
    unguarded = torch.linalg.solve(matrix, b).norm(dim=1) / b.norm(dim=1)
    assert float(unguarded.max()) > 1.5
    for steps in (1, 3, 6):
        assert float((run_gmres(matrix, b, steps).norm(dim=1) / b.norm(dim=1)).max()) <= 1.001


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_is_never_taken_for_solved(value: float) -> None:
    """In single precision the square of 1e30 is infinite, and every residual is smaller than infinity."""
    b = torch.ones(2, 6)
    b[1, 3] = value
    with pytest.raises(DivergenceError, match="conjugate gradients: .* right-hand side is (nan|inf), expected"):
        conjugate_gradients(lambda v: v, b)
    if not np.isfinite(value):
        with pytest.raises(DivergenceError, match=r"GMRES: the norm of the right-hand side is (nan|inf)"):
            gmres(lambda v: v, b, 2)


def test_a_matrix_that_is_not_finite_is_not_solved() -> None:
    with pytest.raises(DivergenceError, match="the square of the residual is nan"):
        conjugate_gradients(lambda v: v * torch.tensor([1.0, float("nan")]), torch.ones(1, 2))
    with pytest.raises(DivergenceError, match="GMRES: the solution is nan"):
        gmres(lambda v: v * torch.tensor([1.0, float("nan")]), torch.ones(1, 2), 1)
