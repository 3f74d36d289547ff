"""The ensemble transform Kalman filter against the Kalman filter."""

from __future__ import annotations

import numpy as np
import pytest
from linear_ensembles import linear_case, moments

from sdaxr import operators as op
from sdaxr.filters.etkf import ETKF, rotated, rotation, transform

CASES = {
    "all": (op.identity(), {"error": 0.5}),
    "means with gaps": (op.coarsen(2), {"error": 0.4, "missing": 0.4}),
    "every second": (op.scale(2.0, offset=1.0), {"error": 2.0, "every": 2, "start": 1}),
    "correlated": (op.coarsen(2), {"error": 0.4, "correlation": {"site": 3.0}}),
}


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_kalman_filter_of_the_ensemble(name: str, rotation: bool) -> None:
    operator, how = CASES[name]
    model, exact = linear_case(operator, **how)
    found = moments(ETKF(rotation=rotation).draw(model, 20, seed=1).paths)
    # Operators and observations are in single precision.
    np.testing.assert_allclose(found[0], exact.means, atol=2e-5)
    np.testing.assert_allclose(found[1], exact.covariances, atol=2e-5)


def test_members_move_as_little_as_possible_and_a_rotation_moves_them() -> None:
    model, _ = linear_case(op.identity(), error=0.5)
    plain, turned = (ETKF(rotation=r).draw(model, 20, seed=1).paths[:, 0] for r in (False, True))
    first = model.first - model.first.mean(0)
    near, far = (((x - x.mean(0)) * first).sum() for x in (plain, turned))
    assert near > 2 * abs(far)
    again = ETKF(rotation=True).draw(model, 20, seed=1).paths[:, 0]
    np.testing.assert_array_equal(again, turned)


def test_the_weights_are_those_of_the_closed_form() -> None:
    random = np.random.default_rng(0)
    ensemble, matrix, y = random.normal(size=(3, 7, 5)), random.normal(size=(4, 5)), random.normal(size=4)
    seen = ensemble @ matrix.T
    weights = transform(seen - seen.mean(1, keepdims=True), y - seen.mean(1))
    for members, found in zip(ensemble, weights @ ensemble, strict=True):
        covariance = np.cov(members.T)
        gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + np.eye(4))
        np.testing.assert_allclose(found.mean(0), members.mean(0) + gain @ (y - matrix @ members.mean(0)))
        np.testing.assert_allclose(np.cov(found.T), covariance - gain @ matrix @ covariance, atol=1e-12)


def test_a_rotation_is_orthogonal_keeps_the_mean_and_has_no_direction_of_its_own() -> None:
    random = np.random.default_rng(0)
    turns = np.array([rotation(4, random) for _ in range(4000)])
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(4), turns.shape), atol=1e-12)
    np.testing.assert_allclose(turns @ np.ones(4), 1, atol=1e-12)
    # The mean over all rotations that keep the vector of ones is the projection on it; an element has a variance of
    # less than 1.
    np.testing.assert_allclose(turns.mean(0), 0.25, atol=5 / np.sqrt(4000))
    weights = random.normal(size=(2, 4, 4))
    np.testing.assert_allclose(rotated(weights, random).mean(1), weights.mean(1))
