"""Kolmogorov flow against exact solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdaxr.systems.base import seed_words
from sdaxr.systems.kolmogorov import Kolmogorov, _solver

SMALL = Kolmogorov(resolution=32, coarsen=2, spin_up=2)
QUIET = Kolmogorov(resolution=64, coarsen=2, reynolds=10.0, drag=0.0, forcing=0.0)


def centres(system):
    template = system.template()
    return np.meshgrid(template.x.values, template.y.values)


def test_kolmogorov_taylor_green_vortices_decay_by_viscosity():
    # The nonlinear term of this flow is balanced by the pressure: the velocity decays with exp(-2 k^2 t / Re).
    x, y = centres(QUIET)
    start = {"u": np.cos(x) * np.sin(y), "v": -np.sin(x) * np.cos(y)}
    states = QUIET.advance(start, 3)
    for i, key in np.ndenumerate(np.array(["u", "v"] * 3).reshape(3, 2)):
        decay = math.exp(-2 * QUIET.step * (i[0] + 1) / QUIET.reynolds)
        np.testing.assert_allclose(states[key][i[0]], decay * start[key], atol=3e-3)
    rate = -np.log(np.abs(states["u"][-1]).max() / np.abs(start["u"]).max()) / (3 * QUIET.step)
    assert rate == pytest.approx(2 / QUIET.reynolds, rel=0.02)


def test_kolmogorov_shear_grows_into_the_laminar_flow():
    # From rest u = F sin(k y) (1 - exp(-g t)) / g with g = k^2 / Re + drag: an exact solution along x only.
    system = Kolmogorov(resolution=64, coarsen=2, reynolds=20.0, drag=0.1, forcing=1.0, wavenumber=2)
    rest = {key: np.zeros((32, 32)) for key in "uv"}
    states = system.advance(rest, 5)
    _, y = centres(system)
    growth = 2**2 / 20 + 0.1
    cell_mean = np.sinc(system.wavenumber / 32)  # the output is a mean over cells
    for i in range(5):
        amplitude = (1 - math.exp(-growth * system.step * (i + 1))) / growth * cell_mean
        np.testing.assert_allclose(states["u"][i], amplitude * np.sin(2 * y), atol=0.01 * amplitude)
        np.testing.assert_allclose(states["v"][i], 0, atol=1e-5)


def test_kolmogorov_flow_on_a_larger_domain_is_the_same_flow():
    """Copies of one unit side by side stay so: the viscosity and the wavelength of the forcing are the same."""
    one = Kolmogorov(resolution=32, coarsen=1, spin_up=2)
    four = Kolmogorov(resolution=64, coarsen=1, extent=2)
    state = {key: value[-1] for key, value in one.trajectory(1, seed=0).items()}
    small = one.advance(state, 2)
    large = four.advance({key: np.tile(value, (2, 2)) for key, value in state.items()}, 2)
    for key in "uv":
        np.testing.assert_allclose(large[key], np.tile(small[key], (1, 2, 2)), atol=1e-3)
    y = four.template().y
    assert y.size == 64 and y.attrs["period"] == pytest.approx(4 * math.pi)
    assert float(y[1] - y[0]) == pytest.approx(float(one.template().y.diff("y")[0]))


def sobel_divergence(u, v, spacing):
    def smooth(field, axis):
        return (np.roll(field, 1, axis) + 2 * field + np.roll(field, -1, axis)) / 4

    def slope(field, axis):
        return (np.roll(field, -1, axis) - np.roll(field, 1, axis)) / (2 * spacing)

    return smooth(slope(u, -1), -2) + smooth(slope(v, -2), -1), slope(v, -1) - slope(u, -2)


def test_kolmogorov_cell_centred_velocity_has_no_divergence():
    system = Kolmogorov(resolution=64, coarsen=1, spin_up=5)
    states = {key: value.astype(float) for key, value in system.trajectory(2, seed=0).items()}
    divergence, vorticity = sobel_divergence(states["u"], states["v"], 2 * math.pi / 64)
    assert vorticity.std() > 1
    assert np.abs(divergence).max() < 1e-5 * vorticity.std()
    # Swapped axes or velocities would show: the same measure is then of the size of the vorticity.
    wrong, _ = sobel_divergence(states["v"], states["u"], 2 * math.pi / 64)
    assert wrong.std() > 0.1 * vorticity.std()


def test_kolmogorov_coarse_velocity_has_little_divergence():
    system = Kolmogorov(resolution=128, coarsen=4, spin_up=5)
    states = {key: value.astype(float) for key, value in system.trajectory(1, seed=0).items()}
    divergence, vorticity = sobel_divergence(states["u"], states["v"], 2 * math.pi / 32)
    assert divergence.std() < 0.05 * vorticity.std()


def test_kolmogorov_solver_keeps_the_flux_through_each_cell_at_zero():
    solver = _solver(SMALL)
    velocity = solver.initial(seed_words(0))
    speed = np.sqrt(sum(np.asarray(c.data) ** 2 for c in velocity))
    assert speed.max() == pytest.approx(SMALL.max_velocity, rel=0.01)
    for _ in range(3):
        # The face with index i lies at the upper end of cell i.
        u, v = (np.asarray(c.data, float) for c in velocity)
        flux = u - np.roll(u, 1, axis=0) + v - np.roll(v, 1, axis=1)
        assert np.abs(flux).max() * SMALL.resolution / (2 * math.pi) < 1e-4
        velocity = solver.next_state(velocity)


def test_kolmogorov_interpolation_to_faces_is_undone_by_the_output():
    system = Kolmogorov(resolution=64, coarsen=4)
    x, y = centres(system)
    # A stream function of a few waves; its velocities have no divergence at any resolution.
    state = {"u": np.cos(x - 2 * y) + 0.3, "v": 0.5 * np.cos(x - 2 * y) + 0.5 * np.sin(3 * x)}
    solver = _solver(system)
    back = [np.asarray(c) for c in solver.output(solver.project(*system._faces(state)))]
    np.testing.assert_allclose(back[0], state["u"], atol=2e-3)
    np.testing.assert_allclose(back[1], state["v"], atol=2e-3)


def test_kolmogorov_advance_continues_a_trajectory():
    # The scales below the grid of the state are lost, so the agreement is close, not exact.
    system = Kolmogorov(resolution=64, coarsen=2, spin_up=5)
    states = system.trajectory(4, seed=5)
    ahead = system.advance({key: value[0] for key, value in states.items()}, 3)
    for key in "uv":
        moved = np.std(states[key][3] - states[key][0])
        error = np.sqrt(np.mean((ahead[key] - states[key][1:]) ** 2, axis=(1, 2)))
        assert error.max() < 0.05 < moved
    assert list(ahead) == ["u", "v"]


def test_kolmogorov_trajectories_side_by_side_are_those_of_their_seeds():
    system = SMALL
    seeds = [3, 2**63 + 5, 4]
    together = system.trajectories(3, seeds)
    assert len(together) == 3
    for seed, states in zip(seeds, together, strict=True):
        alone = system.trajectory(3, seed)
        for key in "uv":
            assert states[key].dtype == alone[key].dtype
            np.testing.assert_allclose(states[key], alone[key], atol=2e-4)
    assert np.abs(together[0]["u"] - together[2]["u"]).max() > 0.1


def test_kolmogorov_compiles_once_per_process():
    assert _solver(Kolmogorov(resolution=32, coarsen=2, spin_up=2)) is _solver(SMALL)


def test_kolmogorov_defaults_are_the_papers():
    system = Kolmogorov()
    assert (system.resolution, system.cells, system.reynolds, system.step) == (256, 64, 1e3, 0.2)
    assert (system.spin_up, system.wavenumber, system.drag) == (64, 4, 0.1)
    courant = 0.5 * (2 * math.pi / 256) / system.cfl_velocity
    assert math.ceil(system.step / courant) == 82
