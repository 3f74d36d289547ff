"""The Lorenz (1996) system against known answers."""

from __future__ import annotations

import numpy as np

from sdaxr.systems.lorenz96 import Lorenz96


def test_lorenz96_rests_where_every_site_equals_the_forcing():
    system = Lorenz96(forcing=3.0)
    states = system.advance({"x": np.full(40, 3.0)}, 10)
    np.testing.assert_allclose(states["x"], 3.0, rtol=1e-6)


def test_lorenz96_conserves_energy_without_forcing_and_damping():
    system = Lorenz96(forcing=0.0, damping=0.0, substeps=20)
    start = np.random.default_rng(0).normal(size=40)
    states = system.advance({"x": start}, 40)
    assert np.abs(states["x"][-1] - start).max() > 1  # it does move
    np.testing.assert_allclose((states["x"].astype(float) ** 2).sum(-1), (start**2).sum(), rtol=1e-6)


def test_lorenz96_is_what_its_equation_says():
    x = np.random.default_rng(1).normal(size=40)
    expected = [(x[(i + 1) % 40] - x[i - 2]) * x[i - 1] - x[i] + 8 for i in range(40)]
    np.testing.assert_allclose(Lorenz96()._derivative(x), expected)


def test_lorenz96_advance_continues_a_trajectory():
    states = Lorenz96().trajectory(6, seed=3)["x"]
    np.testing.assert_allclose(Lorenz96().advance({"x": states[0]}, 5)["x"], states[1:], atol=1e-4)
