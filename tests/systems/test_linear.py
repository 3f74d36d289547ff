"""The linear chain against its stationary moments."""

from __future__ import annotations

import json
import math

import numpy as np

from sdaxr import systems
from sdaxr.systems.linear import Linear


def test_linear_is_stationary():
    chain = Linear(noise=((0.2, 0.1), (0.1, 0.3)))
    mean, covariance = chain.initial_moments()
    matrix = np.array(chain.matrix)
    np.testing.assert_allclose(matrix @ covariance @ matrix.T + chain.noise_covariance, covariance)
    np.testing.assert_array_equal(mean, 0)
    start = chain.initial(20_000, seed=0)
    later = chain.transition_mean(start) + chain.draw_noise(np.random.default_rng(1), len(start))
    for states in (start, later):
        np.testing.assert_allclose(np.cov(states.T), covariance, atol=5 * np.sqrt(2) * 2 / math.sqrt(20_000))
    np.testing.assert_allclose(Linear().initial_moments()[1], np.eye(2), atol=1e-12)


def test_linear_comes_back_from_json():
    chain = Linear(step=0.5, matrix=[[0.5]], noise=[[2]])
    assert systems.open_system("linear", **json.loads(json.dumps(chain.options()))) == chain
    assert hash(chain) and list(chain.template()) == ["x1"]
