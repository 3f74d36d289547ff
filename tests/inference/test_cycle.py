"""Assimilation window after window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from gaussian import GaussianChain

import sdaxr
from sdaxr import operators as op
from sdaxr.inference import cycle as cycling
from sdaxr.inference import windows
from sdaxr.inference.cycle import inflated
from sdaxr.inference.windows import within
from sdaxr.observations.screening import Screening
from sdaxr.prior.files import Prior
from sdaxr.schema import ArchiveError, DataError, OptionError, PriorError
from sdaxr.systems.base import System

CHAIN = GaussianChain(60, damping=0.98)
QUICK = {"method": {"variance": "covariance"}, "sampler": {"steps": 8, "corrections": 0}, "progress": False}
# With which ensembles have the spread of their errors.
FINE = QUICK | {"sampler": {"steps": 16, "corrections": 0}}


@dataclass(frozen=True)
class Swap(System):
    """A model that the chain does not follow, to be told from it: a and b change places."""

    name: ClassVar[str] = "swap"

    step: float = 0.5

    def template(self) -> xr.Dataset:
        return xr.Dataset({v: ((), np.zeros((), np.float32), {"units": "K"}) for v in "ab"})

    def trajectory(self, steps: int, seed: int) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> dict[str, np.ndarray]:
        states = [(state["a"], state["b"]), (state["b"], state["a"])]
        return {v: np.array([states[(i + 1) % 2][k] for i in range(steps)], np.float32) for k, v in enumerate("ab")}


@dataclass(frozen=True)
class Turn(Swap):
    """The chain's own transition, with its noise."""

    name: ClassVar[str] = "turn"

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> dict[str, np.ndarray]:
        chain, random, states = GaussianChain(2, damping=0.95), np.random.default_rng(seed), []
        x = (np.array([state["a"], state["b"]]) - 280) / 2
        for _ in range(steps):
            x = chain.transition @ x + random.multivariate_normal(np.zeros(2), chain.noise)
            states.append(280 + 2 * x)
        return {v: np.array([s[k] for s in states], np.float32) for k, v in enumerate("ab")}


@pytest.fixture(scope="module")
def prior() -> Prior:
    return GaussianChain(6, damping=0.98).prior(samples=200)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return CHAIN.truth(1)


@pytest.fixture(scope="module")
def observations(truth: xr.Dataset) -> xr.Dataset:
    return sdaxr.observe(truth, op.select("a"), every=2, error=0.4, seed=3)


def test_what_comes_out_is_one_ensemble_of_all_times(prior: Prior, truth: xr.Dataset, observations: xr.Dataset):
    found = sdaxr.cycle(observations, prior, window=7, members=3, seed=5, **QUICK)
    assert found.sizes == {"member": 3, "time": 60} and list(found.data_vars) == ["a", "b"]
    np.testing.assert_allclose(found.time, truth.time)
    assert found.attrs["cycle_window"] == 7
    # Of all windows, not of the first one.
    assert found.attrs["networks"] == ["observations"]
    assert found.attrs["observations_used"] == [int(observations.a.notnull().sum())]
    again = observations.sda.cycle(prior, window=7, members=3, seed=5, **QUICK)
    xr.testing.assert_identical(found, again)
    assert abs(found - sdaxr.cycle(observations, prior, window=7, members=3, seed=6, **QUICK)).a.max() > 0.1


def test_the_past_helps_and_the_ensemble_knows_its_error(prior: Prior):
    """Windows that begin from the last ensemble against windows on their own, over several truths."""
    squares = []
    for seed in range(3):
        truth = CHAIN.truth(seed)
        observations = sdaxr.observe(truth, op.select("a"), every=3, start=2, error=0.4, seed=seed)
        cycled = sdaxr.cycle(observations, prior, window=6, members=24, times=truth.time, **FINE)
        parts = [observations.isel(time=slice(i, i + 2)).drop_vars("window") for i in range(0, 20, 2)]
        alone = [
            sdaxr.assimilate(part, prior, times=truth.time[6 * i : 6 * i + 6], members=24, seed=i, **FINE)
            for i, part in enumerate(parts)
        ]
        errors = [f.mean("member") - truth for f in (cycled, xr.concat(alone, "time"))]
        squares.append([float((e**2).to_dataarray()[:, 6:].mean()) for e in errors])
        squares[-1].append(float(cycled.to_dataarray()[..., 6:].var("member").mean()))
    own, apart, spread = np.sqrt(np.mean(squares, axis=0))
    assert own < apart and 0.75 < spread / own < 1.35


