"""Linearised operators and their systems against matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdaxr.posterior import linear
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.linear import Likelihood, Linearised, is_linear, residual, solve
from sdaxr.posterior.mixture import Mixture, MixtureObservation

SHAPE, N = (3, 2), 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


MATRIX = random(N, 6, seed=1)


def observed(bend: bool = False, correlation: torch.Tensor | None = None, offset: float = 0.0) -> GaussianObservation:
    def operator(x: torch.Tensor) -> torch.Tensor:
        seen = x.flatten(1) @ MATRIX.T + offset
        return torch.atan(seen) if bend else seen

    errors = torch.linspace(0.5, 2.0, N, dtype=torch.float64)
    return GaussianObservation(operator, random(N, seed=2), errors, torch.ones(N).double(), correlation=correlation)


CORRELATION = torch.as_tensor(0.5 ** np.abs(np.subtract.outer(np.arange(N), np.arange(N))))


def test_slopes_are_those_of_finite_differences_in_both_directions() -> None:
    x, direction, weights = random(2, *SHAPE), random(2, *SHAPE, seed=3), random(2, N, seed=4)
    function = observed(bend=True).operator
    around = Linearised(function, x)
    torch.testing.assert_close(around.value, function(x))
    rise = (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(around.forward(direction), rise, rtol=1e-6, atol=1e-8)
    # Twice, as the transposed product is kept; and <G d, w> = <d, G^T w>.
    torch.testing.assert_close(around.forward(2 * direction), 2 * rise, rtol=1e-6, atol=1e-8)
    pulled = around.adjoint(weights)
    assert pulled.shape == x.shape
    torch.testing.assert_close((rise * weights).sum(1), (direction * pulled).flatten(1).sum(1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("correlation", [None, CORRELATION], ids=["independent", "correlated"])
def test_the_matrix_of_all_networks_is_in_units_of_their_errors(correlation: torch.Tensor | None) -> None:
    networks = [observed(correlation=correlation), observed(offset=3.0)]
    likelihood, like = Likelihood(networks), random(2, *SHAPE)
    assert likelihood.linear(like) == (True, True)
    e = networks[0].errors
    root = torch.linalg.cholesky(torch.outer(e, e) * (torch.eye(N).double() if correlation is None else correlation))
    expected = torch.cat([torch.linalg.solve(root, MATRIX), MATRIX / e[:, None]])
    torch.testing.assert_close(likelihood.matrix(like), expected)
    around = residual(networks, random(1, *SHAPE))
    torch.testing.assert_close(around.forward(torch.ones(1, *SHAPE).double())[0], expected.sum(1))


def test_there_is_no_matrix_where_operators_are_bent_large_or_errors_not_gaussian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    like, plain = random(1, *SHAPE), observed()
    bent = Likelihood([plain, observed(bend=True)])
    assert bent.linear(like) == (True, False) and bent.matrix(like) is None
    parts = (plain.operator, plain.values, plain.errors, plain.scale)
    mixed = MixtureObservation(*parts, mixture=Mixture.of(["laplace"] * N, plain.values))
    assert Likelihood([mixed]).linear(like) == (True,) and Likelihood([mixed]).matrix(like) is None
    monkeypatch.setattr(linear, "DENSE_OBSERVATIONS", N)
    assert Likelihood([plain]).matrix(like) is not None
    assert Likelihood([plain, plain]).matrix(like) is None
    monkeypatch.setattr(linear, "DENSE_ELEMENTS", 6 * N - 1)
    assert Likelihood([plain]).matrix(like) is None


def test_affine_operators_are_linear_and_bent_ones_are_not() -> None:
    like = random(1, *SHAPE)
    assert is_linear(observed(), like) and is_linear(observed(offset=1e4), like)
    assert not is_linear(observed(bend=True), like)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("own", [0.0, 0.7])
def test_weights_solve_the_system(dense: bool, own: float) -> None:
    networks = [observed(correlation=CORRELATION), observed(offset=1.0)]
    x, like = random(3, *SHAPE, seed=5), random(1, *SHAPE)
    root = random(6, 6, seed=6)
    covariance = root @ root.T
    matrix = Likelihood(networks).matrix(like)
    assert matrix is not None
    each = own * torch.arange(2.0 * N, dtype=torch.float64)
    around = residual(networks, x)
    found = solve(
        around, lambda u: (u.flatten(1).to(covariance) @ covariance).reshape(u.shape), matrix if dense else None,
        own=each if own else 0.0, tolerance=1e-12,
    )  # fmt: skip
    system = torch.eye(2 * N).double() + torch.diag(each) + matrix @ covariance @ matrix.T
    torch.testing.assert_close(found, torch.linalg.solve(system, -around.value.T).T, rtol=1e-6, atol=1e-8)
