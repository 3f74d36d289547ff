"""Calibrations whose answer is known: exact posteriors pass, and a spread that is wrong by a factor is found."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr
from gaussian import GaussianChain

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.paths import located
from sdaxr.filters.base import Drawn
from sdaxr.filters.kalman import Kalman
from sdaxr.schema import ArchiveError, DataError, OptionError, SdaxrError
from sdaxr.systems.linear import Linear
from sdaxr.verification import trials
from sdaxr.verification.uniformity import inside, rank_frequencies

LINEAR: dict[str, Any] = {
    "operator": op.select("x1"), "system": "linear", "method": "kalman", "error": 0.5, "every": 2, "steps": 8,
    "truths": 64, "progress": False,
}  # fmt: skip
FEW: dict[str, Any] = LINEAR | {"truths": 4, "members": 3}


@pytest.fixture(scope="module")
def few() -> xr.Dataset:
    """What a calibration by `FEW` finds; read only."""
    return sdaxr.calibrate("linear", **FEW)


@dataclass(frozen=True)
class Scaled(Kalman):
    """Exact draws whose distance from their mean, or whose mean, is wrong."""

    ratio: float = 1.0
    shift: float = 0.0

    name: ClassVar[str] = "scaled"

    def draw(self, model, members, seed):
        # The mean of very many draws stands for that of the posterior.
        paths = super().draw(model, 1000, seed).paths
        mean = paths.mean(0)
        return Drawn(mean + self.shift + self.ratio * (paths[:members] - mean))


class Deaf(Kalman):
    """Draws of the prior, as if nothing had been observed."""

    name: ClassVar[str] = "deaf"

    def draw(self, model, members, seed):
        chain, length = model.system, model.times.size
        return Drawn(np.stack([chain.to_vectors(chain.trajectory(length, 1000 * seed + m)) for m in range(members)]))


def test_only_quantities_of_the_data_tell_that_data_were_ignored() -> None:
    """Modrák et al. (2023): the prior passes for every quantity of the state, and fails for the likelihood."""
    result = sdaxr.calibrate("linear", members=19, seed=3, **LINEAR | {"method": Deaf(), "truths": 32})
    rejected = result["quantity"].values[result["verdict"].values != "calibrated"]
    assert rejected.tolist() == ["log-likelihood"] and result.attrs["verdict"].startswith("biased (1 of")
    assert result["bias"].sel(quantity="log-likelihood") > 8  # the truth fits the data better than the members


def test_exact_draws_are_calibrated() -> None:
    result = sdaxr.calibrate("linear", members=19, seed=1, **LINEAR)
    assert result.attrs["verdict"] == "calibrated" and result.attrs["p_value_quantities"] > 0.05
    low, high = result["state_coverage_interval"].sel(level=0.9).values
    assert (low < 0.9).all() and (high > 0.9).all() and (high - low < 0.08).all()
    np.testing.assert_allclose(result["spread_error"], 1, atol=0.1)
    assert set(result["verdict"].values) == {"calibrated"}
    assert (np.abs(result["coverage"] - result["level"]).max("quantity") < 0.15).all()


@pytest.mark.parametrize(
    ("ratio", "shift", "expected"), [(0.5, 0.0, "too narrow"), (2.0, 0.0, "too wide"), (1.0, 0.4, "biased")]
)
def test_a_wrong_spread_is_found_with_the_coverage_of_theory(ratio: float, shift: float, expected: str) -> None:
    how = LINEAR | {"method": Scaled(ratio, shift), "truths": 32, "quantities": ["state", "mean"]}
    result = sdaxr.calibrate("linear", members=19, seed=2, **how)
    assert result.attrs["verdict"].split(" (")[0] == expected
    if not shift:
        # The posterior is Gaussian, and so are the truth and the members around its mean.
        theory = rank_frequencies(19, ratio) @ inside(np.arange(20), 19, result["level"].values.tolist())
        half = (result["state_coverage_interval"].diff("bound").isel(bound=0) / 2).values
        assert (np.abs(result["state_coverage"].values - theory) < 2 * half + 0.01).all()
        np.testing.assert_allclose(result["spread_error"], ratio, rtol=0.15)


def test_a_prior_is_consistent_with_itself() -> None:
    """Truths are drawn of the prior; with its covariance, the method is exact for a Gaussian prior."""
    prior = GaussianChain(6).prior(samples=400)
    how = {"error": 1.0, "every": 2, "truths": 60, "members": 19, "sampler": {"steps": 32, "corrections": 0}}
    result = sdaxr.calibrate(
        "prior", op.select("a"), prior, method={"name": "sda", "variance": "covariance"}, progress=False, **how
    )
    assert result.attrs["verdict"] == "calibrated"
    np.testing.assert_allclose(result["spread_error"], 1, atol=0.15)
    low, high = result["state_coverage_interval"].sel(level=0.9).values
    assert (low < 0.9).all() and (high > 0.9).all()


def test_windows_of_an_archive_are_truths(tmp_path) -> None:
    archive = sdaxr.generate("linear", tmp_path / "t.zarr", trajectories=20, steps=16, progress=False)
    how = FEW | {"quantities": ["state"], "points": {"time": [0, 7]}}
    result = archive.sda.calibrate(**how)
    tests = archive.isel(trajectory=archive.split == "test")
    expected = [tests.isel(trajectory=n % 2, time=slice(8 * (n // 2), None)).x1.values[[0, 7]] for n in range(4)]
    np.testing.assert_allclose(result["value"].sel(quantity=["x1[0]", "x1[7]"]), expected)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_killed_run_goes_on(few: xr.Dataset, tmp_path, monkeypatch, suffix: str) -> None:
    store, ran, whole = tmp_path / f"c{suffix}", [], trials.Trials.run

    def die_after_two(self: trials.Trials, number: int, quantities: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(number)
        return whole(self, number, quantities)

    with monkeypatch.context() as patch:
        patch.setattr(trials.Trials, "run", die_after_two)
        with pytest.raises(KeyboardInterrupt):
            sdaxr.calibrate("linear", store=store, **FEW)
    assert not store.exists() and len(ran) == 2
    # Truths that are there are not computed again; another configuration is refused.
    with pytest.raises(ArchiveError, match=r"error|observations_sha256"):
        sdaxr.calibrate("linear", store=store, **FEW | {"error": 0.6})
    with monkeypatch.context() as patch:
        patch.setattr(trials.Trials, "run", lambda self, n, quantities: ran.append(n) or whole(self, n, quantities))
        found = sdaxr.calibrate("linear", store=store, **FEW)
    assert sorted(ran) == [0, 1, 2, 3] and [p.name for p in tmp_path.iterdir()] == [store.name]
    xr.testing.assert_allclose(found.drop_attrs(), few.drop_attrs())
    assert found.attrs["verdict"] == few.attrs["verdict"]
    # A finished result is returned as it is.
    monkeypatch.setattr(trials.Trials, "run", lambda self, n, quantities: pytest.fail("computed again"))
    (tmp_path / f"c{suffix}.windows").mkdir()  # as a call leaves it that is killed last
    xr.testing.assert_identical(sdaxr.calibrate("linear", store=store, **FEW), found)
    assert [p.name for p in tmp_path.iterdir()] == [store.name]
    with pytest.raises(ArchiveError, match="members: 3 -> 4"):
        sdaxr.calibrate("linear", store=store, **FEW | {"members": 4})


def test_a_result_of_fewer_truths_is_extended(tmp_path, monkeypatch) -> None:
    expected = sdaxr.calibrate("linear", **FEW | {"truths": 6})
    store, ran, whole = tmp_path / "c.nc", [], trials.Trials.run
    sdaxr.calibrate("linear", store=store, **FEW)
    monkeypatch.setattr(trials.Trials, "run", lambda self, n, quantities: ran.append(n) or whole(self, n, quantities))
    found = sdaxr.calibrate("linear", store=store, **FEW | {"truths": 6})
    assert sorted(ran) == [4, 5] and [p.name for p in tmp_path.iterdir()] == [store.name]
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["truths"] == 6 and found.attrs["verdict"] == expected.attrs["verdict"]
    for change, message in ({"truths": 4}, "truths: 6 -> 4"), ({"truths": 8, "members": 4}, "members: 3 -> 4"):
        with pytest.raises(ArchiveError, match=message):
            sdaxr.calibrate("linear", store=store, **FEW | change)


@pytest.mark.parametrize(("at", "scheme", "overwrite"), [(2, "", True), (1, "memory:/", True), (4, "memory:/", False)])
def test_two_runs_share_the_truths(
    few: xr.Dataset, tmp_path, monkeypatch, at: int, overwrite: bool, scheme: str
) -> None:
    """Another run of the same calibration does the rest while this one is at a truth."""
    store, whole, calls, others = f"{scheme}{tmp_path}/c.zarr", trials.Trials.run, list[int](), list[threading.Thread]()
    if overwrite:
        sdaxr.calibrate("linear", store=store, **FEW | {"seed": 1, "truths": 2})

    def other() -> None:
        sdaxr.calibrate("linear", store=store, overwrite=overwrite, **FEW)

    def started(self: trials.Trials, number: int, quantities: Any) -> Any:
        calls.append(number)
        if len(calls) == at:
            others.append(threading.Thread(target=other))
            others[0].start()
            # Where there are locks, it waits for the end of the truth.
            others[0].join(None if scheme else 0.3)
        return whole(self, number, quantities)

    monkeypatch.setattr(trials.Trials, "run", started)
    found = sdaxr.calibrate("linear", store=store, overwrite=overwrite, **FEW)
    others[0].join()
    xr.testing.assert_allclose(found.drop_attrs(), few.drop_attrs())
    xr.testing.assert_allclose(sdaxr.open_archive(store).drop_attrs(), few.drop_attrs())
    assert not located(f"{store}.windows").exists()
    # No truth is drawn twice, but for the one that this run was at. With threads, both may be at several.
    assert len(calls) == 5 or not scheme


def test_a_filter_is_asked_for_quantities_of_one_time() -> None:
    found = sdaxr.calibrate("linear", **FEW | {"method": "enkf"})
    assert set(found["quantity_kind"].values) == {"state", "observed"}
    whole = sdaxr.calibrate("linear", **FEW | {"method": "enks"})
    assert set(whole["quantity_kind"].values) == {"state", "mean", "energy", "observed", "log_likelihood"}


def test_a_result_is_replaced_where_this_is_asked_for(few: xr.Dataset, tmp_path) -> None:
    store = tmp_path / "c.nc"
    sdaxr.calibrate("linear", store=store, **FEW | {"seed": 5, "truths": 2})
    found = sdaxr.calibrate("linear", store=store, overwrite=True, **FEW)
    xr.testing.assert_allclose(found.drop_attrs(), few.drop_attrs())


def test_options_of_a_system_and_a_system_as_an_object() -> None:
    calm = Linear(noise=((0.1, 0.0), (0.0, 0.1)))
    found = sdaxr.calibrate(calm, **FEW | {"system": calm, "truths": 2})
    assert '"noise": [[0.1, 0.0], [0.0, 0.1]]' in found.attrs["sdaxr_options"]


def test_members_run_on_the_workers_of_a_client() -> None:
    distributed = pytest.importorskip("distributed")
    prior = {"prior": "lorenz63", "error": 1.0, "every": 8, "steps": 16, "truths": 2, "members": 4, "progress": False}
    prior |= {"sampler": {"steps": 2, "corrections": 0, "attempts": 1, "mixing": False}, "batch": 2}
    expected = sdaxr.calibrate("lorenz63", op.select("a"), **prior)
    options = {"n_workers": 2, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        found = sdaxr.calibrate("lorenz63", op.select("a"), **prior)
    np.testing.assert_array_equal(found["rank"], expected["rank"])


WRONG: dict[str, tuple[dict[str, Any], type[SdaxrError], str]] = {
    "one truth": ({"truths": 1}, OptionError, "truths=1, expected a whole number of at least 2"),
    "one member": ({"members": 1}, OptionError, "members=1, expected a whole number of at least 2"),
    "a negative seed": ({"seed": -1}, OptionError, "seed=-1"),
    "a level of 1": ({"levels": [0.5, 1.0]}, OptionError, "expected numbers between 0 and 1"),
    "no level": ({"levels": []}, OptionError, "expected numbers between 0 and 1"),
    "an unknown quantity": ({"quantities": ["rank"]}, OptionError, "unknown quantity 'rank'"),
    "trajectories of a filter": (
        {"method": "enkf", "quantities": ["state", "energy"]},
        OptionError,
        "filter 'enkf', expected state, observed",
    ),
    "an unknown option": ({"evry": 2}, OptionError, "unknown option of calibrate: 'evry'.*Did you mean 'every'"),
    "a background": ({"background": None}, OptionError, "unknown option of calibrate: 'background'"),
    "neither prior nor system": ({"system": None}, OptionError, "neither prior nor system=, expected one"),
    "prior and system": ({"prior": "lorenz63"}, OptionError, "both prior and system=, expected one"),
    "an unknown system": ({"system": "linera"}, OptionError, "unknown system 'linera'"),
    "a method that needs a prior": ({"method": "mmps"}, OptionError, "method='mmps' needs a prior"),
    "a sampler beside a system": ({"sampler": {"steps": 4}}, OptionError, "found sampler= beside a system"),
    "a suffix": ({"store": "c.csv"}, OptionError, "ends in .zarr or .nc"),
    "an error of zero": ({"error": 0.0}, DataError, "expected a finite standard deviation above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(case: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    change, kind, message = WRONG[case]
    with pytest.raises(kind, match=message) as raised:
        sdaxr.calibrate("linear", **FEW | change)
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())
