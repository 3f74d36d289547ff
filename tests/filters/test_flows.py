"""Gradients of likelihoods, weights of members and units, which the flows of members share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analyses import seen
from chains import truth_of
from filtered import CASES, LENGTH, model_of

from sdaxr import operators as op
from sdaxr.filters.ensemble import Forecast
from sdaxr.filters.flows import Tangent, Units, member_weights
from sdaxr.observations.observe import observe


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_density(name: str) -> None:
    system, operator, how = CASES[name]
    curved = op.compose(operator, op.arctan())
    model = model_of(system, {"seen": observe(truth_of(system, LENGTH, 3), curved, seed=4, **how | {"missing": 0.0})})
    observation = next(o for o in model.observations if o is not None)
    x = system.initial(3, seed=1)
    tangent, errors = observation.tangent(x), observation.errors
    along = np.linspace(1, 2, system.size)
    found = Tangent(observation, x)
    slope, curvature = found.gradient(), found.curved(np.broadcast_to(along, x.shape).copy())
    inverse = np.linalg.inv(errors.covariance)
    innovation = observation.values - observation.predict(x)
    np.testing.assert_allclose(slope, np.einsum("kmn,ml,kl->kn", tangent, inverse, innovation), rtol=1e-5)
    np.testing.assert_allclose(curvature, np.einsum("kmn,ml,kla,a->kn", tangent, inverse, tangent, along), rtol=1e-5)
    units, step = Units(np.ones(system.size), np.full(system.size, 1.5)), 0.3
    matrix = 1.5**2 * step * np.einsum("kmn,ml,kla->kna", tangent, inverse, tangent) + np.eye(system.size)
    implicit = np.linalg.solve(matrix, 1.5 * step * slope[..., None])[..., 0]
    np.testing.assert_allclose(
        units.pulled(observation, units.scaled(x), step), implicit, atol=0.05 * np.abs(implicit).max()
    )


def test_the_gradient_of_a_family_is_that_of_its_density() -> None:
    observation, step = seen(torch.arctan, [0.3, -0.2], [0.1, 0.4], "laplace"), 1e-5
    x = np.random.default_rng(0).normal(size=(5, 2))
    moved = [observation.log_likelihood(x + step * np.eye(2)[i]) for i in (0, 1)]
    back = [observation.log_likelihood(x - step * np.eye(2)[i]) for i in (0, 1)]
    expected = (np.array(moved) - np.array(back)).T / (2 * step)
    np.testing.assert_allclose(Tangent(observation, x).gradient(), expected, rtol=1e-4)


def test_where_nothing_is_seen_nothing_moves() -> None:
    constant, units = seen(lambda x: 0 * x + 1, [0.3, -0.2], 1.0), Units(np.zeros(2), np.ones(2))
    np.testing.assert_array_equal(units.pulled(constant, np.ones((3, 2)), 1.0), 0)


def test_weights_are_densities_of_gaussians() -> None:
    random = np.random.default_rng(0)
    z, means = random.normal(size=(4, 3)), random.normal(size=(6, 3))
    densities = np.exp(-((z[:, None] - means) ** 2).sum(-1) / (2 * 0.7**2))
    np.testing.assert_allclose(member_weights(z, means, 0.7), densities / densities.sum(1, keepdims=True))
    some = np.tril(np.ones((4, 6), bool))
    densities *= some
    np.testing.assert_allclose(member_weights(z, means, 0.7, some), densities / densities.sum(1, keepdims=True))
    far = member_weights(z + 1e3, means, 1e-3)
    np.testing.assert_allclose(far.sum(1), 1)


def test_units_are_the_sizes_of_fields() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(8, 50)) + 5, 100 * random.normal(size=(8, 50))
    states, observation = np.hstack([first, second]), seen(lambda x: x, np.zeros(100), 1.0)
    units = Units.of(Forecast(states, observation, None, random, channels=2), None)
    np.testing.assert_allclose(units.scale, np.repeat([first.std(), second.std()], 50))
    np.testing.assert_allclose(units.scaled(states).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(units.states(units.scaled(states)), states)
    scalars = Units.of(Forecast(states[:, :3], observation, None, random, channels=3), None)
    np.testing.assert_allclose(scalars.scale, np.sqrt((states[:, :3] ** 2).mean(0)))
    given = Units.of(Forecast(states, observation, None, random), 3.0)
    np.testing.assert_array_equal(given.scale, 3)
    still = Units.of(Forecast(np.zeros((8, 4)), observation, None, random), None)
    np.testing.assert_array_equal(still.scale, 1)


def test_no_step_goes_beyond_the_observation() -> None:
    x, units = np.linspace(-1, 1, 4)[:, None], Units(np.full(1, 0.5), np.full(1, 2.0))
    for step in (1e-6, 1.0, 1e6):
        moved = units.states(units.scaled(x) + units.pulled(seen(lambda x: x, 3.0, 0.01), units.scaled(x), step))
        fraction = (moved - x) / (3.0 - x)
        strength = step * 2.0**2 / 0.01**2
        np.testing.assert_allclose(fraction, strength / (1 + strength))
