"""Filters, smoothers and 4D-Var from labelled observations to posterior archives, and every message."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, condition, truth_of, whole_prior
from filtered import LENGTH, OPTIONS, QUIET, SCALAR

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.fourdvar import FourDVar
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.posterior.methods import METHODS
from sdaxr.schema import ArchiveError, DataError, GridError, OperatorError, OptionError, UnitsError
from sdaxr.systems.linear import Linear


@pytest.mark.parametrize("method", SCALAR)
def test_each_method_gives_the_posterior_dataset(observations: xr.Dataset, method: str, tmp_path) -> None:
    particles = "particles" in OPTIONS.get(method, {})
    options = {"system": TRIPLE, "method": {"name": method, **OPTIONS.get(method, {})}, "members": 3, "seed": 7} | QUIET
    found = observations.sda.assimilate(**options)
    assert dict(found.sizes) == {"member": 3, "time": LENGTH} and list(found.data_vars) == ["x1", "x2", "x3"]
    assert found.x1.dims == ("member", "time") and found.x1.dtype == np.float32 and found.x1.attrs["units"] == "1"
    assert found.member.attrs["standard_name"] == "realization" and found.time.attrs["units"] == "1"
    np.testing.assert_allclose(found.time, 0.5 * np.arange(LENGTH))
    attrs = found.attrs
    assert attrs["method"] == method and ("256" in attrs["method_options"]) == particles
    assert attrs["seed"] == 7 and attrs["Conventions"] == "CF-1.11"
    assert attrs["sdaxr_system"] == "linear" and json.loads(attrs["sdaxr_options"])["step"] == 0.5
    assert attrs["observations_used"] == [3] and attrs["observations_dropped"] == [0]
    assert ("log_evidence" in attrs) == (method in ("bpf", "ffbs", "kalman"))
    assert ("first_guess_spread" in attrs) == (not METHODS.kind(method).markov)
    assert attrs["members_distribution"] == METHODS.build(method).distribution
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
    one = smooth(second.isel(time=[2]), TRIPLE, method={"name": "ffbs", "particles": 64}, times=[1.0, 1.5], **QUIET)
    assert one.sizes["time"] == 2


@pytest.mark.parametrize("method", ["kalman", "ffbs", "bpf", "4dvar"])
def test_a_background_is_an_observation_of_the_first_state(observations: xr.Dataset, method: str) -> None:
    one = {"units": "1"}
    background = xr.Dataset({"x1": ((), 1.5, one), "x1_error": 0.3, "x3": ((), -1.0, one), "x3_error": 0.4})
    matrix = np.zeros((5, LENGTH, 3))
    matrix[[0, 1, 2], [0, 2, 4], 1] = 1
    matrix[[3, 4], 0, [0, 2]] = 1
    y, error = np.append(observations.x2.values, [1.5, -1.0]), np.array([0.5, 0.5, 0.5, 0.3, 0.4])
    mean, covariance, evidence = condition(whole_prior(TRIPLE, LENGTH), matrix.reshape(5, -1), np.zeros(5), y, error)
    chosen = {"name": method} | ({} if method == "kalman" else {"particles": 2**14})
    found = smooth(observations, TRIPLE, method=chosen, members=1000, background=background, **QUIET)
    paths = np.stack([found[f"x{i}"].values for i in (1, 2, 3)], axis=-1)
    deviation = np.sqrt(np.diag(covariance)).reshape(LENGTH, 3)
    error = 1e-3 if method == "4dvar" else 0.25
    assert np.abs((paths.mean(0) - mean.reshape(LENGTH, 3)) / deviation).max() < error
    if method != "4dvar":
        assert found.attrs["log_evidence"] == pytest.approx(evidence, abs=1e-4 if method == "kalman" else 0.1)
    labelled = background.expand_dims(time=[0.0])
    same = smooth(observations, TRIPLE, method=chosen, members=1000, background=labelled, **QUIET)
    np.testing.assert_array_equal(same.x1, found.x1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ffsb"}, "Did you mean 'ffbs'"),
        ({"members": 0}, "members=0, expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1, expected a whole number of at least 0"),
        ({"method": {"name": "ffbs", "particles": 1}}, "particles=1 for ffbs, expected a whole number of at least 2"),
        ({"method": {"name": "kalman", "particles": 100}}, "unknown option of kalman: 'particles'"),
        ({"method": {"name": "ffbs", "first_guess": xr.Dataset()}}, "unknown option of ffbs: 'first_guess'"),
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
        ({"method": "ffbs", "system": "linear", "prior": "lorenz63"}, "found prior= beside a system"),
        ({"method": "ffbs", "system": "linear", "sampler": "dpm++"}, "found sampler= beside a system"),
        (
            {"method": "sda", "system": "linear"},
            "method='sda' needs a prior, found system=.*ffbs, kalman, 4dvar, enkf",
        ),
        ({"method": "ffbs", "prior": "lorenz63"}, "found prior= and method='ffbs', which needs a physical model"),
        ({"prior": "lorenz63", "method": {"particles": 10}}, "unknown option of sda: 'particles'"),
        ({"method": "fbs"}, "Did you mean 'ffbs'"),
    ],
)
def test_a_method_takes_what_it_needs_and_nothing_else(observations: xr.Dataset, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sdaxr.assimilate(observations, **options)


def test_backgrounds_and_first_guesses_that_do_not_fit(observations: xr.Dataset) -> None:
    def with_background(**variables) -> None:
        smooth(observations, TRIPLE, method="kalman", background=xr.Dataset(variables), **QUIET)

    with pytest.raises(DataError, match="'x1' has no 'x1_error'"):
        with_background(x1=((), 1.0, {"units": "1"}))
    with pytest.raises(UnitsError, match="'x1' has units 'K'"):
        with_background(x1=((), 1.0, {"units": "K"}), x1_error=0.1)
    with pytest.raises(DataError, match="the background has 2 times, expected one"):
        with_background(x1=("time", [1.0, 2.0]), x1_error=0.1)
    with pytest.raises(DataError, match="the background is at 0.5, expected the first time of the window, 0.0"):
        with_background(x1=xr.DataArray([1.0], {"time": [0.5]}, ["time"]), x1_error=0.1)

    def with_guess(guess: xr.Dataset, members: int = 1) -> None:
        smooth(observations, TRIPLE, method=FourDVar(first_guess=guess), members=members, **QUIET)

    truth = truth_of(TRIPLE, LENGTH, 1)
    with_guess(truth)
    with pytest.raises(DataError, match="has 1 members, expected at least members=2"):
        with_guess(truth, members=2)
    with pytest.raises(DataError, match="no state at 1.0 .4 times of the window are missing"):
        with_guess(truth.isel(time=slice(2)))
    with pytest.raises(DataError, match="expected 'time' with a coordinate"):
        with_guess(truth.isel(time=0))
    with pytest.raises(DataError, match="variable 'x3'"):
        with_guess(truth[["x1", "x2"]])
    with pytest.raises(GridError, match="has dimensions"):
        with_guess(truth.expand_dims(site=3))


def test_errors_that_are_not_gaussian() -> None:
    """Particle filters use the density; what is for Gaussian errors refuses others."""
    system = Linear()
    seen = observe(truth_of(system, 6, seed=1), op.identity(), error=0.5, noise="laplace", seed=1)
    options = {"system": system, "members": 2, "progress": False}
    for method in ("kalman", "4dvar"):
        with pytest.raises(OptionError, match=f"method='{method}' is for Gaussian errors, found laplace; use .*'ffbs'"):
            sdaxr.assimilate(seen, method=method, **options)
    evidence = []
    for family in ("laplace", "gaussian"):
        for name in ("x1_error", "x2_error"):
            seen[name].attrs["distribution"] = family
        evidence.append(
            sdaxr.assimilate(seen, method={"name": "ffbs", "particles": 500}, **options).attrs["log_evidence"]
        )
    assert evidence[0] != evidence[1]
    sdaxr.assimilate(seen, method="kalman", **options)


def test_measurements_between_two_steps_are_those_of_the_nearest() -> None:
    at = {"time": ("obs", [0.0, 0.6, 1.5], {"units": "1"})}
    values = {"x1": ("obs", [0.1, 0.2, 0.3], {"units": "1"}), "x1_error": ("obs", [0.5] * 3, {"units": "1"})}
    data = xr.Dataset(values, at)
    options = {"system": TRIPLE, "method": "kalman", "members": 2} | QUIET
    with pytest.raises(OperatorError, match="at several times jointly.*or observe .* at the nearest one, screening="):
        data.sda.assimilate(**options)
    near = {"time": "nearest", "tolerance": 0.2}
    found = data.sda.assimilate(screening=near, **options)
    moved = data.assign_coords(time=("obs", [0.0, 0.5, 1.5], {"units": "1"}))
    xr.testing.assert_equal(found, moved.sda.assimilate(**options))
    assert found.attrs["observations_used"] == [3]
    with pytest.raises(OptionError, match="found gross_error= and system=, expected a prior"):
        data.sda.assimilate(screening=near | {"gross_error": 5}, **options)


@pytest.mark.parametrize("value", [1e20, -9999.0, 1e5])
@pytest.mark.parametrize("method", ["ffbs", "bpf", "kalman", "4dvar"])
def test_fill_values_are_refused(observations: xr.Dataset, method: str, value: float) -> None:
    bad = observations.copy(deep=True)
    bad["x2"].values[1] = value
    with pytest.raises(DataError, match="^observation 1, x2 = .* at time=1.0, is .* deviations from the system's mean"):
        smooth(bad, TRIPLE, method=method, members=2, **QUIET)


def test_a_station_in_two_networks_is_used_once() -> None:
    def reports(values: list[float], times: list[float]) -> xr.Dataset:
        data = {"x1": ("obs", values, {"units": "1"}), "x1_error": 0.5}
        return xr.Dataset(data, {"time": ("obs", times, {"units": "1"})})

    first, second = reports([0.1, 0.2], [0.0, 0.5]), reports([0.4, 0.3], [0.5, 1.5])
    options = {"method": "kalman", "members": 2} | QUIET
    both = {"synop": first, "metar": second}
    with pytest.raises(DataError, match="observation 0, x1 = 0.4 at time=0.5, is there at .* network 'synop'"):
        smooth(both, TRIPLE, **options)
    found = smooth(both, TRIPLE, screening={"duplicates": "drop"}, **options)
    assert found.attrs["observations_duplicate"] == [0, 1]
    xr.testing.assert_equal(found, smooth(reports([0.1, 0.2, 0.3], [0.0, 0.5, 1.5]), TRIPLE, **options))
    twice = smooth({"synop": first, "metar": first}, TRIPLE, screening={"duplicates": "drop"}, **options)
    xr.testing.assert_equal(twice, smooth(first, TRIPLE, times=twice.time, **options))
    with pytest.raises(DataError, match=r"\['none'\] have no finite observation in the window"):
        smooth({"none": first * np.nan}, TRIPLE, times=twice.time, **options)
