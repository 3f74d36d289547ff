"""From observations to posterior archives: labels, seeds, resume, and every message."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from assimilated import CHAIN, QUICK, WARM

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.archive import Archive
from sdaxr.archives.reading import open_archive
from sdaxr.inference.assimilate import assimilate
from sdaxr.observations.innovations import innovations
from sdaxr.observations.observe import observe
from sdaxr.prior import opening
from sdaxr.prior.files import Prior
from sdaxr.schema import ArchiveError, DataError, DivergenceError, OptionError, PriorError, UnitsError


def assert_close(one: xr.Dataset, other: xr.Dataset) -> None:
    for name in ("a", "b"):
        np.testing.assert_allclose(one[name].values, other[name].values, rtol=0, atol=1e-3)  # of 2 K


def test_posterior_is_the_kalman_smoother_in_physical_units(
    prior: Prior, truth: xr.Dataset, observations: xr.Dataset
) -> None:
    posterior = assimilate(
        observations, prior, members=400, sampler={"steps": 100, "corrections": 0}, seed=1, progress=False
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
    assert attrs["sampler"] == "sde-dpm++" and json.loads(attrs["sampler_options"])["steps"] == 12
    assert json.loads(attrs["method_options"]) == {"adapt": True, "variance": {"name": "measured"}}
    assert json.loads(attrs["operators"][0]) == op.identity().to_dict()
    assert attrs["observations_used"] == [10] and attrs["observations_dropped"] == [0]


def test_units_are_converted_where_that_is_asked(prior: Prior, observations: xr.Dataset) -> None:
    celsius = observations.assign({n: (observations[n] - 273.15).assign_attrs(units="degC") for n in ("a", "b")})
    with pytest.raises(UnitsError, match="'a' has units 'degC' in the observations, expected 'K'"):
        assimilate(celsius, prior, members=2, **QUICK)
    found = assimilate(celsius, prior, members=2, seed=5, units="convert", **QUICK)
    expected = assimilate(observations, prior, members=2, seed=5, **QUICK)
    assert_close(found, expected)
    assert found.attrs["units_converted"] == ["a: degC to K", "b: degC to K"]
    assert "units_converted" not in expected.attrs
    bare = observations.assign(a=observations.a.drop_attrs())
    with pytest.raises(UnitsError, match="'a' has no units in the observations, expected 'K'"):
        assimilate(bare, prior, members=2, **QUICK)


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


def test_the_file_of_a_prior_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = observe(sdaxr.open_system("lorenz63").template().expand_dims(time=[0.0, 0.025]), op.identity(), error=0.5)
    read, real = [], opening.safe_open
    monkeypatch.setattr(opening, "safe_open", lambda path, **how: (read.append(path), real(path, **how))[1])
    assimilate(seen, "lorenz63", members=1, **QUICK)
    assert len(read) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"members": 3},
        {"method": "dps"},
        {"method": {"variance": 0.1}},
        {"sampler": {"steps": 13, "corrections": 0}},
        {"precision": "float32"},
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
            {"sampler": {"name": "exponential", "steps": 12, "corrections": 0}},
            {"sampler": {"name": "dpm++", "steps": 12, "corrections": 0}},
            {"sampler": {"eta": 0.5, "steps": 12, "corrections": 0}},
            {"sampler": {"grid": "karras", "steps": 12, "corrections": 0}},
            {"sampler": {"corrections": 1, "steps": 12}},
            {"method": {"variance": 0.1}},
            {"method": "dps"},
        )
    ]
    values = np.stack([r.a.values.ravel() for r in runs])
    assert len(np.unique(values.round(3), axis=0)) == len(runs)


def test_settings_come_from_the_user_then_the_prior(prior: Prior, observations: xr.Dataset) -> None:
    recorded = {"name": "sda", "variance": {"name": "scalar", "gamma": 0.3}}
    tuned = prior.with_sampling(method=recorded, sampler={"name": "sde-dpm++", "steps": 5})
    found = assimilate(observations, tuned, sampler={"steps": 7}, members=1, progress=False).attrs
    assert json.loads(found["method_options"]) == {
        "adapt": True, "variance": {"name": "scalar", "gamma": 0.3},
    }  # fmt: skip
    sampler = json.loads(found["sampler_options"])
    assert sampler["steps"] == 7 and sampler["corrections"] == 3
    default = assimilate(observations, tuned, members=1, progress=False).attrs
    assert json.loads(default["sampler_options"])["steps"] == 5
    other = prior.with_sampling(method={"name": "mmps", "iterations": 7})
    cases = (({}, "mmps", 7), ({"method": {"iterations": 2}}, "mmps", 2), ({"method": "sda"}, "sda", None))
    for given, name, iterations in cases:
        found = assimilate(observations, other, members=1, **(QUICK | given)).attrs
        assert (found["method"], json.loads(found["method_options"]).get("iterations")) == (name, iterations)


@pytest.mark.parametrize(("given", "particles"), [(None, 65536), ({"particles": 64}, 64)])
def test_with_a_system_the_default_is_the_particle_smoother(given: dict | None, particles: int) -> None:
    seen = observe(sdaxr.open_system("linear").template().expand_dims(time=[0.0, 1.0]), op.identity(), error=0.5)
    found = assimilate(seen, system="linear", method=given, members=2, progress=False)
    assert found.attrs["method"] == "ffbs" and json.loads(found.attrs["method_options"])["particles"] == particles


@pytest.mark.parametrize(
    "unused",
    [{"prior": "lorenz63"}, {"sampler": "ddim"}, {"batch": 2}, {"device": "cpu"}, {"precision": "float32"}],
    ids=lambda options: next(iter(options)),
)
def test_what_only_a_prior_uses_is_refused_beside_a_system(observations: xr.Dataset, unused: dict) -> None:
    with pytest.raises(OptionError, match=f"found {next(iter(unused))}= beside a system.*leave system= out"):
        assimilate(observations, system="linear", **unused)


def test_two_networks_do_what_one_does(prior: Prior, observations: xr.Dataset) -> None:
    parts = {"first": observations.isel(time=slice(None, None, 2)), "second": observations.isel(time=slice(1, None, 2))}
    # The measured variance knows each network on its own; a given one does not.
    how = QUICK | {"method": {"variance": 0.5}, "members": 2}
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
    own = observe(truth, WARM, error=0.4).drop_attrs(deep=False)
    found = assimilate(own, prior, members=1, operator=WARM, method={"variance": 0.1}, **QUICK)
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
    same = assimilate(observations, prior, members=1, times=times, screening={"outside": "drop"}, **QUICK)
    xr.testing.assert_identical(same, found)
    assert found.attrs["observations_used"] == [6] and found.attrs["observations_dropped"] == [4]


def background_of(truth: xr.Dataset, error: float) -> xr.Dataset:
    first = truth.isel(time=0, drop=True)
    return first.assign(a=first.a + 0.5, b=first.b - 0.5, a_error=error, b_error=error)


def test_divergence_is_no_result(prior: Prior, observations: xr.Dataset, tmp_path: Path) -> None:
    exact = observations.assign(a_error=1e-6, b_error=1e-6)
    with pytest.raises(DivergenceError, match=r"method 'sda' diverged at noise level r = .*larger variance"):
        assimilate(exact, prior, method={"variance": 0.0}, members=2, store=tmp_path / "p.zarr", **QUICK)
    with pytest.raises(ArchiveError, match="is not finished: 0 of 2"):
        open_archive(tmp_path / "p.zarr").load()


def test_a_background_has_its_time_or_none(prior: Prior, truth: xr.Dataset, observations: xr.Dataset) -> None:
    how = {"members": 2, "method": {"variance": 0.1}} | QUICK
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
        (
            lambda b: b.assign_coords(time=np.datetime64("2019-01-01", "ns")),
            "times of the background are of kind datetime",
        ),
        (lambda b: b.expand_dims(time=[0.0, 0.5]), "the background has 2 times, expected one"),
        (lambda b: b.expand_dims(member=4), r"has members along 'member' and .*ds.mean\('member'\)"),
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


def test_times_that_do_not_fit(prior: Prior, observations: xr.Dataset) -> None:
    moved = observations.drop_vars("window").assign_coords(time=[0.0, 1.2, 2.0, 3.0, 4.0])
    with pytest.raises(DataError, match="time 1.2 of the network 'observations' is off the steps of the prior"):
        assimilate(moved, prior, **QUICK)
    stretched = observations.drop_vars("window").assign_coords(time=1.1 * observations.time)
    with pytest.raises(DataError, match=r"time 1.1 .* off the steps of the prior \(and 3 others\); the nearest"):
        assimilate(stretched, prior, **QUICK)
    with pytest.raises(DataError, match=r"times= has the step 1 .*expected the prior's 0.5"):
        assimilate(observations, prior, times=np.arange(5.0), **QUICK)
    dated = observations.drop_vars("window").assign_coords(time=np.datetime64("2019-01-01", "ns") + np.arange(5))
    with pytest.raises(DataError, match="are of kind datetime, those of the prior of kind float"):
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
        ({"sampler": {"grid": "karas"}}, "Did you mean 'karras'"),
        ({"outside": "dropp"}, "Did you mean 'drop'"),
        ({"members": 0}, "members=0, expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1, expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed=1.5, expected a whole number"),
        ({"batch": 0}, "batch=0, expected a whole number of at least 1"),
        ({"sampler": {"steps": 0}}, "steps=0 for sde-dpm\\+\\+, expected a whole number of at least 1"),
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


TWISTED = {"sampler": {"name": "twisted", "steps": 16, "corrections": 0, "candidates": 2}, "progress": False}


def test_members_that_are_drawn_together_resume_to_the_identical_result(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"members": 40, "seed": 5, "store": tmp_path / "p.zarr"} | TWISTED
    whole = assimilate(observations, prior, **(options | {"store": None}))
    assert 1 <= whole.attrs["effective_members"] <= 40
    chunked = assimilate(observations, prior, **(options | {"store": None, "batch": 7}))
    assert_close(chunked, whole)
    original, written = Archive.write, []

    def write(self: Archive, index: int, arrays: dict) -> None:
        if len(written) == 3:
            raise InterruptedRunError
        original(self, index, arrays)
        written.append(index)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "write", write)
        with pytest.raises(InterruptedRunError):
            assimilate(observations, prior, **options)
    resumed = assimilate(observations, prior, **options)
    assert resumed.attrs["effective_members"] == whole.attrs["effective_members"]
    for name in "ab":
        np.testing.assert_array_equal(resumed[name], whole[name])


@pytest.mark.parametrize("method", ["jacobian_free", "dps"])
def test_a_method_without_a_likelihood_does_not_weight_members(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, method: str
) -> None:
    with pytest.raises(OptionError, match=f"method='{method}' does not approximate; take method='sda'"):
        assimilate(observations, prior, method=method, store=tmp_path / "p.zarr", **TWISTED)
    assert not list(tmp_path.iterdir())
