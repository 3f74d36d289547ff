"""Forecasts by a prior alone: a Gaussian chain and its transition."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from gaussian import GaussianChain

from sdaxr.archives.reading import open_archive
from sdaxr.inference.forecast import forecast
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, OptionError
from sdaxr.states.time import TimeAxis

CHAIN = GaussianChain(6)


def chain_ensemble(members: int = 3, times: int = 1) -> xr.Dataset:
    """The same states for every member, in units of the chain's prior."""
    data = CHAIN.truth(2).isel(time=slice(times))
    return data.expand_dims(member=np.arange(members)).copy(deep=True)


QUICK = {"sampler": {"steps": 6}, "progress": False}


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
    assert result.attrs["model"] == "chain"
    assert result.attrs["method_options"] == '{"adapt": true, "variance": {"name": "measured"}}'


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
    ("options", "error", "message"),
    [
        ({"error": 0.0}, OptionError, "error=0.0"),
        ({"resolution": 64}, OptionError, "options .'resolution'., which a system may have.*the prior 'chain'"),
        ({"method": "ffbs"}, OptionError, "needs a physical model, found the prior"),
        ({"block": 0}, OptionError, "block=0"),
    ],
)
def test_bad_options_of_a_prior_are_named(options, error, message):
    with pytest.raises(error, match=message):
        forecast(chain_ensemble(), CHAIN.prior(), steps=2, **QUICK, **options)


def test_members_that_continue_their_own_states_are_not_drawn_together():
    with pytest.raises(OptionError, match="sampler='twisted' draws members together .* found a forecast"):
        forecast(chain_ensemble(), CHAIN.prior(), steps=2, sampler="twisted", progress=False)


def test_an_ensemble_of_another_time_is_refused():
    with pytest.raises(DataError, match="the ensemble are of kind float, those of the prior 'chain' of kind datetime"):
        forecast(chain_ensemble(), calendar_prior(), steps=2, **QUICK)
    slow = chain_ensemble(times=3).assign_coords(time=("time", [0.0, 1.0, 2.0], {"units": "1"}))
    with pytest.raises(DataError, match="the ensemble has the step 1"):
        forecast(slow, CHAIN.prior(), steps=2, **QUICK)


@pytest.mark.parametrize(
    ("context", "block", "expected"), [(None, None, (3, 3)), (2, None, (2, 4)), (None, 1, (3, 1)), (9, None, (9, 1))]
)
def test_half_a_window_conditions_the_other_half(context: int | None, block: int | None, expected: tuple) -> None:
    result = forecast(chain_ensemble(times=6), CHAIN.prior(), steps=2, context=context, block=block, **QUICK)
    assert (result.attrs["context"], result.attrs["block"]) == expected


def test_only_the_last_states_condition() -> None:
    data = chain_ensemble(times=6)
    expected = forecast(data, CHAIN.prior(), steps=2, context=2, **QUICK)
    changed = data.copy(deep=True)
    changed["a"][:, :4] += 3.0
    xr.testing.assert_equal(forecast(changed, CHAIN.prior(), steps=2, context=2, **QUICK), expected)
    # The one before the last hardly says anything beside the last one, in a chain of order one.
    for index, least in ((4, 0.01), (5, 1.0)):
        changed = data.copy(deep=True)
        changed["a"][:, index] += 3.0
        found = forecast(changed, CHAIN.prior(), steps=2, context=2, **QUICK)
        assert float(abs(found.a - expected.a).max()) > least


def test_a_forecast_has_the_moments_of_the_transition() -> None:
    """The whole way from labels: mean A^n x and covariance I - A^n A^n^T, in units of the prior."""
    data = chain_ensemble(members=600, times=1)
    result = forecast(data, CHAIN.prior(samples=2000), steps=3, error=0.01, progress=False)
    start = np.array([float(data[v][0, -1]) - 280 for v in "ab"]) / 2
    for lead in range(3):
        power = np.linalg.matrix_power(CHAIN.transition, lead + 1)
        found = np.stack([(result[v][:, lead] - 280) / 2 for v in "ab"], -1)
        exact = np.eye(2) - power @ power.T
        deviation = np.sqrt(np.diag(exact))
        assert np.abs((found.mean(0) - power @ start) / deviation).max() < 0.25
        assert np.abs(found.var(0) / deviation**2 - 1).max() < 0.3


def test_the_known_states_may_guide_by_the_covariance_of_the_prior() -> None:
    """Exact for this prior: the same moments as with the measured variance, and other draws."""
    data, how = chain_ensemble(members=200, times=1), {"steps": 2, "error": 0.01, "progress": False}
    measured, exact = (
        forecast(data, CHAIN.prior(samples=2000), method={"variance": v}, **how) for v in ("measured", "covariance")
    )
    assert float(abs(measured.a.mean("member") - exact.a.mean("member")).max()) < 0.5
    assert float(abs(measured.a - exact.a).max()) > 1e-3