@dataclass(frozen=True)
class Sure(Turn):
    """The chain's own transition, but for the noise: forecasts that are too sure of themselves."""

    name: ClassVar[str] = "sure"

    def advance(self, state: Mapping[str, np.ndarray], steps: int, seed: int = 0) -> dict[str, np.ndarray]:
        chain, states = GaussianChain(2, damping=0.95), []
        x = (np.array([state["a"], state["b"]]) - 280) / 2
        for _ in range(steps):
            x = chain.transition @ x
            states.append(280 + 2 * x)
        return {v: np.array([s[k] for s in states], np.float32) for k, v in enumerate("ab")}


def test_adaptive_inflation_makes_up_for_forecasts_that_are_too_sure() -> None:
    window, count, members = 3, 60, 12
    chain = GaussianChain(window * count, damping=0.95)
    prior, truth = GaussianChain(window, damping=0.95).prior(samples=500), chain.truth(7)
    seen = sdaxr.observe(truth, op.select("a"), every=2, start=1, error=0.6, seed=3)
    how = {
        "window": window,
        "times": truth.time,
        "carry": Sure(),
        "members": members,
        "method": "oi",
        "progress": False,
    }
    ratios = []
    for inflation in (1.0, "adaptive"):
        found = sdaxr.cycle(seen, prior, inflation=inflation, **how)
        first = slice(10 * window, None, window)
        error = ((found.mean("member") - truth).isel(time=first) ** 2).to_dataarray().mean()
        spread = (found.var("member", ddof=1).isel(time=first) * (1 + 1 / members)).to_dataarray().mean()
        ratios.append(float((spread / error) ** 0.5))
    # Of 300 windows with 24 members, the first is below 0.85 and the second within 0.07 of 1.
    assert ratios[0] < 0.9 < ratios[1] < 1.15
    factors = found.attrs["cycle_inflation_factors"]
    assert len(factors) == count - 1 and factors[0] == 1.0 and np.mean(factors[10:]) > 1.05


def test_a_background_has_inflated_deviations(prior: Prior):
    members = np.array([1.0, 2.0, 6.0])
    ahead = xr.Dataset(
        {"a": (("member", "lead_time"), 280 + members[:, None], {"units": "K"})},
        {"lead_time": [0.5], "init_time": 1.0, "valid_time": ("lead_time", [1.5])},
    )
    found = inflated(ahead, prior.layout.times(1.5, 1), inflation=1.5)
    np.testing.assert_allclose(found.a.squeeze("time"), 283 + 1.5 * (members - 3))
    assert found.a.attrs == {"units": "K"} and float(found.time[0]) == 1.5 and "valid_time" not in found.coords


def test_a_lag_is_a_fixed_lag_smoother_of_what_is_carried_on_without_it():
    """Against Rauch-Tung-Striebel smoothers that see the observations up to the lag after each window."""
    chain, steps, window = GaussianChain(12, damping=0.95), 12, 3
    prior, truth = GaussianChain(window, damping=0.95).prior(samples=3000), chain.truth(7)
    seen = sdaxr.observe(truth, op.select("a"), every=2, start=1, error=0.6, seed=3)
    how = {"window": window, "times": truth.time, "carry": Turn(), "members": 1500, "method": "oi", "progress": False}
    y = np.full((steps, 1), np.nan)
    y[1::2, 0] = (seen.a.values - 280) / 2
    for lag in (0, 2):
        found = sdaxr.cycle(seen, prior, lag=lag, **how).to_dataarray().transpose("member", "time", "variable")
        for first in range(0, steps, window):
            past = y.copy()
            past[first + window + lag :] = np.nan
            operator = np.tile(np.array([[1.0, 0.0]]), (steps, 1, 1))
            mean, covariance = chain.smoother(operator, past, np.full((steps, 1), 0.3))
            part = slice(first, first + window)
            states = (found.values[:, part] - 280) / 2
            np.testing.assert_allclose(states.mean(0), mean[part], atol=0.1)
            np.testing.assert_allclose(states.std(0), np.sqrt(np.diagonal(covariance[part], 0, 1, 2)), atol=0.05)


