"""Forecasts against the system itself, and against the closed form of a Gaussian chain."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain

from sdaxr.archives.archive import open_archive
from sdaxr.inference.forecast import _resolve, forecast
from sdaxr.posterior.samplers import DPMSolver, Langevin, Sampler, log_snr_levels
from sdaxr.posterior.states import blocks, extend
from sdaxr.prior.files import Prior
from sdaxr.schema import ArchiveError, DataError, GridError, OptionError, PriorError, UnitsError
from sdaxr.states.time import TimeAxis
from sdaxr.systems.generation import unit_seed
from sdaxr.systems.lorenz96 import Lorenz96
from sdaxr.systems.registry import open_system

STEPS = 5
SYSTEM = open_system("lorenz96", sites=8, spin_up=20)


def ensemble(members: int = 3, times: int = 4) -> xr.Dataset:
    """Members of Lorenz 1996 at several times."""
    x = np.stack([SYSTEM.trajectory(times, seed)["x"] for seed in range(members)])
    state = SYSTEM.template()
    time = ("time", 2.0 + 0.05 * np.arange(times), {"units": "1", "long_name": "model time"})
    return xr.Dataset({"x": (("member", "time", "site"), x, state.x.attrs)}, dict(state.coords) | {"time": time})


def test_a_system_advances_each_member_from_its_last_state():
    data = ensemble()
    result = forecast(data, SYSTEM, steps=STEPS, progress=False)
    assert result.x.dims == ("member", "lead_time", "site") and result.x.dtype == np.float32
    for member in range(3):
        expected = SYSTEM.advance({"x": data.x.values[member, -1]}, STEPS)["x"]
        np.testing.assert_array_equal(result.x.values[member], expected)
    np.testing.assert_allclose(result.lead_time, 0.05 * np.arange(1, STEPS + 1))
    np.testing.assert_allclose(result.valid_time, 2.15 + result.lead_time)
    assert float(result.init_time) == pytest.approx(2.15)
    assert result.lead_time.attrs["standard_name"] == "forecast_period"
    assert result.init_time.attrs["standard_name"] == "forecast_reference_time"
    assert result.member.attrs["standard_name"] == "realization"
    assert {result[c].attrs["units"] for c in ("lead_time", "valid_time", "init_time")} == {"1"}
    assert result.site.attrs["period"] == 8.0
    assert json.loads(result.attrs["model_options"])["sites"] == 8


def test_options_make_the_system_and_one_state_is_enough():
    data = ensemble()
    by_name = forecast(data.isel(time=[-1]), "lorenz96", sites=8, steps=STEPS, progress=False)
    xr.testing.assert_equal(by_name, forecast(data, SYSTEM, steps=STEPS, progress=False))
    single = forecast(data.isel(member=1, time=-1, drop=False), SYSTEM, steps=STEPS, progress=False)
    assert single.sizes["member"] == 1
    np.testing.assert_array_equal(single.x[0], by_name.x[1])


def test_noise_of_a_stochastic_system_belongs_to_the_member():
    system = open_system("lorenz63", spin_up=10)
    state = {v: (("member", "time"), np.full((3, 1), 5.0, np.float32), {"units": "1"}) for v in "abc"}
    data = xr.Dataset(state, {"time": ("time", [0.0], {"units": "1"})})
    full = forecast(data, system, steps=STEPS, seed=3, progress=False)
    assert np.abs(full.a[0] - full.a[1]).max() > 1e-3
    two = forecast(data.isel(member=slice(2)), system, steps=STEPS, seed=3, progress=False)
    xr.testing.assert_equal(full.isel(member=slice(2)), two)
    expected = system.advance({v: np.float32(5) for v in "abc"}, STEPS, unit_seed(3, 1))
    np.testing.assert_array_equal(full.a[1], expected["a"])


def test_a_name_that_is_both_is_the_system_with_the_options_of_the_data():
    options = json.dumps({"resolution": 32, "coarsen": 2})
    data = xr.Dataset(attrs={"sdaxr_system": "kolmogorov", "sdaxr_options": options})
    assert _resolve("kolmogorov", {}, data) == open_system("kolmogorov", resolution=32, coarsen=2)
    assert _resolve("kolmogorov", {"coarsen": 4}, data).coarsen == 4
    assert _resolve("kolmogorov", {}, xr.Dataset()) == open_system("kolmogorov")


@dataclass(frozen=True)
class Fragile(Lorenz96):
    """Lorenz 1996, some of whose members blow up."""

    name: ClassVar[str] = "fragile"
    limit: ClassVar[float] = np.inf

    def advance(self, state, steps, seed=0):
        fields = super().advance(state, steps, seed)
        return fields if state["x"][0] < self.limit else {"x": fields["x"] * np.float32(np.nan)}


def test_an_archive_lists_failures_and_is_resumed(tmp_path, monkeypatch):
    data, system = ensemble(), Fragile(sites=8)
    monkeypatch.setattr(Fragile, "limit", float(np.sort(data.x[:, -1, 0])[1]))
    run = partial(forecast, data, system, steps=STEPS, progress=False, store=tmp_path / "later.zarr")
    with pytest.raises(ArchiveError, match="1 of 3 units.*not finite from step 1 on"):
        run()
    monkeypatch.setattr(Fragile, "limit", np.inf)
    stored = run()
    memory = forecast(data, system, steps=STEPS, progress=False)
    xr.testing.assert_identical(stored.drop_vars("status").load().drop_attrs(), memory.drop_attrs())
    with pytest.raises(ArchiveError, match="seed"):
        run(seed=4)


def test_members_run_on_the_dask_client():
    distributed = pytest.importorskip("distributed")
    data = ensemble()
    here = forecast(data, SYSTEM, steps=STEPS, progress=False)
    options = {"n_workers": 2, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        xr.testing.assert_identical(forecast(data, SYSTEM, steps=STEPS, progress=False), here)


# Forecasts by a prior

CHAIN = GaussianChain(6)


def closed_form(y: np.ndarray, error: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (steps, 2) and covariance (steps, 2, 2) of the states after the k states that were observed as y (k, 2)."""
    k = len(y)
    c = GaussianChain(k + steps).covariance
    gain = c[2 * k :, : 2 * k] @ np.linalg.inv(c[: 2 * k, : 2 * k] + error**2 * np.eye(2 * k))
    covariance = c[2 * k :, 2 * k :] - gain @ c[: 2 * k, 2 * k :]
    blocks = covariance.reshape(steps, 2, steps, 2)
    return (gain @ y.ravel()).reshape(steps, 2), np.stack([blocks[i, :, i] for i in range(steps)])


