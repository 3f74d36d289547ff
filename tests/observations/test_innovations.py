"""Observations minus what an ensemble says of them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from assimilated import QUICK, chain_observations, chain_prior, chain_truth

from sdaxr import operators as op
from sdaxr.inference.assimilate import assimilate
from sdaxr.observations.bias import with_bias
from sdaxr.observations.innovations import innovations
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, GridError, OperatorError


def test_innovations_by_hand() -> None:
    truth = chain_truth()
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
    np.testing.assert_allclose(found.a_normalised_rms, rms, rtol=1e-5)
    assert found.a_innovation.attrs["units"] == found.a.attrs["units"] and found.a_normalised_rms.attrs["units"] == "1"
    assert found.a_innovation.dims == found.a.dims == ("member", "time")
    one = innovations(truth, observations)
    np.testing.assert_allclose(one.a_normalised_rms, rms[0], rtol=1e-5)
    given = innovations(ensemble, observations.drop_attrs(deep=False), operator=operator)
    xr.testing.assert_allclose(given.a_innovation, found.a_innovation)


def test_innovations_of_a_posterior_are_as_large_as_the_errors() -> None:
    prior, observations = chain_prior(), chain_observations()
    posterior = assimilate(observations, prior, members=60, **(QUICK | {"sampler": {"steps": 60, "corrections": 0}}))
    found = innovations(posterior, observations)
    assert 0.5 < float(found.a_normalised_rms.mean()) < 1.6


def test_innovations_on_another_grid() -> None:
    truth, observations = chain_truth(), chain_observations()
    with pytest.raises(DataError, match="lies outside the window"):
        innovations(truth.isel(time=slice(4)), observations)
    grid = xr.Dataset({"a": (("time", "x"), np.zeros((9, 4)))}, {"time": truth.time, "x": np.arange(4.0)})
    seen = observe(grid, op.identity(), error=1.0)
    with pytest.raises(GridError, match="'x' of the observations"):
        innovations(grid.assign_coords(x=grid.x + 0.5), seen)


def test_measurements_keep_their_coordinates_and_those_outside_are_left_out() -> None:
    truth = chain_truth()
    at = {"time": ("obs", [0.0, 9.0, 0.75]), "station": ("obs", list("xyz")), "elevation": ("obs", [1.0, 2.0, np.nan])}
    data = xr.Dataset({"a": ("obs", [280.0] * 3, {"units": "K"}), "a_error": ("obs", [1.0] * 3)}, at)
    with pytest.raises(OperatorError, match="'time' of obs 1 is 9.0 and lies outside"):
        innovations(truth, data)
    found = innovations(truth, data, screening={"outside": "drop"})
    assert found.station.values.tolist() == ["x", "z"] and found.elevation.values[0] == 1.0
    expected = 280 - np.array([truth.a.values[0], (truth.a.values[1] + truth.a.values[2]) / 2])
    np.testing.assert_allclose(found.a_innovation, expected, rtol=1e-5)


def test_a_coastal_cell_is_its_sea_part() -> None:
    field = np.array([[1.0, np.nan, np.nan], [3.0, np.nan, np.nan]])
    fields = {"t": (("member", "time", "x"), np.stack([field, field + 1])[:, :, :])}
    sea = xr.Dataset(fields, {"time": [0.0, 1.0], "x": [0.0, 1.0, 2.0]})
    at = {"time": ("obs", [0.0, 0.5]), "x": ("obs", [0.6, 0.0])}
    data = xr.Dataset({"t": ("obs", [1.0, 1.0]), "t_error": 1.0}, at)
    np.testing.assert_allclose(innovations(sea, data).t_innovation, [[0.0, -1.0], [-1.0, -2.0]], atol=1e-6)
    land = innovations(sea, data.assign_coords(x=("obs", [1.5, 0.0])))
    np.testing.assert_allclose(land.t_innovation, [[np.nan, -1.0], [np.nan, -2.0]], atol=1e-6)


def test_errors_are_whole_errors() -> None:
    """The variance of a value is that of its error and that of its bias, with all predictors."""
    truth = chain_truth()
    seen = observe(truth, op.select("a"), error=0.5, seed=1).assign_coords(angle=("time", np.arange(9.0)))
    biased = with_bias(seen, 0.3, predictors={"angle": 0.2})
    found = innovations(truth, biased)
    whole = np.sqrt(0.5**2 + 0.3**2 + (0.2 * np.arange(9)) ** 2)
    expected = np.sqrt((((seen.a - truth.a).values / whole) ** 2).mean())
    assert float(found.a_normalised_rms) == pytest.approx(expected, rel=1e-5)
    xr.testing.assert_identical(found.a_innovation, innovations(truth, seen).a_innovation)