@pytest.mark.parametrize("operator", [None, op.scale(0.5), {"observations": op.scale(0.5)}], ids=str)
def test_windows_without_observations_follow_the_background(prior: Prior, truth: xr.Dataset, operator):
    of_all = op.identity() if operator is None else op.scale(0.5)
    observations = sdaxr.observe(truth.isel(time=slice(0, 6)), of_all, error=0.1, seed=3)
    how = FINE | {"operator": operator}
    found = sdaxr.cycle(observations, prior, window=6, members=40, times=truth.time[:12], **how)
    error = abs(found.mean("member").a - truth.a[:12])
    assert float(error[6]) < 1.5 and float(found.a[:, 11].std()) > 2 * float(found.a[:, 5].std())
    late = observations.isel(time=slice(1, None)).drop_vars("window").assign_coords(time=observations.time[1:] + 6.0)
    with pytest.raises(DataError, match="no observation in the first window"):
        sdaxr.cycle(late, prior, window=6, times=truth.time[:24], **QUICK)
    background = truth.isel(time=0, drop=True).assign(a_error=0.1, b_error=0.1)
    started = sdaxr.cycle(late, prior, window=6, times=truth.time[:24], background=background, members=4, **QUICK)
    assert started.sizes["time"] == 24


def test_carried_by_a_model(prior: Prior, truth: xr.Dataset):
    """Without observations the first state of the next window is drawn around what the model makes of the last one."""
    observations = sdaxr.observe(truth.isel(time=slice(0, 6)), op.identity(), error=0.1, seed=3)
    found = sdaxr.cycle(observations, prior, window=6, carry=Swap(), members=60, times=truth.time[:7], **FINE)
    last, first = (found.isel(time=i).mean("member") for i in (5, 6))
    np.testing.assert_allclose([first.a, first.b], [last.b, last.a], atol=0.1)


def test_a_prior_carries_on_the_device_and_in_the_batches_of_the_analysis(
    prior: Prior, observations: xr.Dataset, monkeypatch: pytest.MonkeyPatch
):
    given, real = [], cycling.forecast
    monkeypatch.setattr(cycling, "forecast", lambda *args, **how: (given.append(how), real(*args, **how))[1])
    for carry in (None, Swap()):
        sdaxr.cycle(observations, prior, window=30, members=2, carry=carry, batch=1, device="cpu", **QUICK)
    assert [(how.get("batch"), how.get("device")) for how in given] == [(1, "cpu"), (None, None)]


