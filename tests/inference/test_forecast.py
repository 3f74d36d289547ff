"""Forecasts against the system itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import distributed
import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.seeds import unit_seed
from sdaxr.inference.forecast import _resolve, forecast
from sdaxr.schema import ArchiveError, DataError, GridError, OptionError, PriorError, UnitsError
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
    # Model time without a unit is no period that CF knows.
    assert "standard_name" not in result.lead_time.attrs
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
    data = ensemble()
    here = forecast(data, SYSTEM, steps=STEPS, progress=False)
    options = {"n_workers": 2, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        xr.testing.assert_identical(forecast(data, SYSTEM, steps=STEPS, progress=False), here)


@pytest.mark.parametrize(
    "unused",
    [
        {"context": 2}, {"block": 1}, {"error": 0.1}, {"method": {"variance": 0.1}}, {"sampler": "ddim"}, {"batch": 2},
        {"device": "cpu"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_only_a_prior_uses_is_refused_beside_a_system(unused):
    with pytest.raises(OptionError, match=f"found {next(iter(unused))}= beside a system.*pass a prior as the model"):
        forecast(ensemble(), SYSTEM, steps=STEPS, progress=False, **unused)
    assert forecast(ensemble(), SYSTEM, steps=1, progress=False, device="auto", error=0.03).sizes["lead_time"] == 1


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"steps": 0}, OptionError, "steps=0"),
        ({}, {"seed": -1}, OptionError, "seed=-1, expected a whole number of at least 0"),
        ({}, {"model": "lorenz63", "batch": 0}, OptionError, "batch=0, expected a whole number of at least 1"),
        ({}, {"model": "lorentz96"}, OptionError, "Did you mean 'lorenz96'"),
        ({}, {"model": "nowhere.safetensors"}, PriorError, "neither a system .* nor a prior"),
        ({}, {"model": "lorenz96", "site": 8}, OptionError, "Did you mean 'sites'"),
        ({}, {"model": "lorenz96"}, GridError, r"'site': 8.*lorenz96 has .*'site': 40.*pass the options.*sites=40"),
        ({"site": "shift"}, {}, GridError, "'site' has 8 points from 0.5"),
        ({"rename": "y"}, {}, DataError, "variable 'x'"),
        ({"units": "K"}, {}, UnitsError, "convert it"),
        ({"step": 0.1}, {}, DataError, "the step 0.1 1, lorenz96 has 0.05 1; pass step=0.1"),
        ({"step": None}, {}, DataError, "expected 'time', the time from which the forecast starts"),
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
