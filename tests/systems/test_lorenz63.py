"""The Lorenz (1963) system against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sdaxr.schema import DataError, OptionError
from sdaxr.systems.lorenz63 import Lorenz63


def test_lorenz63_first_states_are_on_the_attractor():
    draws = Lorenz63(spin_up=600).initial(5000, seed=0)
    chain = Lorenz63().trajectory(20_000, seed=1)
    along = np.stack([chain[n] for n in "abc"], -1).astype(float)
    # Consecutive states are correlated over some 50 steps.
    error = 5 * along.std(0) * math.sqrt(1 / 5000 + 50 / 20_000)
    assert (np.abs(draws.mean(0) - along.mean(0)) < error).all()
    np.testing.assert_allclose(draws.std(0), along.std(0), rtol=0.1)
    assert np.corrcoef(draws[:, 0], draws[:, 1])[0, 1] == pytest.approx(
        np.corrcoef(along[:, 0], along[:, 1])[0, 1], abs=0.02
    )
    np.testing.assert_array_equal(draws, Lorenz63(spin_up=600).initial(5000, seed=0))
    assert not np.array_equal(draws[:4], draws[4:8])


def test_lorenz63_rests_at_its_fixed_points_without_noise():
    system = Lorenz63(noise=0)
    side = math.sqrt(system.beta * (system.rho - 1))
    for sign in (1, -1):
        state = {"a": sign * side, "b": sign * side, "c": system.rho - 1}
        states = system.advance(state, 5)
        for key in state:
            np.testing.assert_allclose(states[key], state[key], rtol=1e-6)
    with pytest.raises(OptionError, match="without noise there is no density"):
        system.log_transition(np.zeros((2, 3)))


def test_lorenz63_without_noise_is_of_fourth_order():
    start = {"a": 1.0, "b": 2.0, "c": 20.0}
    exact, coarse, fine = (
        np.array([v[-1] for v in Lorenz63(noise=0, step=0.1 / n).advance(start, n).values()]) for n in (200, 4, 8)
    )
    assert np.abs(coarse - exact).max() / np.abs(fine - exact).max() > 10


def test_lorenz63_log_transition_is_the_normal_density():
    system = Lorenz63(noise=0.7)
    x = np.random.default_rng(0).normal([0, 0, 25], 8, (4, 6, 3))
    got = system.log_transition(x)
    assert got.shape == (4, 5)
    for i, j in np.ndindex(4, 5):
        mean = system.transition_mean(x[i, j])
        expected = stats.multivariate_normal(mean, 0.7 * 0.025 * np.eye(3)).logpdf(x[i, j + 1])
        assert got[i, j] == pytest.approx(expected)
    with pytest.raises(DataError, match="expected"):
        system.log_transition(np.zeros((5, 2)))


def test_lorenz63_log_prior_of_its_own_trajectories_has_the_analytic_mean():
    system = Lorenz63(spin_up=0)
    log_priors = []
    for seed in range(60):
        states = system.trajectory(65, seed)
        log_priors.append(system.log_transition(np.stack([states[n] for n in "abc"], -1)).sum())
    expected = -64 * 1.5 * (1 + math.log(2 * math.pi * 0.025))
    assert expected == pytest.approx(81.7, abs=0.05)
    # Each is 81.7 minus (chi-square with 192 degrees of freedom - 192) / 2, of standard deviation 9.8.
    assert np.mean(log_priors) == pytest.approx(expected, abs=4 * 9.8 / math.sqrt(60))
    assert np.std(log_priors) == pytest.approx(9.8, rel=0.4)


def test_lorenz63_starts_from_its_prior():
    system = Lorenz63(spin_up=0, step=1e-6)
    first = np.array([[v[0] for v in system.trajectory(1, seed).values()] for seed in range(2000)])
    np.testing.assert_allclose(first.mean(0), system.prior_mean, atol=4 * 9 / math.sqrt(2000))
    np.testing.assert_allclose(np.cov(first.T), system.prior_covariance, atol=12)


def test_lorenz63_has_the_symmetries_that_it_declares() -> None:
    """The image of a state goes to the image of the next state; first states and noise have the same law."""
    system = Lorenz63()
    (symmetry,) = system.symmetries
    signs = np.array([-1.0 if name in symmetry["negate"] else 1.0 for name in "abc"])
    assert not (signs == 1).all()
    x = np.random.default_rng(0).normal([0, 0, 25], 8, (5, 3))
    np.testing.assert_allclose(system.transition_mean(signs * x), signs * system.transition_mean(x))
    np.testing.assert_array_equal(signs * system.prior_mean, system.prior_mean)
    for covariance in (system.prior_covariance, system.noise_covariance):
        np.testing.assert_array_equal(signs[:, None] * covariance * signs, covariance)