def test_blocks_reach_the_steps():
    assert blocks(1, 10, 3, 4) == [1, 3]
    assert blocks(5, 9, 3, 4) == [3, 3, 3]


def test_a_continued_chain_has_the_moments_of_its_transition():
    members, steps, error = 500, 8, 0.05
    known = torch.tensor([[[1.5, -0.5]]]).expand(members, -1, -1)
    sampler = Sampler(log_snr_levels(48, 20.0, 0.01), DPMSolver(eta=1.0), Langevin())
    one = GaussianChain(5)
    drawn = extend(
        lambda first, count: one.denoise,
        known, steps, context=1, block=4, sampler=sampler, error=error,
        # Exact for a Gaussian prior (appendix B of the paper), so that the blocks alone are tested.
        gamma=lambda r: torch.as_tensor(one.unresolved(r)[:2, :2], dtype=torch.float32),
    ).numpy()  # fmt: skip
    mean, cov = closed_form(known[0].numpy(), error, steps)
    powers = [np.linalg.matrix_power(CHAIN.transition, n) for n in range(1, steps + 1)]
    np.testing.assert_allclose(mean, [p @ [1.5, -0.5] for p in powers], atol=0.01)
    np.testing.assert_allclose(cov, [np.eye(2) - p @ p.T for p in powers], atol=0.01)
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((drawn.mean(0) - mean) / deviation).max() < 0.05 + 4.5 / np.sqrt(members)
    assert np.abs(drawn.var(0) / deviation**2 - 1).max() < 0.1 + 4.5 * np.sqrt(2 / members)


def chain_ensemble(members: int = 3, times: int = 1) -> xr.Dataset:
    """The same states for every member, in units of the chain's prior."""
    data = CHAIN.truth(2).isel(time=slice(times))
    return data.expand_dims(member=np.arange(members)).copy(deep=True)


QUICK = {"levels": 6, "progress": False}


def test_a_prior_continues_every_member_from_its_own_states():
    data = chain_ensemble()
    data["a"][1] += 4.0
    data["b"][1] -= 4.0
    result = forecast(data, CHAIN.prior(), steps=8, progress=False)
    assert result.a.dims == ("member", "lead_time") and result.a.attrs["units"] == "K"
    assert result.sizes["lead_time"] == 8
    np.testing.assert_allclose(result.lead_time, 0.5 * np.arange(1, 9))
    states = {m: np.array([float(data[v][m, -1]) - 280 for v in "ab"]) for m in (0, 1)}
    for member, state in states.items():
        departure = [float(result[v][member, 0]) - 280 for v in "ab"] - CHAIN.transition @ state
        assert np.abs(departure).max() < 5 * 2 * np.sqrt(CHAIN.noise[0, 0])
    assert result.attrs["model"] == "chain" and result.attrs["sampling_gamma"] == "measured"


