"""The promises that all systems make."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr import systems
from sdaxr.schema import DataError
from sdaxr.systems.base import System
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.linear import Linear
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic

SMALL = {
    "kolmogorov": Kolmogorov(resolution=32, coarsen=2, spin_up=2),
    "linear": Linear(),
    "lorenz63": Lorenz63(spin_up=10),
    "lorenz96": Lorenz96(spin_up=10),
    "quasigeostrophic": QuasiGeostrophic(resolution=16, coarsen=2, spin_up=0.01),
}


def test_every_registered_system_is_tested_here():
    assert set(systems.systems()) == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_trajectory_has_the_shapes_dtypes_and_labels_of_the_template(name):
    system = SMALL[name]
    template = system.template()
    states = system.trajectory(3, seed=1)
    assert list(states) == list(template.data_vars)
    for key, variable in template.data_vars.items():
        assert states[key].shape == (3, *variable.shape)
        assert states[key].dtype == variable.dtype == np.float32
        assert np.isfinite(states[key]).all()
        assert {"units", "long_name"} <= set(variable.attrs)
        for coordinate in variable.coords.values():
            assert {"units", "long_name"} <= set(coordinate.attrs)


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_decides_the_trajectory(name):
    system = SMALL[name]
    first, again, other = (system.trajectory(2, seed) for seed in (2**40 + 1, 2**40 + 1, 2**41 + 1))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert not np.allclose(first[key], other[key])


@pytest.mark.parametrize("name", SMALL)
def test_advance_refuses_states_of_another_shape(name):
    system = SMALL[name]
    state = {key: value[0] for key, value in system.trajectory(1, 0).items()}
    missing = dict(list(state.items())[1:])
    with pytest.raises(DataError, match="rename or add"):
        system.advance(missing, 1)
    with pytest.raises(DataError, match=r"has the shape .* expected"):
        system.advance({key: np.zeros((5, 5)) for key in state}, 1)


@pytest.mark.parametrize("name", SMALL)
def test_an_ensemble_of_vectors_advances_as_its_states_do(name):
    system = SMALL[name]
    first = system.initial(3, seed=5)
    assert first.shape == (3, system.size) and first.dtype == np.float64
    assert np.abs(first[0] - first[1]).max() > 1e-3 * np.abs(first).max()
    np.testing.assert_array_equal(system.initial(3, seed=5), first)
    later = system.advance_ensemble(first, 2, np.random.default_rng(0))
    assert later.shape == (2, *first.shape)
    if system.stochastic:
        noise = later[0] - system.transition_mean(first)
        np.testing.assert_allclose(noise, system.draw_noise(np.random.default_rng(0), 3), atol=1e-12)
        return
    alone = System.advance_ensemble(system, first, 2, np.random.default_rng(0))
    np.testing.assert_allclose(later, alone, atol=2e-5 * np.abs(first).max())
