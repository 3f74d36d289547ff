"""Kalman filter and smoother against the closed form."""

from __future__ import annotations

import numpy as np
import pytest
from filtered import assert_same_gaussian

from sdaxr.filters.kalman import draw_trajectories, kalman_filter, rts_smoother


def test_kalman_smoother_is_the_conditioned_gaussian(case) -> None:
    _, _, model, (mean, covariance, evidence) = case
    filtered = kalman_filter(model)
    means, covariances = rts_smoother(filtered)
    # Operators and observations are in single precision.
    np.testing.assert_allclose(means, mean, atol=2e-5)
    np.testing.assert_allclose(covariances, np.einsum("titj->tij", covariance), atol=2e-5)
    assert filtered.log_evidence == pytest.approx(evidence, abs=1e-3)


def test_kalman_trajectories_have_the_covariances_of_the_closed_form(case) -> None:
    _, _, model, exact = case
    paths = draw_trajectories(kalman_filter(model), 20_000, seed=1)
    assert_same_gaussian(paths, exact, 20_000)
