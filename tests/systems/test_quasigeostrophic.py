"""The two-layer quasi-geostrophic model."""

from __future__ import annotations

import numpy as np
import pytest
from layers import CELLS, DELTA, RD, SIDE, reference, turbulence, wave
from pyqg_jax import qg_model

from sdaxr.schema import OptionError
from sdaxr.systems.quasigeostrophic import DAY, QuasiGeostrophic
from sdaxr.systems.refinement import refine

BARE = {"U1": 0.0, "rek": 0.0, "filterfac": 0.0}


def test_one_step_is_the_tendency_of_the_solver():
    system = QuasiGeostrophic(resolution=CELLS, coarsen=1, step=600 / DAY, filterfac=0.0, precision="double")
    assert system.substeps == 1
    q = turbulence()
    (ahead,) = system.advance({"q": q}, 1)["q"]
    tendency = reference(q, filterfac=0.0)["dqdt"]
    np.testing.assert_allclose(ahead, q + 600 * tendency, atol=1e-6 * np.abs(q).max())
    assert np.abs(600 * tendency).max() > 1e-3 * np.abs(q).max()


@pytest.mark.parametrize("baroclinic", [False, True])
def test_rossby_waves_travel_at_their_speed(baroclinic: bool):
    """omega = -beta kx / (K^2 + F1 + F2) where the layers oppose each other, and without F1 + F2 where they agree."""
    system = QuasiGeostrophic(resolution=CELLS, coarsen=1, beta=4e-11, **BARE)
    kx, ky = 2, 1
    _, square = wave(kx, ky)
    # Amplitudes so small that the wave does not advect itself; psi is (1, 1) or (1, -delta) in the layers.
    upper = RD**-2 / (1 + DELTA)
    shape = np.array([1.0, -DELTA if baroclinic else 1.0])[:, None, None]
    total = square + (upper + DELTA * upper if baroclinic else 0.0)
    at = (np.arange(CELLS) + 0.5) / CELLS * 2 * np.pi

    def flow(days: float) -> np.ndarray:
        omega = -system.beta * kx * 2 * np.pi / SIDE / total
        return 1e-9 * shape * np.cos(kx * at + ky * at[:, None] - omega * days * DAY)

    ahead = system.advance({"q": flow(0)}, 5)["q"]
    for day in range(5):
        np.testing.assert_allclose(ahead[day], flow(day + 1), atol=2e-3 * 1e-9)
    assert np.abs(flow(5) - flow(0)).max() > 5e-12 * (10 if not baroclinic else 1)


def test_turbulence_grows_out_of_the_shear_and_forgets_its_start():
    system = QuasiGeostrophic(resolution=32, coarsen=1, spin_up=2.0)
    first, second = system.trajectories(2, [1, 2])
    for run in (first, second):
        assert 1e-6 < run["q"][:, 0].std() < 3e-5 and np.abs(run["q"].mean((2, 3))).max() < 1e-6
    assert np.abs(np.corrcoef(first["q"][0].ravel(), second["q"][0].ravel())[0, 1]) < 0.5


def test_side_by_side_trajectories_are_those_of_their_seeds():
    system = QuasiGeostrophic(resolution=16, coarsen=2, spin_up=0.02)
    together = system.trajectories(3, [3, 2**63 + 5])
    for seed, states in zip([3, 2**63 + 5], together, strict=True):
        alone = system.trajectory(3, seed)
        np.testing.assert_allclose(states["q"], alone["q"], atol=1e-4 * np.abs(alone["q"]).max())


def test_advance_starts_from_the_means_it_is_given():
    """Refined to the solver's grid, a state of long waves has the same means again."""
    coarse = np.stack([wave(3, -2)[0], wave(0, 5)[0]])
    fine = refine(coarse, 4)
    assert fine.shape == (2, 4 * CELLS, 4 * CELLS)
    np.testing.assert_allclose(fine.reshape(2, CELLS, 4, CELLS, 4).mean((2, 4)), coarse, atol=1e-10)
    system = QuasiGeostrophic(resolution=64, coarsen=2, step=60 / DAY)
    (ahead,) = system.advance({"q": 1e-6 * coarse}, 1)["q"]
    np.testing.assert_allclose(ahead, 1e-6 * coarse, atol=2e-8)


def test_defaults_are_those_of_the_package():
    system, package = QuasiGeostrophic(), qg_model.QGModel(nx=8)
    for key in ("rek", "filterfac", "beta", "rd", "delta", "H1", "U1", "U2"):
        assert getattr(system, key) == pytest.approx(float(getattr(package, key)))
    assert system.length == package.L
    assert QuasiGeostrophic(resolution=512).substeps == pytest.approx(96, abs=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 65}, "coarsen divides"),
        ({"precision": "half"}, "'single' or 'double'"),
        ({"rd": 0.0}, "rd=0.0 for QuasiGeostrophic, expected a number above 0"),
        ({"spin_up": -1.0}, "expected a number of at least 0 and of at most 10000"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        QuasiGeostrophic(**options)