def test_a_killed_cycle_goes_on_and_leaves_one_archive(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, options = tmp_path / "c.zarr", {"window": 20, "members": 2, "seed": 1} | QUICK
    drawn, real = [], cycling.assimilate

    def dies(*args, **kwargs):
        drawn.append(kwargs["store"].name)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(cycling, "assimilate", dies)
    with pytest.raises(KeyboardInterrupt):
        sdaxr.cycle(observations, prior, store=store, **options)
    first = tmp_path / "c.zarr.windows" / "00000.zarr"
    written = {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file() and "a" in p.parts}
    monkeypatch.setattr(cycling, "assimilate", real)
    monkeypatch.setattr(windows, "remove", lambda folder: None)
    whole = sdaxr.cycle(observations, prior, store=store, **options)
    assert written and {p: p.stat().st_mtime_ns for p in written} == written
    monkeypatch.undo()
    xr.testing.assert_allclose(whole.load(), sdaxr.cycle(observations, prior, **options))
    assert (tmp_path / "c.zarr.windows").exists()  # as a call leaves it that is killed last
    xr.testing.assert_identical(whole, sdaxr.cycle(observations, prior, store=store, **options).load())
    assert not (tmp_path / "c.zarr.windows").exists()
    same = {"sampler": {"name": "sde-dpm++", "steps": "8", "corrections": 0.0}, "batch": 1, "device": "cpu"}
    xr.testing.assert_identical(whole, sdaxr.cycle(observations, prior, store=store, **(options | same)).load())
    for change, message in [
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"carry": Swap()}, "cycle_carry: .*-> 'swap"),
        ({"operator": op.scale(0.5)}, "cycle_operators: .*-> .*scale"),
        ({"method": "dps"}, "method: 'sda' -> 'dps'"),
        ({"sampler": {"steps": 9, "corrections": 0}}, "sampler_options: "),
        ({"precision": "bfloat16"}, "precision: 'auto' -> 'bfloat16'"),
        ({"outside": "drop"}, "outside: 'error' -> 'drop'"),
    ]:
        with pytest.raises(ArchiveError, match=message):
            sdaxr.cycle(observations, prior, store=store, **(options | change))
    with pytest.raises(ArchiveError, match="observations_sha256: "):
        sdaxr.cycle(observations + 1.0, prior, store=store, **options)
    with pytest.raises(ArchiveError, match="cycle_operators: "):
        sdaxr.cycle(observations.assign_attrs(operator=op.scale(1.0).to_json()), prior, store=store, **options)
    fresh = sdaxr.cycle(observations, prior, store=tmp_path / "d.zarr", **options)
    assert not (tmp_path / "d.zarr.windows").exists() and fresh.sizes == whole.sizes


