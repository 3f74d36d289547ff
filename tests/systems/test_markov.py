"""Chains with Gaussian noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdaxr import systems
from sdaxr.systems.linear import Linear
from sdaxr.systems.lorenz63 import Lorenz63

CHAINS = {"linear": Linear(noise=((0.2, 0.1), (0.1, 0.3))), "lorenz63": Lorenz63(spin_up=10)}


@pytest.mark.parametrize("name", CHAINS)
def test_vectors_and_states_are_the_same_numbers(name):
    chain = CHAINS[name]
    states = chain.trajectory(4, seed=1)
    vectors = chain.to_vectors(states)
    assert vectors.shape == (4, chain.size) and vectors.dtype == np.float64
    for i, (key, values) in enumerate(states.items()):
        np.testing.assert_array_equal(vectors[:, i], values)
        np.testing.assert_array_equal(chain.from_vectors(vectors)[key], values)


@pytest.mark.parametrize("name", CHAINS)
def test_noise_has_its_covariance_and_whitening_undoes_it(name):
    chain = CHAINS[name]
    noise = chain.draw_noise(np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(np.cov(noise.T), chain.noise_covariance, atol=5 * np.sqrt(2) * 0.3 / math.sqrt(20_000))
    whiten = chain.whitening()
    np.testing.assert_allclose(whiten @ chain.noise_covariance @ whiten.T, np.eye(chain.size), atol=1e-12)


@pytest.mark.parametrize("name", CHAINS)
def test_tangent_is_the_derivative_of_the_transition(name):
    chain = CHAINS[name]
    x = chain.initial(6, seed=0).reshape(2, 3, -1)
    direction = np.random.default_rng(1).normal(size=chain.size)
    rise = (chain.transition_mean(x + 1e-4 * direction) - chain.transition_mean(x - 1e-4 * direction)) / 2e-4
    np.testing.assert_allclose(chain.tangent(x) @ direction, rise, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(systems.MarkovChain.tangent(chain, x), chain.tangent(x), atol=1e-8)
