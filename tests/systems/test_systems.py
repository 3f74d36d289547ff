"""Each system against a case with a known answer, and the promises that all of them make."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from sdaxr import systems
from sdaxr.schema import DataError, OptionError
from sdaxr.systems import registry
from sdaxr.systems.base import seed_words
from sdaxr.systems.kolmogorov import Kolmogorov, _solver
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


@dataclass(frozen=True)
class Decay(systems.System):
    """A user's system, in one file."""

    name: ClassVar[str] = "decay"

    step: float = 0.5
    rate: float = 1.0

    def template(self):
        return xr.Dataset({"x": ((), np.zeros((), np.float32), {"units": "1", "long_name": "what is left"})})

    def trajectory(self, steps, seed):
        return {"x": (seed * np.exp(-self.rate * self.step * np.arange(steps))).astype(np.float32)}

    def advance(self, state, steps, seed=0):
        return {"x": (state["x"] * np.exp(-self.rate * self.step * np.arange(1, steps + 1))).astype(np.float32)}


# All systems ---------------------------------------------------------------------------------------------------


def test_every_registered_system_is_tested_here():
    assert set(systems.systems()) >= set(SMALL)
    assert set(SMALL) == {"kolmogorov", "linear", "lorenz63", "lorenz96", "quasigeostrophic"}


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


def test_open_system_reads_options_and_offers_the_nearest_name():
    assert systems.open_system("kolmogorov", resolution="128", reynolds=500) == Kolmogorov(
        resolution=128, reynolds=500.0
    )
    assert isinstance(systems.open_system("kolmogorov", reynolds=500).reynolds, float)
    for name, options, message in [
        ("lorens63", {}, "Did you mean 'lorenz63'"),
        ("kolmogorov", {"resolutoin": 64}, "Did you mean 'resolution'"),
        ("kolmogorov", {"resolution": 64.5}, "expected a whole number such as 256"),
        ("kolmogorov", {"resolution": "fine"}, "expected a whole number such as 256"),
        ("kolmogorov", {"resolution": 62}, "a resolution that coarsen divides"),
        ("lorenz63", {"step": 0}, "expected a positive number"),
        ("lorenz96", {"sites": 2}, "expected at least 4"),
        ("linear", {"matrix": [[1.0, 0.0], [0.0, 0.5]]}, "eigenvalue of size 1, expected less than 1"),
        ("linear", {"matrix": [[0.5]]}, "a matrix of 1 rows and a noise of 2"),
        ("linear", {"matrix": [0.5, 0.1]}, "expected a square matrix as rows"),
        ("linear", {"matrix": "none"}, "expected rows of numbers"),
        ("linear", {"noise": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
        ("linear", {"noise": [[1.0, 2.0], [2.0, 1.0]]}, "the eigenvalue -1, expected none below 0"),
        ("linear", {"step": 0}, "expected a positive number"),
    ]:
        with pytest.raises(OptionError, match=message):
            systems.open_system(name, **options)
    with pytest.raises(OptionError, match="beside a Lorenz63 object"):
        systems.open_system(Lorenz63(), noise=0)


def test_a_user_adds_a_system_in_one_file(monkeypatch):
    monkeypatch.setattr(registry.SYSTEMS, "homes", dict(registry.SYSTEMS.homes))
    systems.register("decay", f"{__name__}:Decay")
    assert "decay" in systems.systems()
    assert systems.open_system("decay", rate="2").options() == {"step": 0.5, "rate": 2.0}
    with pytest.raises(OptionError, match="is already"):
        systems.register("decay", "elsewhere:Decay")
    with pytest.raises(OptionError, match="expected 'module:Class'"):
        systems.register("other", "elsewhere")


# Chains with Gaussian noise ------------------------------------------------------------------------------------

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


def test_linear_is_stationary():
    chain = CHAINS["linear"]
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


# Lorenz 1963 ---------------------------------------------------------------------------------------------------


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


# Lorenz 1996 ---------------------------------------------------------------------------------------------------


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


# Kolmogorov flow -----------------------------------------------------------------------------------------------

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
    solver = _solver(SMALL["kolmogorov"])
    velocity = solver.initial(seed_words(0))
    speed = np.sqrt(sum(np.asarray(c.data) ** 2 for c in velocity))
    assert speed.max() == pytest.approx(SMALL["kolmogorov"].max_velocity, rel=0.01)
    for _ in range(3):
        assert np.abs(solver.divergence(velocity)).max() < 1e-4
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
    system = SMALL["kolmogorov"]
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
    assert _solver(Kolmogorov(resolution=32, coarsen=2, spin_up=2)) is _solver(SMALL["kolmogorov"])


def test_kolmogorov_defaults_are_the_papers():
    system = Kolmogorov()
    assert (system.resolution, system.cells, system.reynolds, system.step) == (256, 64, 1e3, 0.2)
    assert (system.spin_up, system.wavenumber, system.drag) == (64, 4, 0.1)
    courant = 0.5 * (2 * math.pi / 256) / system.cfl_velocity
    assert math.ceil(system.step / courant) == 82