def test_a_member_of_a_prior_forecast_is_the_same_in_any_batch_and_archive(tmp_path):
    data = chain_ensemble(times=4)
    full = forecast(data, CHAIN.prior(), steps=4, seed=1, **QUICK)
    parts = forecast(data, CHAIN.prior(), steps=4, seed=1, batch=2, store=tmp_path / "f.zarr", **QUICK)
    xr.testing.assert_allclose(full, parts.drop_vars("status").load(), rtol=1e-5)
    two = forecast(data.isel(member=slice(2)), CHAIN.prior(), steps=4, seed=1, **QUICK)
    xr.testing.assert_allclose(full.isel(member=slice(2)), two, rtol=1e-5)
    assert np.abs(full.a[0] - full.a[1]).max() > 1e-2


def calendar_prior() -> Prior:
    prior = CHAIN.prior()
    return replace(prior, layout=replace(prior.layout, time=TimeAxis("datetime", 3600.0, "s", "proleptic_gregorian")))


def test_calendar_times_survive_the_archive_without_a_warning(tmp_path):
    data = chain_ensemble(times=2).assign_coords(time=np.array(["2019-01-31T22", "2019-01-31T23"], "datetime64[ns]"))
    result = forecast(data, calendar_prior(), steps=3, store=tmp_path / "f.zarr", **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = xr.open_zarr(tmp_path / "f.zarr")
        again.to_netcdf(tmp_path / "f.nc")
        netcdf = open_archive(tmp_path / "f.nc")
    for data_set in (result, again, netcdf):
        assert data_set.lead_time.dtype.kind == "m"
        np.testing.assert_array_equal(data_set.lead_time, np.arange(1, 4) * np.timedelta64(1, "h"))
        np.testing.assert_array_equal(data_set.valid_time, (data_set.init_time + data_set.lead_time).values)
        assert data_set.valid_time.values[0] == np.datetime64("2019-02-01")
        assert data_set.lead_time.attrs["standard_name"] == "forecast_period"


def test_a_window_network_gets_its_window():
    prior = GaussianChain(3).prior(window=3)
    result = forecast(chain_ensemble(), prior, steps=3, **QUICK)
    assert np.isfinite(result.a).all()
    with pytest.raises(OptionError, match="context=1 and block=1"):
        forecast(chain_ensemble(), prior, steps=3, context=1, block=1, **QUICK)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"steps": 0}, OptionError, "steps=0"),
        ({}, {"model": "lorentz96"}, OptionError, "Did you mean 'lorenz96'"),
        ({}, {"model": "nowhere.safetensors"}, PriorError, "no system .* and no prior"),
        ({}, {"model": "lorenz96", "site": 8}, OptionError, "Did you mean 'sites'"),
        ({}, {"model": "lorenz96"}, GridError, r"'site': 8.*lorenz96 has .*'site': 40.*pass the options.*sites=40"),
        ({"site": "shift"}, {}, GridError, "'site' has 8 points from 0.5"),
        ({"rename": "y"}, {}, DataError, "variable 'x'"),
        ({"units": "K"}, {}, UnitsError, "convert it"),
        ({"step": 0.1}, {}, DataError, "the step 0.1 1, lorenz96 has 0.05 1; pass step=0.1"),
        ({"step": None}, {}, DataError, "expected 'time', from which the forecast starts"),
        ({"nan": True}, {}, DataError, "not finite at the last time"),
        ({"step": "calendar"}, {}, DataError, "'time' of the ensemble is datetime"),
    ],
)
def test_bad_input_of_a_system_is_named(change, options, error, message):
    data = ensemble()
    if "site" in change:
        data["site"] = data.site + 0.5
    if "rename" in change:
        data = data.rename(x=change["rename"])
    if "units" in change:
        data.x.attrs["units"] = change["units"]
    if "nan" in change:
        data["x"] = data.x.where(data.site > 0)
    if change.get("step") == "calendar":
        data["time"] = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h")
    elif "step" in change:
        data = data.drop_vars("time")
        if change["step"]:
            data = data.assign_coords(time=("time", change["step"] * np.arange(4), {"units": "1"}))
    with pytest.raises(error, match=message):
        forecast(data, **({"model": SYSTEM, "steps": 2, "progress": False} | options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"error": 0.0}, OptionError, "error=0.0"),
        ({"resolution": 64}, OptionError, "option 'resolution'.*the prior 'chain'"),
        ({"block": 0}, OptionError, "block=0"),
    ],
)
def test_bad_options_of_a_prior_are_named(options, error, message):
    with pytest.raises(error, match=message):
        forecast(chain_ensemble(), CHAIN.prior(), steps=2, **QUICK, **options)


def test_an_ensemble_of_another_time_is_refused():
    with pytest.raises(DataError, match="is float, that of the prior 'chain' is datetime"):
        forecast(chain_ensemble(), calendar_prior(), steps=2, **QUICK)
    slow = chain_ensemble(times=3).assign_coords(time=("time", [0.0, 1.0, 2.0], {"units": "1"}))
    with pytest.raises(DataError, match="the ensemble has the step 1"):
        forecast(slow, CHAIN.prior(), steps=2, **QUICK)
