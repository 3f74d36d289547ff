"""Covariances of diagonal and low-rank parts against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.shared import Biases
from sdaxr.schema import DataError

GROUPS = np.array([0, 2, 1, 0, 2, 2, 0])


def covariance(predictors: int = 2, seed: int = 0) -> tuple[SharedCovariance, np.ndarray]:
    """R of seven values of three groups, and the matrix by its definition."""
    random = np.random.default_rng(seed)
    loadings, variance = random.normal(0, 2, (7, predictors)), random.uniform(0.1, 2, 7)
    dense = np.diag(variance) + loadings @ loadings.T * (GROUPS[:, None] == GROUPS)
    return SharedCovariance(torch.tensor(variance), torch.tensor(GROUPS), torch.tensor(loadings)), dense


@pytest.mark.parametrize("predictors", [0, 1, 3])
def test_products_are_those_of_the_matrix(predictors: int) -> None:
    shared, dense = covariance(predictors)
    values = np.random.default_rng(1).normal(size=(2, 3, 7))
    np.testing.assert_allclose(shared.dense(), dense)
    np.testing.assert_allclose(shared.solve(torch.tensor(values)), values @ np.linalg.inv(dense), rtol=1e-9)
    extra = np.linspace(0, 1, 7)
    found = shared.plus(torch.tensor(extra)).solve(torch.tensor(values))
    np.testing.assert_allclose(found, values @ np.linalg.inv(dense + np.diag(extra)), rtol=1e-9)
    root = shared.whiten(torch.eye(7).double()).numpy().T
    np.testing.assert_allclose(root @ dense @ root.T, np.eye(7), atol=1e-12)
    assert shared.log_determinant == pytest.approx(np.linalg.slogdet(dense)[1])


def test_a_bias_much_larger_than_the_errors_costs_no_digits() -> None:
    shared = SharedCovariance(torch.full((4,), 1e-6).double(), torch.zeros(4).long(), torch.full((4, 1), 1e3).double())
    same, apart = torch.ones(4).double(), torch.tensor([1.0, -1.0, 2.0, -2.0]).double()
    torch.testing.assert_close(shared.whiten(apart), apart * 1e3, rtol=1e-6, atol=0)
    torch.testing.assert_close(shared.whiten(same), same / (2e3), rtol=1e-3, atol=0)


def test_single_precision_stays_single_and_has_gradients() -> None:
    shared, _ = covariance()
    x = torch.ones(2, 7, requires_grad=True)
    white = shared.whiten(x)
    assert white.dtype == shared.solve(x).dtype == torch.float32
    (slope,) = torch.autograd.grad(white.sum(), x)
    expected = shared.whiten(torch.eye(7).double()).sum(1)
    torch.testing.assert_close(slope, expected.float().expand(2, -1))


def test_coefficients_have_their_conditional_distribution() -> None:
    shared, dense = covariance()
    values = np.random.default_rng(1).normal(size=(3, 7))
    columns = shared.columns().numpy()
    np.testing.assert_allclose(columns @ columns.T + np.diag(shared.variance), dense)
    mean, root = shared.coefficients(torch.tensor(values))
    gain = columns.T @ np.linalg.inv(dense)
    np.testing.assert_allclose(mean.reshape(3, -1), values @ gain.T, rtol=1e-9)
    inverse = torch.block_diag(*(root @ root.mT)).numpy()
    np.testing.assert_allclose(np.linalg.inv(inverse), np.eye(6) - gain @ columns, atol=1e-12)


def test_parts_share_nothing() -> None:
    biases = Biases(["a", "b"], np.array([0, 1, 0]), {"constant": 2.0}, np.ones((3, 1)))
    plain, shared = SharedCovariance.of(np.array([4.0, 9.0]), None), SharedCovariance.of(np.ones(3), biases)
    wide, dense = covariance(2)
    joined = SharedCovariance.joined([shared, plain, wide]).dense()
    np.testing.assert_allclose(joined[:3, :3], np.eye(3) + 4 * np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]))
    np.testing.assert_allclose(joined[3:5, 3:5], np.diag([4.0, 9.0]))
    np.testing.assert_allclose(joined[5:, 5:], dense)
    assert float(joined[:3, 3:].abs().max()) == float(joined[3:5, 5:].abs().max()) == 0


def test_a_hundred_thousand_values() -> None:
    """The density of the values of each group is that of the small matrix of the group."""
    count, groups = 100_000, 25_000
    group, loadings = torch.arange(count) % groups, torch.linspace(0.5, 2, count)[:, None].double()
    shared = SharedCovariance(torch.ones(count).double(), group, loadings)
    values = torch.linspace(-1, 1, count).double()
    density = -(shared.whiten(values).square().sum() + shared.log_determinant + count * np.log(2 * np.pi)) / 2
    rows, picked = loadings[group == 7].numpy(), values[group == 7].numpy()
    alone = SharedCovariance(torch.ones(4).double(), torch.zeros(4).long(), torch.tensor(rows))
    one = stats.multivariate_normal(np.zeros(4), np.eye(4) + rows @ rows.T).logpdf(picked)
    found = -(alone.whiten(torch.tensor(picked)).square().sum() + alone.log_determinant + 4 * np.log(2 * np.pi)) / 2
    assert float(found) == pytest.approx(one)
    torch.testing.assert_close(shared.whiten(values)[group == 7], alone.whiten(torch.tensor(picked)))
    rest = group != 7
    others = SharedCovariance(torch.ones(count).double()[rest], group[rest], loadings[rest])
    most = -(others.whiten(values[rest]).square().sum() + others.log_determinant + rest.sum() * np.log(2 * np.pi)) / 2
    assert float(density) == pytest.approx(float(most) + one)
    with pytest.raises(DataError, match="found 100000 observations with a bias in one network, expected at most 5000"):
        shared.dense()