def test_a_killed_cycle_that_overwrites_keeps_its_windows_and_the_old_result(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, options = tmp_path / "c.zarr", {"window": 20, "members": 2} | QUICK
    old = sdaxr.cycle(observations, prior, store=store, seed=1, **options).load()
    drawn, real = [], cycling.assimilate

    def dies(*args, **kwargs):
        drawn.append(kwargs["store"].name)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(cycling, "assimilate", dies)
    with pytest.raises(KeyboardInterrupt):
        sdaxr.cycle(observations, prior, store=store, seed=2, overwrite=True, **options)
    monkeypatch.undo()
    xr.testing.assert_identical(sdaxr.open_archive(store).load(), old)
    first = tmp_path / "c.zarr.windows" / "00000.zarr"
    written = first.stat()
    with pytest.raises(ArchiveError, match="seed: 1 -> 2"):
        sdaxr.cycle(observations, prior, store=store, seed=2, **options)
    monkeypatch.setattr(windows, "remove", lambda folder: None)
    sdaxr.cycle(observations, prior, store=store, seed=2, overwrite=True, **options)
    assert first.stat() == written
    # Windows of other settings are replaced.
    monkeypatch.undo()
    sdaxr.cycle(observations, prior, store=store, seed=1, overwrite=True, **options)
    xr.testing.assert_identical(sdaxr.open_archive(store).load(), old)
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_windows_of_other_settings_are_refused_with_the_difference(
    prior: Prior, observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(windows, "save", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    options = {"window": 20, "members": 2, "store": tmp_path / "c.zarr"} | QUICK
    with pytest.raises(KeyboardInterrupt):
        sdaxr.cycle(observations, prior, seed=1, **options)
    with pytest.raises(ArchiveError, match=r"c.zarr.windows' was made with another configuration .*seed: 1 -> 2"):
        sdaxr.cycle(observations, prior, seed=2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window=0, expected a whole number of at least 1"),
        ({"members": 1}, "members=1, expected a whole number of at least 2"),
        ({"members": "2"}, "members='2', expected a whole number"),
        ({"seed": -1}, "seed=-1, expected a whole number of at least 0"),
        ({"batch": 0}, "batch=0, expected a whole number of at least 1"),
        ({"widow": 4}, "unknown option of cycle: 'widow'; .*Did you mean 'window'"),
        ({"precison": "auto"}, "Did you mean 'precision'"),
        ({"method": "ffbs"}, "method='ffbs', which needs a physical model"),
        ({"inflation": "2"}, "inflation='2', expected a positive number or 'adaptive'"),
        ({"inflation": 0.0}, "inflation=0.0"),
        ({"lag": -1}, "lag=-1"),
    ],
)
def test_impossible_numbers_are_refused(prior: Prior, observations: xr.Dataset, options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        sdaxr.cycle(observations, prior, **(QUICK | options))


@dataclass(frozen=True)
class Third(Swap):
    """A model with a variable that the chain has not."""

    name: ClassVar[str] = "third"

    def template(self) -> xr.Dataset:
        return super().template().assign(c=((), np.zeros((), np.float32)))


@pytest.mark.parametrize(
    ("carry", "error", "message"),
    [
        ("lorentz63", OptionError, "Did you mean 'lorenz63'"),
        ("missing.safetensors", PriorError, "missing.safetensors.*neither a system.*nor a prior"),
        (Third(), DataError, "variable 'c'.*third needs it"),
        (Swap(step=0.25), DataError, "step 0.5 .*swap has 0.25"),
        (sdaxr.open_prior("lorenz63"), DataError, "the prior 'lorenz63' has"),
    ],
)
def test_what_cannot_carry_the_ensemble_is_refused_before_anything_is_drawn(
    prior: Prior, observations: xr.Dataset, monkeypatch: pytest.MonkeyPatch, carry, error: type, message: str
):
    monkeypatch.setattr(cycling, "assimilate", lambda *args, **options: pytest.fail("a window was drawn"))
    with pytest.raises(error, match=f"carry= cannot forecast states of the prior.*{message}"):
        sdaxr.cycle(observations, prior, window=1, carry=carry, **QUICK)


def test_a_store_that_is_no_archive_is_not_replaced(prior: Prior, observations: xr.Dataset, tmp_path: Path):
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(ArchiveError, match="no Zarr archive, so it is not overwritten"):
        sdaxr.cycle(observations, prior, store=tmp_path / "mine.zarr", overwrite=True, **QUICK)
    with pytest.raises(OptionError, match="ends in .zarr or .nc"):
        sdaxr.cycle(observations, prior, store=tmp_path / "cycle", **QUICK)


def test_a_network_without_times_is_refused(prior: Prior, truth: xr.Dataset):
    whole = sdaxr.observe(truth, op.identity(), error=0.1).isel(time=0, drop=True)
    with pytest.raises(OptionError, match="no times of its own"):
        sdaxr.cycle({"whole": whole}, prior, times=truth.time, **QUICK)


def test_a_rest_shorter_than_the_prior_needs_belongs_to_the_last_window(
    observations: xr.Dataset, monkeypatch: pytest.MonkeyPatch
):
    prior = GaussianChain(6, damping=0.98).prior(samples=200, window=5)
    lengths = []
    assimilate = cycling.assimilate

    def counted(*args, **options):
        lengths.append(options["times"].size)
        return assimilate(*args, **options)

    monkeypatch.setattr(cycling, "assimilate", counted)
    found = sdaxr.cycle(observations, prior, window=8, members=2, seed=5, **QUICK)
    assert lengths == [8] * 6 + [12] and found.sizes["time"] == 60
    with pytest.raises(OptionError, match="window=4, expected a whole number of at least 5"):
        sdaxr.cycle(observations, prior, window=4, members=2, **QUICK)


def test_measurements_between_two_windows_belong_to_the_first(prior: Prior, truth: xr.Dataset) -> None:
    """The first window then has one more state, which its analysis leaves out."""
    times = np.array([0.3, 1.0, 2.75, 3.1])
    at = {"time": ("obs", times, {"units": "1"})}
    data = xr.Dataset({"a": ("obs", [281.0] * 4, {"units": "K"}), "a_error": ("obs", [0.4] * 4, {"units": "K"})}, at)
    axis = truth.time[:12]
    how = Screening()
    for part, expected, end in (((0, 6), [0.3, 1.0, 2.75], 7), ((6, 12), [3.1], 12)):
        chosen, needed = within("o", data, axis, part, how)
        assert chosen.time.values.tolist() == expected and needed == end
    nearest = replace(how, time="nearest", tolerance=0.3)
    assert within("o", data, axis, (6, 12), nearest)[0].time.values.tolist() == [2.75, 3.1]
    found = sdaxr.cycle(data, prior, window=6, members=3, times=axis, **QUICK)
    np.testing.assert_allclose(found.time, axis)
