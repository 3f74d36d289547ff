"""Filters, smoothers and 4D-Var against the closed form, against each other, and where the expectation is known."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, Ring, condition, truth_of, whole_operator, whole_prior

import sdaxr
from sdaxr import operators as op
from sdaxr.filters import bpf, ffbs, fourdvar
from sdaxr.filters.kalman import draw_trajectories, kalman_filter, rts_smoother
from sdaxr.filters.smoothing import METHODS, smooth
from sdaxr.filters.state_space import StateSpaceModel, build_model
from sdaxr.observations.observe import observe
from sdaxr.schema import ArchiveError, DataError, DivergenceError, GridError, OperatorError, OptionError, UnitsError
from sdaxr.systems.layout import system_layout
from sdaxr.systems.linear import Linear
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.markov import MarkovChain
from sdaxr.verification.densities import log_likelihood, log_prior

LENGTH = 6
LORENZ = Lorenz63(spin_up=100)
QUIET = {"progress": False}
CASES = {
    "components": (TRIPLE, op.select("x1", "x3"), {"error": {"x1": 0.6, "x3": 0.9}, "every": 2}),
    "scaled and gappy": (TRIPLE, op.scale(2.0, offset=1.0), {"error": 2.0, "missing": 0.4}),
    "on a grid": (Ring(), op.coarsen(2), {"error": 0.8, "start": 1, "every": 3}),
    "at stations": (Ring(), op.points({"site": [0.25, 3.5]}), {"error": 1.0}),
    "correlated": (Ring(), op.coarsen(2), {"error": 0.8, "correlation": {"site": 3.0}}),
}
# The two means over half a ring of four sites are two sites apart.
CORRELATION = np.kron(np.eye(LENGTH), [[1.0, np.exp(-2 / 3)], [np.exp(-2 / 3), 1.0]])


def model_of(system: MarkovChain, networks: dict[str, xr.Dataset], length: int = LENGTH) -> StateSpaceModel:
    operators = {name: sdaxr.observations.observe.operator_for(data) for name, data in networks.items()}
    return build_model(networks, operators, system, system_layout(system).times(0.0, length))[0]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest):
    """System, observations, state-space model, and the closed form: mean (L, n), covariance (L, n, L, n), evidence."""
    system, operator, how = CASES[request.param]
    truth = truth_of(system, LENGTH, 3)
    observations = observe(truth, operator, seed=4, **how)
    aligned = observations.reindex(time=truth.time, method="nearest", tolerance=1e-6)
    names = [n for n in observations.data_vars if not n.endswith("_error")]
    y, error = (
        np.concatenate([aligned[n + end].broadcast_like(aligned[n]).values.ravel() for n in names])
        for end in ("", "_error")
    )
    matrix, offset = whole_operator(operator, truth, system)
    correlation = CORRELATION if "correlation" in how else None
    mean, covariance, evidence = condition(whole_prior(system, LENGTH), matrix, offset, y, error, correlation)
    shape = (LENGTH, system.size)
    exact = mean.reshape(shape), covariance.reshape(*shape, *shape), evidence
    return system, observations, model_of(system, {"observations": observations}), exact


def assert_same_gaussian(paths: np.ndarray, exact: tuple, independent: int) -> None:
    """Means, and covariances of each state with itself and the next one, within five standard errors."""
    mean, covariance, _ = exact
    deviation = np.sqrt(np.einsum("titi->ti", covariance))
    error = 5 / np.sqrt(independent)
    assert np.abs((paths.mean(0) - mean) / deviation).max() < error
    away = (paths - paths.mean(0)) / deviation
    for later in (0, 1):
        steps = range(len(mean) - later)
        found = np.array([away[:, t].T @ away[:, t + later] / len(paths) for t in steps])
        expected = np.array([covariance[t, :, t + later] / np.outer(deviation[t], deviation[t + later]) for t in steps])
        # The product of two correlated normal variables has a variance of at most two.
        assert np.abs(found - expected).max() < np.sqrt(2) * error


# Exact methods


def test_kalman_smoother_is_the_conditioned_gaussian(case) -> None:
    _, _, model, (mean, covariance, evidence) = case
    filtered = kalman_filter(model)
    means, covariances = rts_smoother(filtered)
    # Operators and observations are in single precision.
    np.testing.assert_allclose(means, mean, atol=2e-5)
    np.testing.assert_allclose(covariances, np.einsum("titj->tij", covariance), atol=2e-5)
    assert filtered.log_evidence == pytest.approx(evidence, abs=1e-3)


def test_kalman_trajectories_have_the_covariances_of_the_closed_form(case) -> None:
    _, _, model, exact = case
    paths = draw_trajectories(kalman_filter(model), 20_000, seed=1)
    assert_same_gaussian(paths, exact, 20_000)


def test_fourdvar_on_a_linear_chain_is_the_smoothed_mean(case) -> None:
    _, _, model, (mean, _, _) = case
    guess = np.random.default_rng(0).normal(0, 3, (5, *mean.shape))
    found = fourdvar.minimise(model, guess)
    assert found.converged.all() and (found.after < found.before).all()
    np.testing.assert_allclose(found.states, np.broadcast_to(mean, guess.shape), atol=1e-3)


def test_block_tridiagonal_systems_are_solved() -> None:
    random = np.random.default_rng(0)
    below, right = random.normal(size=(2, 4, 3, 3)), random.normal(size=(2, 5, 3))
    root = random.normal(size=(2, 5, 3, 3))
    diagonal = root @ root.swapaxes(2, 3) + 10 * np.eye(3)
    found = fourdvar.solve_block_tridiagonal(diagonal, below, right)
    for m in range(2):
        dense = np.zeros((5, 3, 5, 3))
        for t in range(5):
            dense[t, :, t] = diagonal[m, t]
            if t < 4:
                dense[t + 1, :, t], dense[t, :, t + 1] = below[m, t], below[m, t].T
        np.testing.assert_allclose(dense.reshape(15, 15) @ found[m].ravel(), right[m].ravel(), atol=1e-10)


# Particles


def test_particle_filter_and_backward_simulation_are_the_kalman_smoother(case) -> None:
    system, _, model, exact = case
    filtered = bpf.particle_filter(model, 2**15, seed=2)
    # An estimate from n draws of a weight of relative variance v is off by sqrt(v / n), and n / v are effective.
    assert filtered.log_evidence == pytest.approx(exact[2], abs=4 * np.sqrt(LENGTH / filtered.effective))
    assert 1000 < filtered.effective < 2**15
    # The filter's own error, of its least effective step, comes on top of that of the draws.
    effective = int(min(filtered.effective, 4000) / 2)
    assert_same_gaussian(ffbs.backward_simulation(system, filtered, 4000, seed=3), exact, effective)
    assert_same_gaussian(bpf.genealogies(filtered, 4000, seed=3), exact, effective // 2)


@pytest.mark.parametrize("trials", [0, 2**14], ids=["weights of all", "rejection"])
def test_particles_are_chosen_by_the_transition_density(monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    monkeypatch.setattr(ffbs, "_TRIALS", trials)
    random = np.random.default_rng(0)
    predicted = random.normal(size=(40, 2))
    later = np.array([[0.5, -0.2], [5.0, 4.0]])
    draws = 5000
    chosen = ffbs.choose(np.repeat(later, draws, axis=0), predicted, random).reshape(2, draws)
    weights = np.exp(-((predicted - later[:, None]) ** 2).sum(-1) / 2)
    weights /= weights.sum(1, keepdims=True)
    found = np.stack([np.bincount(c, minlength=40) for c in chosen]) / draws
    assert np.abs(found - weights).max() < 5 * np.sqrt(0.25 / draws)


def test_systematic_resampling_gives_each_its_share() -> None:
    weights = np.random.default_rng(0).gamma(0.3, size=200)
    picked = np.bincount(bpf.systematic_resampling(weights, 1000, np.random.default_rng(1)), minlength=200)
    share = 1000 * weights / weights.sum()
    assert picked.sum() == 1000 and (np.abs(picked - share) < 1).all()


SETTINGS = {"low": ({"every": 8, "error": 0.05 * 8}, 14.2), "high": ({"every": 1, "error": 0.25 * 8}, -2.1)}


@pytest.mark.parametrize("setting", SETTINGS)
def test_backward_simulation_has_the_analytic_densities_on_lorenz63(setting: str) -> None:
    how, expected = SETTINGS[setting]
    prior, likelihood = [], []
    truths = 6
    for seed in range(truths):
        truth = truth_of(LORENZ, 65, seed)
        observations = observe(truth, op.select("a"), seed=seed, **how)
        posterior = smooth(observations, LORENZ, method="ffbs", members=32, particles=4096, seed=1, **QUIET)
        prior.append(float(log_prior(posterior, LORENZ).mean()))
        # Counted for y / 8, as the paper does.
        values = int(observations.a.notnull().sum())
        likelihood.append(float(log_likelihood(posterior, observations).mean()) + values * np.log(8))
    # Standard deviations: 9.8 / sqrt(members) and about 2 between truths; sqrt(count / 2) for the likelihood.
    assert np.mean(prior) == pytest.approx(81.7, abs=4 * np.hypot(9.8 / np.sqrt(truths * 32), 2 / np.sqrt(truths)))
    assert np.mean(likelihood) == pytest.approx(expected, abs=4 * np.sqrt(values / 2 / truths))


def test_weak_filters_are_told(caplog: pytest.LogCaptureFixture) -> None:
    observations = observe(truth_of(TRIPLE, LENGTH, 0), op.identity(), error=1e-3)
    with caplog.at_level(logging.WARNING, "sdaxr"):
        smooth(observations, TRIPLE, method="bpf", members=2, particles=64, **QUIET)
    assert "particles are effective" in caplog.text
    undefined = op.function(lambda fields: {name: (-1 - x.abs()).sqrt() for name, x in fields.items()})
    with pytest.raises(DivergenceError, match="the observations at 0.0 have the log-likelihood nan for some particle"):
        smooth(observations, TRIPLE, operator=undefined, members=2, particles=64, **QUIET)


# 4D-Var where nothing is linear


@pytest.fixture(scope="module")
def lorenz_observations() -> xr.Dataset:
    return observe(truth_of(LORENZ, 33, 1), op.select("c"), every=4, error=0.8, seed=1)


@pytest.mark.parametrize("operator", [op.select("c"), op.select("a", "c") >> op.arctan(0.05)], ids=repr)
def test_fourdvar_ends_where_the_gradient_vanishes(operator: op.Operator) -> None:
    error = 0.8 if "arctan" not in repr(operator) else 0.03
    model = model_of(LORENZ, {"c": observe(truth_of(LORENZ, 33, 1), operator, every=4, error=error, seed=1)}, 33)
    filtered = bpf.particle_filter(model, 1024, seed=0)
    guess = ffbs.backward_simulation(LORENZ, filtered, 4, seed=0)
    found = fourdvar.minimise(model, guess)
    np.testing.assert_allclose(found.before, fourdvar.cost(model, guess))
    assert found.converged.all() and (found.after < found.before - 10).all()

    def slope(x: np.ndarray, at: tuple[int, int]) -> np.ndarray:
        width = np.zeros(x.shape)
        width[:, *at] = 1e-4
        return (fourdvar.cost(model, x + width) - fourdvar.cost(model, x - width)) / 2e-4

    for at in [(0, 0), (4, 2), (17, 1), (32, 2)]:
        assert np.abs(slope(found.states, at)).max() < 0.01 < np.abs(slope(guess, at)).max()
        np.testing.assert_allclose(fourdvar.linearise(model, guess)[0][:, *at], slope(guess, at), rtol=1e-4, atol=1e-4)


def test_fourdvar_starts_from_a_posterior(lorenz_observations: xr.Dataset) -> None:
    posterior = smooth(lorenz_observations, LORENZ, method="ffbs", members=6, particles=1024, **QUIET)
    refined = smooth(lorenz_observations, LORENZ, method="4dvar", members=5, first_guess=posterior, **QUIET)
    assert refined.attrs["cost_after"] < refined.attrs["cost_before"] and refined.attrs["members_not_converged"] == 0
    assert "particles" not in refined.attrs
    gain = (log_prior(refined, LORENZ) + log_likelihood(refined, lorenz_observations)) - (
        log_prior(posterior, LORENZ) + log_likelihood(posterior, lorenz_observations)
    )
    assert float(gain.min()) > 10  # member by member
    costs = refined.attrs["cost_before"] - refined.attrs["cost_after"]
    assert costs == pytest.approx(float(gain.mean()), rel=1e-3)


def test_fourdvar_tells_when_it_has_not_converged(
    lorenz_observations: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(LORENZ, {"c": lorenz_observations}, 33)
    guess = LORENZ.initial(2 * 33, 0).reshape(2, 33, 3)
    with caplog.at_level(logging.WARNING, "sdaxr"):
        found = fourdvar.minimise(model, guess, iterations=2)
    assert not found.converged.any() and (found.after <= found.before).all()
    assert "2 of 2 trajectories have not reached a mode after 2 iterations" in caplog.text


# Labels and files


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    return observe(truth_of(TRIPLE, LENGTH, 1), op.select("x2"), every=2, error=0.5, seed=2)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_posterior_dataset(observations: xr.Dataset, method: str, tmp_path) -> None:
    options = {"system": TRIPLE, "method": method, "members": 3, "seed": 7} | QUIET
    if method != "kalman":
        options["particles"] = 256
    found = observations.sda.assimilate(**options)
    assert dict(found.sizes) == {"member": 3, "time": LENGTH} and list(found.data_vars) == ["x1", "x2", "x3"]
    assert found.x1.dims == ("member", "time") and found.x1.dtype == np.float32 and found.x1.attrs["units"] == "1"
    assert found.member.attrs["standard_name"] == "realization" and found.time.attrs["units"] == "1"
    np.testing.assert_allclose(found.time, 0.5 * np.arange(LENGTH))
    attrs = found.attrs
    assert attrs["method"] == method and attrs["seed"] == 7 and attrs["Conventions"] == "CF-1.11"
    assert attrs["sdaxr_system"] == "linear" and json.loads(attrs["sdaxr_options"])["step"] == 0.5
    assert attrs["observations_used"] == [3] and attrs["observations_dropped"] == [0]
    assert ("log_evidence" in attrs) == (method != "4dvar")
    stored = observations.sda.assimilate(store=tmp_path / "p.zarr", **options)
    xr.testing.assert_identical(stored.drop_vars("status").drop_attrs(deep=False).load(), found.drop_attrs(deep=False))
    assert {k: stored.attrs[k] for k in attrs} == attrs
    opened = xr.open_zarr(tmp_path / "p.zarr")
    opened.drop_vars("status").to_netcdf(tmp_path / "p.nc")
    other = observations.sda.assimilate(**options | {"seed": 8})
    assert method == "4dvar" or float(abs(other.x1 - found.x1).max()) > 0.01
    with pytest.raises(ArchiveError, match="seed: 7 -> 8"):
        observations.sda.assimilate(store=tmp_path / "p.zarr", **options | {"seed": 8})


def test_a_finished_archive_is_returned_and_a_broken_one_resumed(
    observations: xr.Dataset, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"method": "kalman", "members": 4, "store": tmp_path / "p.zarr"} | QUIET
    whole = smooth(observations, TRIPLE, **options | {"store": None})
    original = sdaxr.archives.archive.Archive.write

    def broken(self, index, arrays):
        if index == 2:
            raise KeyboardInterrupt
        original(self, index, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(sdaxr.archives.archive.Archive, "write", broken)
        with pytest.raises(KeyboardInterrupt):
            smooth(observations, TRIPLE, **options)
    resumed = smooth(observations, TRIPLE, **options)
    np.testing.assert_array_equal(resumed.x1, whole.x1)
    monkeypatch.setattr(sdaxr.archives.archive.Archive, "write", None)
    np.testing.assert_array_equal(smooth(observations, TRIPLE, **options).x1, whole.x1)


def test_a_posterior_is_continued_by_its_system(observations: xr.Dataset) -> None:
    posterior = smooth(observations, Linear(step=0.5, noise=((0.1, 0), (0, 0.1))), method="kalman", members=2, **QUIET)
    later = posterior.sda.forecast("linear", steps=3, progress=False)
    assert json.loads(later.attrs["model_options"])["noise"] == [[0.1, 0.0], [0.0, 0.1]]


def test_networks_points_and_windows_are_what_they_are_together(observations: xr.Dataset) -> None:
    truth = truth_of(TRIPLE, LENGTH, 1)
    second = observe(truth, op.select("x1"), error=0.2, seed=5)
    both = smooth({"one": observations, "two": second}, TRIPLE, method="kalman", **QUIET)
    tree = smooth(xr.DataTree.from_dict({"/one": observations, "/two": second}), TRIPLE, method="kalman", **QUIET)
    xr.testing.assert_identical(both, tree)
    assert both.attrs["networks"] == ["one", "two"] and both.attrs["observations_used"] == [3, 6]
    # The same measurements one by one, in another order.
    points = second.reset_coords(drop=True).drop_attrs(deep=False).isel(time=[3, 0, 5, 1, 2, 4]).rename(time="obs")
    points = points.rename_vars(obs="time").assign(x1_error=("obs", np.full(6, 0.2)))
    mixed = smooth({"one": observations, "two": points}, TRIPLE, method="kalman", **QUIET)
    np.testing.assert_allclose(mixed.x1, both.x1, atol=1e-5)
    assert mixed.attrs["log_evidence"] == pytest.approx(both.attrs["log_evidence"], abs=1e-5)
    cut = smooth(second, TRIPLE, method="kalman", times=0.5 * np.arange(2, 9), outside="drop", **QUIET)
    np.testing.assert_allclose(cut.time, 0.5 * np.arange(2, 9))
    assert cut.attrs["observations_used"] == [4] and cut.attrs["observations_dropped"] == [2]
    one = smooth(second.isel(time=[2]), TRIPLE, method="ffbs", particles=64, times=[1.0, 1.5], **QUIET)
    assert one.sizes["time"] == 2


@pytest.mark.parametrize("method", ["kalman", "ffbs", "bpf", "4dvar"])
def test_a_background_is_an_observation_of_the_first_state(observations: xr.Dataset, method: str) -> None:
    background = xr.Dataset({"x1": 1.5, "x1_error": 0.3, "x3": -1.0, "x3_error": 0.4})
    matrix = np.zeros((5, LENGTH, 3))
    matrix[[0, 1, 2], [0, 2, 4], 1] = 1
    matrix[[3, 4], 0, [0, 2]] = 1
    y, error = np.append(observations.x2.values, [1.5, -1.0]), np.array([0.5, 0.5, 0.5, 0.3, 0.4])
    mean, covariance, evidence = condition(whole_prior(TRIPLE, LENGTH), matrix.reshape(5, -1), np.zeros(5), y, error)
    particles = {} if method == "kalman" else {"particles": 2**14}
    found = smooth(observations, TRIPLE, method=method, members=1000, background=background, **particles, **QUIET)
    paths = np.stack([found[f"x{i}"].values for i in (1, 2, 3)], axis=-1)
    deviation = np.sqrt(np.diag(covariance)).reshape(LENGTH, 3)
    error = 1e-3 if method == "4dvar" else 0.25
    assert np.abs((paths.mean(0) - mean.reshape(LENGTH, 3)) / deviation).max() < error
    if method != "4dvar":
        assert found.attrs["log_evidence"] == pytest.approx(evidence, abs=1e-4 if method == "kalman" else 0.1)
    labelled = background.expand_dims(time=[0.0])
    same = smooth(observations, TRIPLE, method=method, members=1000, background=labelled, **particles, **QUIET)
    np.testing.assert_array_equal(same.x1, found.x1)


# Messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ffsb"}, "Did you mean 'ffbs'"),
        ({"members": 0}, "members=0, expected at least 1"),
        ({"seed": -1}, "seed=-1, expected at least 0"),
        ({"particles": 1}, "particles=1, expected at least 2"),
        ({"method": "kalman", "particles": 100}, "particles= is for method='bpf', 'ffbs'"),
        ({"first_guess": xr.Dataset()}, "first_guess= is for method='4dvar', found method='ffbs'"),
        ({"outside": "dropp"}, "Did you mean 'drop'"),
    ],
)
def test_impossible_options(observations: xr.Dataset, tmp_path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        smooth(observations, TRIPLE, store=tmp_path / "p.zarr", **QUIET | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ffbs"}, "needs a physical model, found none; pass system="),
        ({"method": "sda"}, "needs a prior, found none"),
        ({"method": "ffbs", "system": "linear", "prior": "lorenz63"}, "found prior= beside method='ffbs'"),
        ({"method": "ffbs", "system": "linear", "gamma": 0.1}, "found gamma= beside method='ffbs'"),
        ({"prior": "lorenz63", "system": "linear"}, r"found system= beside method='sda'.*\(bpf, ffbs, kalman, 4dvar\)"),
        ({"prior": "lorenz63", "particles": 10}, "found particles= beside method='sda'"),
        ({"method": "fbs"}, "Did you mean 'ffbs'"),
    ],
)
def test_a_method_takes_what_it_needs_and_nothing_else(observations: xr.Dataset, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sdaxr.assimilate(observations, **options)


def test_systems_that_do_not_fit(observations: xr.Dataset, lorenz_observations: xr.Dataset) -> None:
    with pytest.raises(OptionError, match="'lorenz96' has no Gaussian noise, expected a sdaxr.systems.MarkovChain"):
        smooth(observations, "lorenz96", **QUIET)
    with pytest.raises(OptionError, match="needs a Gaussian first state, that of lorenz63 is not"):
        smooth(lorenz_observations, LORENZ, method="kalman", **QUIET)
    curved = observe(truth_of(TRIPLE, LENGTH, 1), op.arctan(), error=0.1)
    with pytest.raises(OptionError, match="needs linear functions, the observation operator at 0.0 is not"):
        smooth(curved, TRIPLE, method="kalman", **QUIET)
    with pytest.raises(OptionError, match="without noise there is no density"):
        smooth(lorenz_observations, Lorenz63(spin_up=10, noise=0), method="ffbs", particles=64, **QUIET)
    with pytest.raises(DataError, match=r"expected linear's 1 .*|span .* steps of linear"):
        smooth(observations, "linear", times=0.5 * np.arange(LENGTH), **QUIET)
    with pytest.raises(DataError, match="gives no variable 'x3'"):
        smooth(observations.rename(x2="x3", x2_error="x3_error"), TRIPLE, operator=op.select("x2"), **QUIET)


def joined(fields):
    return {name: x - x.roll(1, dims=-1) for name, x in fields.items()}


@pytest.mark.parametrize("operator", [op.time_difference(), op.coarsen(2, dims="time"), op.function(joined)], ids=repr)
def test_observations_of_several_times_are_refused(operator: op.Operator) -> None:
    seen = observe(truth_of(TRIPLE, LENGTH, 1), operator, error=0.1)
    with pytest.raises(OperatorError, match="at several times jointly, expected an operator that looks at one state"):
        smooth(seen, TRIPLE, operator=operator, times=0.5 * np.arange(LENGTH), **QUIET)


def test_errors_correlated_in_time_are_refused() -> None:
    seen = observe(truth_of(TRIPLE, LENGTH, 1), op.select("x1"), error=0.1, correlation={"time": 0.5})
    with pytest.raises(OperatorError, match="errors that are not correlated in time"):
        smooth(seen, TRIPLE, **QUIET)


def test_backgrounds_and_first_guesses_that_do_not_fit(observations: xr.Dataset) -> None:
    def with_background(**variables) -> None:
        smooth(observations, TRIPLE, method="kalman", background=xr.Dataset(variables), **QUIET)

    with pytest.raises(DataError, match="'x1' has no 'x1_error'"):
        with_background(x1=1.0)
    with pytest.raises(UnitsError, match="'x1' has units 'K'"):
        with_background(x1=((), 1.0, {"units": "K"}), x1_error=0.1)
    with pytest.raises(DataError, match="the background has 2 times, expected one"):
        with_background(x1=("time", [1.0, 2.0]), x1_error=0.1)
    with pytest.raises(DataError, match="the background is at 0.5, expected the first time of the window, 0.0"):
        with_background(x1=xr.DataArray([1.0], {"time": [0.5]}, ["time"]), x1_error=0.1)

    def with_guess(guess: xr.Dataset, members: int = 1) -> None:
        smooth(observations, TRIPLE, method="4dvar", first_guess=guess, members=members, **QUIET)

    truth = truth_of(TRIPLE, LENGTH, 1)
    with_guess(truth)
    with pytest.raises(DataError, match="has 1 members, expected at least members=2"):
        with_guess(truth, members=2)
    with pytest.raises(DataError, match="no state at 1.0, nor at 3 other times"):
        with_guess(truth.isel(time=slice(2)))
    with pytest.raises(DataError, match="expected 'time' with a coordinate"):
        with_guess(truth.isel(time=0))
    with pytest.raises(DataError, match="variable 'x3'"):
        with_guess(truth[["x1", "x2"]])
    with pytest.raises(GridError, match="has dimensions"):
        with_guess(truth.expand_dims(site=3))
