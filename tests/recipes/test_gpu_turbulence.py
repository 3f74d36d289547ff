"""The torch solver of recipes/gpu against closed forms, and against the package's solver."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sdaxr.systems.base import seed_words
from sdaxr.systems.kolmogorov import Kolmogorov, _solver

SMALL = Kolmogorov(resolution=32, coarsen=2)
# Neither viscosity to speak of, nor drag, nor forcing.
INVISCID = Kolmogorov(resolution=32, coarsen=1, reynolds=1e12, drag=0.0, forcing=0.0)


@pytest.fixture(scope="module")
def turbulence() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "recipes" / "gpu" / "turbulence.py"
    spec = importlib.util.spec_from_file_location("gpu_turbulence", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def double(turbulence):
    """A solver in double precision."""
    return lambda system: turbulence.Flow("cpu", system=system, dtype=torch.float64)


def on_faces(flow, u, v) -> torch.Tensor:
    """A state from functions of x and y."""
    n = flow.system.resolution
    lower = torch.arange(n, dtype=torch.float64) * flow.width
    centre, upper = lower + flow.width / 2, lower + flow.width
    y = centre[:, None], upper[:, None]
    return torch.stack([u(upper, y[0]).expand(n, n), v(centre, y[1]).expand(n, n)])[None]


def waves(flow) -> torch.Tensor:
    """A smooth velocity without divergence that is not steady: stream function sin x cos y + sin(2 x + y) / 2."""
    state = on_faces(
        flow,
        lambda x, y: -torch.sin(x) * torch.sin(y) + torch.cos(2 * x + y) / 2,
        lambda x, y: -torch.cos(x) * torch.cos(y) - torch.cos(2 * x + y),
    )
    return flow.project(state)


def energy(state: torch.Tensor) -> float:
    return float((state**2).sum(1).mean() / 2)


def discrete(k: int, width: float) -> float:
    """Of a wave k, minus the second difference over the square of the width."""
    return (2 / width * math.sin(k * width / 2)) ** 2


def test_a_shear_decays_by_viscosity_and_drag(double):
    flow = double(replace(SMALL, reynolds=20.0, forcing=0.0))
    start = on_faces(flow, lambda x, y: torch.sin(3 * y) + 0 * x, lambda x, y: 0 * x * y)
    rate = discrete(3, flow.width) / 20 + SMALL.drag
    euler = (1 - rate * SMALL.step / flow.substeps) ** flow.substeps
    torch.testing.assert_close(flow.step_state(start), euler * start, rtol=0, atol=1e-13)
    assert euler == pytest.approx(math.exp(-(9 / 20 + SMALL.drag) * SMALL.step), rel=5e-3)


def test_the_laminar_flow_is_steady(double):
    flow = double(replace(SMALL, reynolds=20.0, wavenumber=2, forcing=1.5))
    amplitude = 1.5 / (discrete(2, flow.width) / 20 + SMALL.drag)
    laminar = on_faces(flow, lambda x, y: amplitude * torch.sin(2 * y) + 0 * x, lambda x, y: 0 * x * y)
    torch.testing.assert_close(flow.step_state(laminar), laminar, rtol=0, atol=1e-12)


def test_momentum_and_the_flux_through_each_cell_are_kept(double):
    flow = double(INVISCID)
    start = waves(flow) + torch.tensor([0.3, -0.2])[:, None, None]
    after = flow.step_state(start)
    assert (after - start).abs().max() > 0.05
    torch.testing.assert_close(after.mean((-2, -1)), start.mean((-2, -1)), rtol=0, atol=1e-13)
    u, v = after.unbind(1)
    torch.testing.assert_close(u - u.roll(1, -1), v.roll(1, -2) - v, rtol=0, atol=1e-13)


def test_energy_is_lost_to_the_order_of_the_scheme(double):
    # Second in the width of a cell, first in the step, which is shortened here with the square of the width.
    lost = []
    for n in (16, 32, 64):
        flow = double(replace(INVISCID, resolution=n, cfl_velocity=5 * n / 32))
        state = waves(flow)
        start = energy(state)
        for _ in range(3):
            state = flow.step_state(state)
        lost.append(1 - energy(state) / start)
    assert 0 < lost[2] < 0.01
    assert lost[0] / lost[1] > 3.5 and lost[1] / lost[2] > 3.5


def test_the_error_of_a_step_is_of_the_first_order(double):
    def after(speed: float) -> torch.Tensor:
        flow = double(replace(INVISCID, cfl_velocity=speed))
        return flow.step_state(waves(flow))

    coarse, middle, fine = (after(speed) for speed in (5.0, 10.0, 20.0))
    assert float((coarse - middle).norm() / (middle - fine).norm()) == pytest.approx(2, rel=0.1)


def test_means_of_a_wave(double):
    # Over two faces, then over blocks: the trapezoidal rule along the velocity, the midpoint rule across it.
    flow = double(Kolmogorov(resolution=64, coarsen=4))
    kx, ky = 3, 2
    state = on_faces(flow, lambda x, y: torch.cos(kx * x + ky * y + 0.4), lambda x, y: torch.sin(kx * x + ky * y - 0.3))
    centres = (torch.arange(16, dtype=torch.float64) + 0.5) * 4 * flow.width
    phase = kx * centres + ky * centres[:, None]

    def damping(k: int, along: bool) -> float:
        half = k * flow.width / 2
        return math.sin(4 * half) / (4 * math.sin(half)) * (math.cos(half) if along else 1)

    u = damping(kx, True) * damping(ky, False) * torch.cos(phase + 0.4)
    v = damping(kx, False) * damping(ky, True) * torch.sin(phase - 0.3)
    means = flow.velocity(state)
    torch.testing.assert_close(means, torch.stack([u, v])[None], rtol=0, atol=1e-13)
    exact = np.sinc(kx / 16) * np.sinc(ky / 16)
    assert means.abs().max() == pytest.approx(exact, rel=0.02)


def test_steps_are_those_of_the_package(turbulence):
    solver = _solver(SMALL)
    velocity = solver.initial(seed_words(3))
    flow = turbulence.Flow("cpu", system=SMALL)
    state = flow.from_velocity(*(np.asarray(c.data) for c in velocity))
    first = flow.velocity(state)
    for _ in range(5):
        np.testing.assert_allclose(flow.velocity(state)[0], np.stack(solver.output(velocity)), atol=2e-5)
        velocity, state = solver.next_state(velocity), flow.step_state(state)
    assert (flow.velocity(state) - first).std() > 0.1


def test_initial_velocities_are_those_of_the_package_in_distribution(turbulence):
    solver, flow = _solver(SMALL), turbulence.Flow("cpu", system=SMALL)
    ours = flow.initial(range(200))
    assert flow._divergence(ours).abs().max() < 1e-4
    np.testing.assert_allclose((ours**2).sum(1).amax((-2, -1)).sqrt(), SMALL.max_velocity, rtol=1e-5)
    drawn = [solver.initial(seed_words(seed)) for seed in range(200)]
    theirs = flow.from_velocity(*(np.stack([np.asarray(v[i].data) for v in drawn]) for i in range(2)))

    def spectra(state: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft2(state).abs() ** 2
        return torch.stack([power[:, 0, 2, 0], power[:, 0, 4, 1], power[:, 1, 0, 5], power[:, 1, 2, 3]], 1)

    a, b = spectra(ours), spectra(theirs)
    error = ((a.var(0) + b.var(0)) / 200).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all() and (error < 0.15 * b.mean(0)).all()


def test_a_trajectory_depends_on_its_own_seed(turbulence):
    options = {"steps": 2, "spin_up": 1, "system": SMALL}
    # The last of the two batches is filled up.
    first, last = turbulence.trajectories("cpu", [5, 6, 7], batch=2, **options)
    assert first.shape == (2, 2, 2, 16, 16) and last.shape == (1, 2, 2, 16, 16)
    (other,) = turbulence.trajectories("cpu", [7, 5], batch=2, out=torch.float16, **options)
    torch.testing.assert_close(other.float(), torch.stack([last[0], first[0]]), rtol=1e-3, atol=1e-3)
    assert other.dtype == torch.float16 and (first[0] - first[1]).std() > 0.1
    assert (first[:, 1] - first[:, 0]).std() > 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_fused_and_recorded_steps_are_those_of_a_cpu(turbulence):
    cpu, gpu = (turbulence.Flow(device, system=SMALL) for device in ("cpu", "cuda"))
    state = cpu.initial([1, 2])
    for batch in (state, state[:1]):
        expected = cpu.step_state(cpu.step_state(batch))
        found = gpu.step_state(gpu.step_state(batch.cuda()))
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)
