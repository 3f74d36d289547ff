"""From observations to posterior archives: labels, seeds, resume, and every message."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.archive import Archive
from sdaxr.archives.reading import open_archive
from sdaxr.inference.assimilate import assimilate
from sdaxr.observations.innovations import innovations
from sdaxr.observations.observe import observe
from sdaxr.posterior.guidance import METHODS
from sdaxr.prior.files import Prior
from sdaxr.schema import ArchiveError, DataError, DivergenceError, GridError, OptionError, PriorError, UnitsError

CHAIN = GaussianChain(9)
WARM = op.function(lambda fields: {name: torch.tanh((x - 280) / 4) for name, x in fields.items()})
QUICK = {"steps": 12, "corrections": 0, "progress": False}


@pytest.fixture(scope="module")
def prior() -> Prior:
    return CHAIN.prior(samples=200)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return CHAIN.truth(1)


@pytest.fixture(scope="module")
def observations(truth: xr.Dataset) -> xr.Dataset:
    return observe(truth, op.identity(), every=2, error=0.4, seed=3)


def assert_close(one: xr.Dataset, other: xr.Dataset) -> None:
    for name in ("a", "b"):
        np.testing.assert_allclose(one[name].values, other[name].values, rtol=0, atol=1e-3)  # of 2 K


# What comes out


def test_posterior_is_the_kalman_smoother_in_physical_units(
    prior: Prior, truth: xr.Dataset, observations: xr.Dataset
) -> None:
    posterior = assimilate(
        observations, prior, members=400, method="sda", steps=100, corrections=0, seed=1, progress=False
    )
    y = (np.stack([observations.a, observations.b], -1) - 280) / 2
    full = np.full((9, 2), np.nan)
    full[::2] = y
    mean, cov = CHAIN.smoother(np.broadcast_to(np.eye(2), (9, 2, 2)), full, np.full((9, 2), 0.2))
    for i, name in enumerate("ab"):
        deviation = 2 * np.sqrt(cov[:, i, i])
        # The measured variance leaves out correlations: a part of the spread, beside the Monte-Carlo error.
        assert np.abs((posterior[name].mean("member") - 280 - 2 * mean[:, i]) / deviation).max() < 0.35
        assert np.abs(posterior[name].std("member") / deviation - 1).max() < 0.25


def test_labels_are_those_of_the_prior(prior: Prior, truth: xr.Dataset, observations: xr.Dataset) -> None:
    posterior = assimilate(observations, prior, members=3, seed=5, **QUICK)
    assert dict(posterior.sizes) == {"member": 3, "time": 9} and posterior.a.dims == ("member", "time")
    np.testing.assert_allclose(posterior.time, truth.time)
    assert posterior.a.attrs["units"] == "K" and posterior.time.attrs["units"] == "1"
    assert posterior.a.dtype == np.float32 and posterior.member.attrs["standard_name"] == "realization"
    attrs = posterior.attrs
    assert attrs["prior"] == "chain" and attrs["method"] == "sda" and attrs["seed"] == 5
    assert attrs["sampling_steps"] == 12 and attrs["sampling_gamma"] == "measured"
    assert json.loads(attrs["operators"][0]) == op.identity().to_dict()
    assert attrs["observations_used"] == [10] and attrs["observations_dropped"] == [0]


def test_archive_and_memory_hold_the_same(prior: Prior, observations: xr.Dataset, tmp_path: Path) -> None:
    options = {"members": 5, "batch": 2, "seed": 5} | QUICK
    memory = assimilate(observations, prior, **options)
    stored = assimilate(observations, prior, store=tmp_path / "p.zarr", **options)
    xr.testing.assert_identical(stored.drop_vars("status").drop_attrs(deep=False).load(), memory.drop_attrs(deep=False))
    assert {k: stored.attrs[k] for k in memory.attrs} == memory.attrs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "p.zarr")
        assert opened.a.chunks[0] == (1,) * 5 and bool(opened.a.notnull().all())
        opened.drop_vars("status").to_netcdf(tmp_path / "p.nc")
        again = xr.open_dataset(tmp_path / "p.nc")
    np.testing.assert_array_equal(again.b, memory.b)
    for key, value in memory.attrs.items():
        found = again.attrs[key]
        assert (found if not isinstance(value, list) else np.atleast_1d(found).tolist()) == value, key


def test_a_second_run_returns_the_archive(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = assimilate(observations, prior, members=2, store=tmp_path / "p.zarr", **QUICK).load()
    monkeypatch.setattr(Archive, "write", None)
    again = assimilate(observations, prior, members=2, store=tmp_path / "p.zarr", **QUICK)
    xr.testing.assert_identical(again.load(), first)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"members": 3},
        {"method": "dps"},
        {"gamma": 0.1},
        {"times": 0.5 * np.arange(12)},
        {"operator": op.scale(1.0)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_an_archive_of_other_settings_is_refused(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, change: dict
) -> None:
    options = {"members": 2, "store": tmp_path / "p.zarr"} | QUICK
    assimilate(observations, prior, **options)
    with pytest.raises(ArchiveError, match="another configuration"):
        assimilate(observations, prior, **(options | change))
    assimilate(observations, prior, overwrite=True, **(options | change))


def test_other_observations_are_other_settings(prior: Prior, observations: xr.Dataset, tmp_path: Path) -> None:
    assimilate(observations, prior, members=2, store=tmp_path / "p.zarr", **QUICK)
    correlated = observations.copy(deep=True)
    correlated.a_error.attrs["correlation_scales"] = '{"time": 1.0}'
    for other in (observations.assign(a=observations.a + 1), correlated):
        with pytest.raises(ArchiveError, match="observations_sha256"):
            assimilate(other, prior, members=2, store=tmp_path / "p.zarr", **QUICK)


class InterruptedRunError(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("after", [1, 3, 4])
def test_interrupted_runs_resume_to_the_identical_result(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    options = {"members": 6, "batch": 2, "seed": 5, "store": tmp_path / "p.zarr"} | QUICK
    whole = assimilate(observations, prior, **(options | {"store": None}))
    original, written = Archive.write, []

    def write(self: Archive, index: int, arrays: dict) -> None:
        if len(written) == after:
            raise InterruptedRunError
        original(self, index, arrays)
        written.append(index)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "write", write)
        with pytest.raises(InterruptedRunError):
            assimilate(observations, prior, **options)
    with pytest.raises(ArchiveError, match=f"is not finished: {after} of 6 units"):
        innovations(open_archive(tmp_path / "p.zarr"), observations)
    later = []
    monkeypatch.setattr(Archive, "write", lambda s, i, a: (later.append(i), original(s, i, a)))
    resumed = assimilate(observations, prior, **options)
    assert sorted(written + later) == list(range(6))
    for name in "ab":
        np.testing.assert_array_equal(resumed[name], whole[name])


# Members


def test_members_are_drawn_by_worker_processes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    chain = sdaxr.generate("lorenz63", tmp_path / "t.zarr", trajectories=1, steps=9, split=(0, 0, 1), progress=False)
    seen = sdaxr.observe(chain.isel(trajectory=0).load(), op.select("a"), every=4, error=1.0)
    shutil.copy(str(files("sdaxr.prior") / "shipped" / "lorenz63.safetensors"), tmp_path / "own.safetensors")
    options = {"members": 5, "batch": 2, "seed": 3, "steps": 4, "corrections": 0, "progress": False}
    here = assimilate(seen, "lorenz63", **options)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
    ):
        there = assimilate(seen, tmp_path / "own.safetensors", **options)
        stored = assimilate(seen, "lorenz63", store=tmp_path / "p.zarr", **options)
        far = seen.assign(a=(1e6 * seen.a).assign_attrs(seen.a.attrs))
        with pytest.raises(DivergenceError):
            assimilate(far, "lorenz63", **(options | {"gamma": 0.0}))
    assert_close(there, here)
    assert_close(stored, here)


@pytest.mark.parametrize(
    "options", [{"batch": 1}, {"batch": 3}, {"batch": 100}, {"members": 8}, {"members": 20}], ids=str
)
def test_member_seven_is_the_same_whatever_the_batch(prior: Prior, observations: xr.Dataset, options: dict) -> None:
    alone = assimilate(observations, prior, **({"members": 10, "batch": 4, "seed": 2} | QUICK))
    other = assimilate(observations, prior, **({"members": 10, "seed": 2} | QUICK | options))
    assert_close(alone.isel(member=[7]), other.isel(member=[7]))
    assert float(abs(alone.a.isel(member=7) - alone.a.isel(member=6)).max()) > 0.1


def test_seeds_and_samplers_give_other_members(prior: Prior, observations: xr.Dataset) -> None:
    runs = [
        assimilate(observations, prior, members=1, **(QUICK | options))
        for options in (
            {},
            {"seed": 1},
            {"sampler": "exponential"},
            {"sampler": "dpm++"},
            {"eta": 0.5},
            {"grid": "karras"},
            {"corrections": 1},
            {"gamma": 0.1},
            {"method": "dps"},
        )
    ]
    values = np.stack([r.a.values.ravel() for r in runs])
    assert len(np.unique(values.round(3), axis=0)) == len(runs)
    assert runs[2].attrs["sampling_gamma"] == 0.01  # the paper's


def test_settings_come_from_the_user_then_the_prior(prior: Prior, observations: xr.Dataset) -> None:
    tuned = prior.with_sampling(gamma=0.3, steps=5)
    found = assimilate(observations, tuned, members=1, steps=7, progress=False).attrs
    assert found["sampling_gamma"] == 0.3 and found["sampling_steps"] == 7 and found["sampling_corrections"] == 3
    with pytest.raises(OptionError, match="'gama'.*Did you mean 'gamma'"):
        assimilate(observations, prior.with_sampling(gama=0.3), members=1, progress=False)


# Several networks, windows


def test_two_networks_do_what_one_does(prior: Prior, observations: xr.Dataset) -> None:
    parts = {"first": observations.isel(time=slice(None, None, 2)), "second": observations.isel(time=slice(1, None, 2))}
    # The measured variance knows each network on its own; a given gamma does not.
    how = QUICK | {"gamma": 0.5, "members": 2}
    whole = assimilate(observations, prior, **how)
    mapped = assimilate(parts, prior, **how)
    tree = assimilate(xr.DataTree.from_dict({f"/{k}": v for k, v in parts.items()}), prior, **how)
    assert_close(mapped, whole)
    assert_close(tree, whole)
    assert mapped.attrs["networks"] == tree.attrs["networks"] == ["first", "second"]
    assert mapped.attrs["observations_used"] == [6, 4]
    xr.testing.assert_identical(assimilate(xr.DataTree(observations), prior, **how), whole)


def test_operators_by_network(prior: Prior, truth: xr.Dataset) -> None:
    halved = op.scale(0.5)
    parts = {
        "state": observe(truth, op.identity(), every=4, error=0.4),
        "half": observe(truth, halved, every=3, error=0.2).drop_attrs(deep=False),
    }
    found = assimilate(parts, prior, members=2, operator={"state": op.identity(), "half": halved}, **QUICK)
    assert [json.loads(o)["op"] for o in found.attrs["operators"]] == ["identity", "scale"]
    with pytest.raises(OptionError, match=r"none for the network 'state'; expected one of half, stat\. Did you mean"):
        assimilate(parts, prior, operator={"stat": op.identity(), "half": halved}, **QUICK)


def test_an_own_function_is_an_operator(prior: Prior, truth: xr.Dataset) -> None:
    own = observe(truth, op.identity(), error=0.4).drop_attrs(deep=False)
    found = assimilate(own, prior, members=1, operator=WARM, gamma=0.1, **QUICK)
    assert "function" in found.attrs["operators"][0]


def test_times_choose_the_window(prior: Prior, observations: xr.Dataset) -> None:
    longer = assimilate(observations, prior, members=1, times=0.5 * np.arange(-2, 12), **QUICK)
    np.testing.assert_allclose(longer.time, 0.5 * np.arange(-2, 12))
    as_array = xr.DataArray(0.5 * np.arange(12), dims="time", name="time", attrs={"units": "1"})
    assert assimilate(observations, prior, members=1, times=as_array, **QUICK).sizes["time"] == 12
    without = observations.drop_vars("window").isel(time=slice(1, 3))
    np.testing.assert_allclose(assimilate(without, prior, members=1, **QUICK).time, [1.0, 1.5, 2.0])


def test_observations_outside_are_dropped_when_asked(prior: Prior, observations: xr.Dataset) -> None:
    times = 0.5 * np.arange(5)
    with pytest.raises(DataError, match=r"lies outside the window.*outside=\"drop\""):
        assimilate(observations, prior, times=times, **QUICK)
    found = assimilate(observations, prior, members=1, times=times, outside="drop", **QUICK)
    assert found.attrs["observations_used"] == [6] and found.attrs["observations_dropped"] == [4]


# Methods


METHOD_SETTINGS = {
    "sda": {"gamma": "covariance"},
    "bounded": {"gamma": 0.1},
    "mmps": {"iterations": 4},
    "jacobian_free": {},
    "dmps": {"corrections": 4},
    "soad": {},
    "dps": {"zeta": 3.0},
}


def background_of(truth: xr.Dataset, error: float) -> xr.Dataset:
    first = truth.isel(time=0, drop=True)
    return first.assign(a=first.a + 0.5, b=first.b - 0.5, a_error=error, b_error=error)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_correlated_errors_and_a_background(prior: Prior, truth: xr.Dataset, method: str) -> None:
    observations = observe(truth, op.select("a"), every=2, start=2, error=0.4, correlation={"time": 1.0}, seed=3)
    options = {"method": method, "members": 30, "steps": 40, "corrections": 0, "progress": False}
    options |= METHOD_SETTINGS[method]
    background = background_of(truth, 0.1)
    found = assimilate(observations, prior, background=background, **options)
    assert found.attrs["method"] == method and found.attrs["networks"] == ["background", "observations"]
    assert found.attrs["observations_used"] == [2, 4]
    assert json.loads(found.attrs["operators"][0]) == op.identity().to_dict()
    without = assimilate(observations, prior, **options)
    for name in "ab":
        near, far = (abs(p[name].isel(time=0) - background[name]) for p in (found, without))
        assert float(near.mean()) < (0.3 if method != "dps" else 0.8 * float(far.mean()))


@pytest.mark.parametrize("method", ["sda", "jacobian_free", "mmps"])
def test_posterior_with_a_background_and_correlated_errors_is_the_closed_form(truth: xr.Dataset, method: str) -> None:
    scale, errors = 1.0, 0.4
    observations = observe(truth, op.select("a"), error=errors, correlation={"time": scale}, seed=3)
    background = background_of(truth, 0.6)
    options = {"sda": {"gamma": "covariance"}, "jacobian_free": {}, "mmps": {"iterations": 6}}[method]
    posterior = assimilate(
        observations, CHAIN.prior(samples=4000), background=background, method=method, members=300, steps=80,
        corrections=0, progress=False, **options,
    )  # fmt: skip
    h = np.concatenate([np.eye(2, 18), np.kron(np.eye(9), [[1.0, 0.0]])])
    times = 0.5 * np.arange(9)
    noise = np.zeros((11, 11))
    noise[:2, :2] = 0.3**2 * np.eye(2)
    noise[2:, 2:] = 0.2**2 * np.exp(-np.abs(np.subtract.outer(times, times)) / scale)
    y = (np.array([background.a, background.b, *observations.a]) - 280) / 2
    gain = CHAIN.covariance @ h.T @ np.linalg.inv(h @ CHAIN.covariance @ h.T + noise)
    mean, cov = (gain @ y).reshape(9, 2), CHAIN.covariance - gain @ h @ CHAIN.covariance
    for i, name in enumerate("ab"):
        deviation = 2 * np.sqrt(np.diag(cov)[i::2])
        distance = (posterior[name].mean("member") - 280 - 2 * mean[:, i]) / deviation
        assert np.abs(distance).max() < 0.3
        assert np.abs(posterior[name].std("member") / deviation - 1).max() < 0.2


def test_evaluations_are_recorded(prior: Prior, observations: xr.Dataset) -> None:
    how = {"members": 1, "steps": 5, "corrections": 1, "progress": False}
    assert assimilate(observations, prior, **how).attrs["evaluations_per_member"] == 6
    found = assimilate(observations, prior, method="mmps", iterations=4, **how).attrs
    assert found["evaluations_per_member"] == 12 and found["sampling_iterations"] == 4
    assert "sampling_gamma" not in found and "sampling_zeta" not in found


def test_what_a_prior_records_for_one_method_does_not_disturb_another(prior: Prior, observations: xr.Dataset) -> None:
    tuned = prior.with_sampling(gamma=0.3)
    methods = {"sda": 0.3, "bounded": 0.3, "jacobian_free": "covariance"}
    for method, gamma in methods.items():
        found = assimilate(observations, tuned, method=method, members=1, **QUICK)
        assert found.attrs["sampling_gamma"] == gamma
    assert "sampling_gamma" not in assimilate(observations, tuned, method="dmps", members=1, **QUICK).attrs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dps", "gamma": 0.1}, r"method='dps' has no option 'gamma'; expected one of zeta.*sda, bounded"),
        (
            {"method": "sda", "corrector": True},
            r"has no option 'corrector'; expected one of gamma.*'corrector' is for soad",
        ),
        (
            {"method": "sda", "iterations": 2},
            r"has no option 'iterations'; expected one of gamma.*'iterations' is for mmps",
        ),
        ({"method": "dmps", "gamma": 0.1}, "method='dmps' has no option 'gamma', nor any other"),
        ({"method": "jacobian_free", "gamma": 0.1}, "gamma=0.1, expected 'covariance' or 'independent'"),
        ({"method": "soad", "gamma": 0.1}, "gamma=0.1, expected 'bounded'"),
        ({"method": "soad", "gamma": "covariance"}, "gamma='covariance', expected 'bounded'"),
        ({"method": "sda", "gamma": "covarance"}, "gamma='covarance', expected a number"),
        ({"method": "sda", "gamma": -1.0}, "gamma=-1.0, expected a number from 0 on"),
        ({"method": "mmps", "iterations": 0}, "iterations=0, expected at least 1"),
        ({"gamma": "covariance", "times": 0.5 * np.arange(3000)}, "3000 states of 2 numbers, expected at most 4096"),
        ({"method": "dmps", "operator": WARM}, "method='dmps' is for linear operators"),
        (
            {"method": "soad", "operator": WARM},
            "method='soad' is for observations that are a part of the state",
        ),
    ],
)
def test_options_of_methods(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        assimilate(observations, prior, **(QUICK | {"store": tmp_path / "p.zarr"} | options))
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_no_result(prior: Prior, observations: xr.Dataset, tmp_path: Path) -> None:
    exact = observations.assign(a_error=1e-6, b_error=1e-6)
    with pytest.raises(DivergenceError, match=r"method 'sda' diverged at noise level r = .*larger gamma="):
        assimilate(exact, prior, gamma=0.0, members=2, store=tmp_path / "p.zarr", **QUICK)
    with pytest.raises(ArchiveError, match="is not finished: 0 of 2"):
        open_archive(tmp_path / "p.zarr").load()


# Backgrounds


def test_a_background_has_its_time_or_none(prior: Prior, truth: xr.Dataset, observations: xr.Dataset) -> None:
    how = {"members": 2, "gamma": 0.1} | QUICK
    plain = background_of(truth, 0.2)
    expected = assimilate(observations, prior, background=plain, **how)
    for same in (plain.assign_coords(time=0.0), plain.assign_coords(time=0.0).expand_dims("time")):
        assert_close(assimilate(observations, prior, background=same, **how), expected)
    alone = assimilate(observations, prior, background=plain[["a", "a_error"]], **how)
    assert alone.attrs["observations_used"] == [1, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.assign_coords(time=0.5), r"the background is at 0.5, expected the first time of the window, 0.0"),
        (lambda b: b.assign_coords(time=np.datetime64("2019-01-01", "ns")), "'time' of the background is datetime"),
        (lambda b: b.expand_dims(time=[0.0, 0.5]), "the background has 2 times, expected one"),
        (lambda b: b.expand_dims(member=4), r"has 4 states along 'member', .*ds.mean\('member'\)"),
        (lambda b: b.drop_vars("a_error"), "'a' has no 'a_error'"),
        (lambda b: b.rename(a="c", a_error="c_error"), "gives no variable 'c'"),
        (lambda b: b.assign(a=b.a.assign_attrs(units="degC")), "'a' has units 'degC'"),
    ],
)
def test_backgrounds_that_do_not_fit(
    prior: Prior, truth: xr.Dataset, observations: xr.Dataset, change, message
) -> None:
    with pytest.raises(DataError, match=message):
        assimilate(observations, prior, background=change(background_of(truth, 0.2)), **QUICK)


def test_a_network_named_background_is_renamed(prior: Prior, truth: xr.Dataset, observations: xr.Dataset) -> None:
    with pytest.raises(OptionError, match="rename the network"):
        assimilate({"background": observations}, prior, background=background_of(truth, 0.2), **QUICK)


# Messages


def test_times_that_do_not_fit(prior: Prior, observations: xr.Dataset) -> None:
    moved = observations.drop_vars("window").assign_coords(time=[0.0, 1.2, 2.0, 3.0, 4.0])
    with pytest.raises(DataError, match="is off the steps of the window"):
        assimilate(moved, prior, **QUICK)
    stretched = observations.drop_vars("window").assign_coords(time=1.1 * observations.time)
    with pytest.raises(DataError, match="span 8.8 steps of the prior.*expected a whole number"):
        assimilate(stretched, prior, **QUICK)
    with pytest.raises(DataError, match=r"times= has the step 1 .*expected the prior's 0.5"):
        assimilate(observations, prior, times=np.arange(5.0), **QUICK)
    dated = observations.drop_vars("window").assign_coords(time=np.datetime64("2019-01-01", "ns") + np.arange(5))
    with pytest.raises(DataError, match="'time' of 'observations' is datetime, the prior's time is float"):
        assimilate(dated, prior, **QUICK)
    with pytest.raises(DataError, match="neither a 'time' nor a 'window'"):
        assimilate(observations.drop_vars(["window", "time"]), prior, **QUICK)


def test_too_few_states_for_a_window(observations: xr.Dataset) -> None:
    windowed = CHAIN.prior(window=9)
    assert assimilate(observations, windowed, members=1, **QUICK).sizes["time"] == 9
    with pytest.raises(DataError, match=r"has 5 states, the prior needs at least its window of 9"):
        assimilate(observations, windowed, times=0.5 * np.arange(5), outside="drop", **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sdaa"}, "Did you mean 'sda'"),
        ({"sampler": "ancestrl"}, "Did you mean 'ancestral'"),
        ({"grid": "karas"}, "Did you mean 'karras'"),
        ({"sampler": "dpm++", "eta": 0.5}, "'dpm\\+\\+' is defined by eta=0"),
        ({"outside": "dropp"}, "Did you mean 'drop'"),
        ({"members": 0}, "members=0, expected at least 1"),
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"corrections": -1}, "corrections=-1, expected at least 0"),
        ({"attempts": 0}, "attempts=0, expected at least 1"),
    ],
)
def test_impossible_options(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        assimilate(observations, prior, **(QUICK | {"members": 1, "store": tmp_path / "p.zarr"} | options))
    assert list(tmp_path.iterdir()) == []


def test_observations_that_do_not_fit(prior: Prior, observations: xr.Dataset) -> None:
    with pytest.raises(UnitsError, match="'a' has units 'degC'"):
        assimilate(observations.assign(a=observations.a.assign_attrs(units="degC")), prior, **QUICK)
    with pytest.raises(DataError, match="'a' has no 'a_error'"):
        assimilate(observations.drop_vars("a_error"), prior, **QUICK)
    with pytest.raises(DataError, match="finite standard deviation above 0"):
        assimilate(observations.assign(a_error=0.0), prior, **QUICK)
    with pytest.raises(DataError, match="gives no variable 'c'"):
        assimilate(observations.rename(b="c", b_error="c_error"), prior, **QUICK)
    with pytest.raises(DataError, match="no network of observations"):
        assimilate({}, prior, **QUICK)
    with pytest.raises(PriorError, match="found neither a file nor a shipped prior"):
        assimilate(observations, "nowhere", **QUICK)


def test_an_unfinished_archive_is_not_resumed_by_other_settings(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "write", lambda *_: (_ for _ in ()).throw(InterruptedRunError))
        with pytest.raises(InterruptedRunError):
            assimilate(observations, prior, members=2, store=tmp_path / "p.zarr", **QUICK)
    with pytest.raises(ArchiveError, match="seed: 0 -> 1"):
        assimilate(observations, prior, members=2, seed=1, store=tmp_path / "p.zarr", **QUICK)


# Innovations


def test_innovations_by_hand(truth: xr.Dataset) -> None:
    operator = op.select("a") >> op.scale(2.0)
    observations = observe(truth, operator, every=4, error=0.5, seed=1)
    ensemble = xr.concat([truth, truth + 1], "member").assign_coords(member=[0, 1])
    for name in "ab":
        ensemble[name].attrs = truth[name].attrs
    found = innovations(ensemble, observations)
    expected = observations.a - 2 * ensemble.a.isel(time=slice(None, None, 4))
    seen = found.a_innovation.isel(time=slice(None, None, 4))
    np.testing.assert_allclose(seen.transpose("member", "time"), expected.transpose("member", "time"), rtol=1e-5)
    assert bool(found.a_innovation.isel(time=1).isnull().all())
    np.testing.assert_allclose(found.a, 2 * ensemble.a, rtol=1e-6)
    rms = np.sqrt((expected**2).mean("time")) / 0.5
    np.testing.assert_allclose(found.a_normalised_spread, rms, rtol=1e-5)
    assert (
        found.a_innovation.attrs["units"] == found.a.attrs["units"] and found.a_normalised_spread.attrs["units"] == "1"
    )
    assert found.a_innovation.dims == found.a.dims == ("member", "time")
    one = innovations(truth, observations)
    np.testing.assert_allclose(one.a_normalised_spread, rms[0], rtol=1e-5)
    given = innovations(ensemble, observations.drop_attrs(deep=False), operator=operator)
    xr.testing.assert_allclose(given.a_innovation, found.a_innovation)


def test_innovations_of_a_posterior_are_as_large_as_the_errors(prior: Prior, observations: xr.Dataset) -> None:
    posterior = assimilate(observations, prior, members=60, **(QUICK | {"steps": 60}))
    found = innovations(posterior, observations)
    assert 0.5 < float(found.a_normalised_spread.mean()) < 1.6


def test_innovations_on_another_grid(truth: xr.Dataset, observations: xr.Dataset) -> None:
    with pytest.raises(DataError, match="lies outside the window"):
        innovations(truth.isel(time=slice(4)), observations)
    grid = xr.Dataset({"a": (("time", "x"), np.zeros((9, 4)))}, {"time": truth.time, "x": np.arange(4.0)})
    seen = observe(grid, op.identity(), error=1.0)
    with pytest.raises(GridError, match="'x' of the observations"):
        innovations(grid.assign_coords(x=grid.x + 0.5), seen)


@pytest.mark.parametrize("damping", [0.9, 0.97])
def test_dense_observations_of_a_slow_chain(damping: float) -> None:
    """Every state is seen, and the errors of the denoised states are correlated: the information counts once."""
    chain, error = GaussianChain(32, damping, 0.1), 0.2
    truth = chain.truth(1)
    observations = observe(truth, op.identity(), error=2 * error, seed=3)
    posterior = assimilate(observations, chain.prior(samples=200), members=40, steps=32, corrections=1, progress=False)
    y = (np.stack([observations.a, observations.b], -1) - 280) / 2
    operator = np.broadcast_to(np.eye(2), (32, 2, 2))
    mean, covariance = chain.smoother(operator, y, np.full((32, 2), error))
    deviation = 2 * np.sqrt(covariance[:, 0, 0])
    distance = (posterior.a.mean("member") - 280 - 2 * mean[:, 0]) / deviation
    assert float(np.sqrt((distance**2).mean())) < 0.35
    assert 0.9 < float((posterior.a.std("member") / deviation).mean()) < 1.3
