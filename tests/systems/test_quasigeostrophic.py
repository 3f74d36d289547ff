"""The two-layer quasi-geostrophic model, and the inversion of its potential vorticity."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
import xarray as xr
from pyqg_jax import qg_model, state

from sdaxr import operators as op
from sdaxr.operators import Template
from sdaxr.schema import OperatorError, OptionError
from sdaxr.systems.quasigeostrophic import DAY, QuasiGeostrophic
from sdaxr.systems.refinement import refine

CELLS, SIDE = 32, 1e6
RD, DELTA = 15e3, 0.25
ALL = ("streamfunction", "u", "v", "vorticity")
BARE = {"U1": 0.0, "rek": 0.0, "filterfac": 0.0}


def labelled(q: np.ndarray, system: QuasiGeostrophic | None = None) -> xr.Dataset:
    """Potential vorticity (layer, y, x) with the labels of the model."""
    template = (system or QuasiGeostrophic(resolution=q.shape[-1], coarsen=1)).template()
    return template.assign(q=template.q.copy(data=q))


def turbulence(seed: int = 0) -> np.ndarray:
    """Random potential vorticity of the model's size, without a mean."""
    noise = np.random.default_rng(seed).standard_normal((2, CELLS, CELLS))
    return 1e-5 * (noise - noise.mean((1, 2), keepdims=True))


def reference(q: np.ndarray, **options) -> dict[str, np.ndarray]:
    """Streamfunction, velocities and tendency by PyQG-JAX, in double precision."""
    with jax.enable_x64(True):
        model = qg_model.QGModel(nx=q.shape[-1], precision=state.Precision.DOUBLE, **options)
        full = model.get_full_state(model.create_initial_state(jax.random.key(0)).update(q=q))
        return {name: np.asarray(getattr(full, name)) for name in ("p", "u", "v", "dqdt")}


def wave(kx: int, ky: int) -> tuple[np.ndarray, float]:
    """cos(kx x + ky y) on the grid, wavenumbers in waves per side, and its total wavenumber squared."""
    at = (np.arange(CELLS) + 0.5) / CELLS * 2 * np.pi
    return np.cos(kx * at + ky * at[:, None]), (kx**2 + ky**2) * (2 * np.pi / SIDE) ** 2


# The inversion


def test_inversion_is_that_of_the_solver():
    q = turbulence()
    found = op.pv_inversion("streamfunction", "u", "v").apply(labelled(q).astype(float))
    expected = reference(q)
    for name, key in (("streamfunction", "p"), ("u", "u"), ("v", "v")):
        np.testing.assert_allclose(found[name], expected[key], atol=1e-9 * np.abs(expected[key]).max())


@pytest.mark.parametrize(("kx", "ky"), [(1, 0), (3, -2), (0, 5)])
def test_inversion_of_a_wave_in_each_layer(kx: int, ky: int):
    """psi = a cos and b cos in the layers: q by its definition, and back."""
    cosine, square = wave(kx, ky)
    upper = RD**-2 / (1 + DELTA)
    a, b = 3e3, -1e3
    q = np.stack([-square * a + upper * (b - a), -square * b + DELTA * upper * (a - b)])[:, None, None] * cosine
    found = op.pv_inversion(*ALL).apply(labelled(q).astype(float))
    psi = np.stack([a * cosine, b * cosine])
    np.testing.assert_allclose(found.streamfunction, psi, atol=1e-8)
    np.testing.assert_allclose(found.vorticity, -square * psi, atol=1e-17)
    at = (np.arange(CELLS) + 0.5) / CELLS * 2 * np.pi
    sine = np.sin(kx * at + ky * at[:, None]) * 2 * np.pi / SIDE
    np.testing.assert_allclose(found.u, np.stack([a, b])[:, None, None] * ky * sine, atol=1e-12)
    np.testing.assert_allclose(found.v, np.stack([a, b])[:, None, None] * -kx * sine, atol=1e-12)


def test_inversion_has_labels_and_units_and_keeps_the_order_of_dimensions():
    data = labelled(turbulence()).astype(np.float32)
    found = op.pv_inversion(*ALL).apply(data)
    assert list(found.data_vars) == list(ALL)
    assert [found[n].units for n in ALL] == ["m2 s-1", "m s-1", "m s-1", "s-1"]
    assert found.u.dims == ("layer", "y", "x") and found.u.dtype == np.float32
    turned = op.pv_inversion().apply(data.transpose("x", "layer", "y"))
    assert turned.u.dims == ("x", "layer", "y")
    np.testing.assert_allclose(turned.u.transpose(*found.u.dims), found.u, rtol=1e-4, atol=1e-6)


def test_inversion_is_linear_and_written_down():
    operator = op.pv_inversion("v", rd=2e4)
    assert operator.linear and op.from_json(operator.to_json()) == operator == op.parse("pv_inversion('v', rd=2e4)")
    bound = operator.bind(Template.from_dataset(labelled(turbulence())))
    q = torch.as_tensor(turbulence()).requires_grad_()
    other = torch.as_tensor(turbulence(1))
    together = bound({"q": q + 2 * other})["v"]
    torch.testing.assert_close(together, bound({"q": q})["v"] + 2 * bound({"q": other})["v"])
    (slope,) = torch.autograd.grad(bound({"q": q})["v"][0, 3, 4], q)
    expected = float(bound({"q": other})["v"][0, 3, 4])
    assert float((slope * other).sum()) == pytest.approx(expected)


def test_inversion_says_what_it_cannot_do():
    data = labelled(turbulence())
    for call, message in [
        (lambda: op.pv_inversion("w"), "there is no output"),
        (lambda: op.pv_inversion("u", "u"), "expected one or more different ones"),
        (lambda: op.pv_inversion(rd=-1.0), "expected a positive number"),
        (lambda: op.pv_inversion(variable="pv").apply(data), "there is no variable"),
        (lambda: op.pv_inversion().apply(data.isel(layer=[0])), "expected one with two layers"),
        (lambda: op.pv_inversion().apply(data.isel(x=slice(1, None))), "take the whole domain"),
        (lambda: op.pv_inversion().apply(data.drop_vars("x")), "periodic=1"),
    ]:
        with pytest.raises(OperatorError, match=message):
            call()


# The model


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
        ({"rd": 0.0}, "expected a positive number"),
        ({"spin_up": -1.0}, "expected 0 or more"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        QuasiGeostrophic(**options)
