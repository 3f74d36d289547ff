"""Errors from innovations and residuals, against a Kalman analysis."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.bias import with_bias
from sdaxr.observations.desroziers import estimate_errors
from sdaxr.schema import DataError, GridError

TIMES, SITES = 4000, 2
B, R = 2.0, np.array([0.5, 1.5])  # standard deviations of the background, and of the two instruments


def analysed(assumed=R, seed=0):
    """Scalar Kalman analyses at two sites, each with its own instrument, at many times."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(0, 1, (TIMES, SITES))
    background = truth + B * draw.normal(size=truth.shape)
    values = truth + R * draw.normal(size=truth.shape)
    gain = B**2 / (B**2 + np.asarray(assumed) ** 2)
    coords = {"time": np.arange(float(TIMES)), "x": [0.0, 1.0]}

    def states(field):
        return xr.Dataset({"u": (("time", "x"), field, {"units": "m"})}, coords)

    obs = states(values).assign(u_error=("x", np.broadcast_to(assumed, SITES).astype(float), {"units": "m"}))
    obs = obs.assign_coords(source=("x", ["a", "b"]))
    return obs, states(background), states(background + gain * (values - background))


def test_the_errors_of_an_optimal_analysis_are_found():
    found = estimate_errors(*analysed(), by="source")
    np.testing.assert_allclose(found.u_error.sel(source=["a", "b"]), R, rtol=0.05)
    np.testing.assert_allclose(found.u_background, B, rtol=0.05)
    np.testing.assert_allclose(found.u_assumed, R)
    np.testing.assert_array_equal(found.u_count, TIMES)
    assert found.u_error.attrs["units"] == "m"


def test_without_entries_there_is_one_error():
    found = estimate_errors(*analysed())
    assert found.network.values.tolist() == ["all"]
    assert found.u_error.item() == pytest.approx(np.sqrt(np.mean(R**2)), rel=0.05)


def test_wrong_errors_converge_when_the_analysis_is_repeated():
    assumed = np.array([1.0, 1.0])
    for _ in range(4):
        found = estimate_errors(*analysed(assumed), by="source")
        # E[d_a d_b] = R~ (B + R) / (B + R~), with the assumed R~ in the weights.
        expected = assumed**2 * (B**2 + R**2) / (B**2 + assumed**2)
        np.testing.assert_allclose(found.u_error**2, expected, rtol=0.1)
        assert (np.abs(found.u_error - R) < np.abs(assumed - R)).all()
        assumed = found.u_error.values


def test_members_are_averaged_and_gaps_are_left_out():
    obs, background, analysis = analysed()
    obs["u"] = obs.u.where(obs.time < 1000)
    spread = xr.DataArray([-1.0, 1.0], dims="member")
    found = estimate_errors(obs, background + spread, analysis + 3 * spread, by="source")
    np.testing.assert_array_equal(found.u_count, 1000)
    np.testing.assert_allclose(found.u_error, R, rtol=0.15)


def test_single_measurements():
    obs, background, analysis = analysed()
    stacked = obs.stack(obs=("time", "x")).reset_index("obs")
    stacked["u_error"] = stacked.u_error.broadcast_like(stacked.u)
    stacked = stacked.isel(obs=slice(0, 2000))
    found = estimate_errors(stacked, background, analysis, by="source")
    np.testing.assert_allclose(found.u_error, R, rtol=0.1)


def test_a_coordinate_that_is_not_there():
    with pytest.raises(DataError, match="expected 'ship'; pass by="):
        estimate_errors(*analysed(), by="ship")


def test_the_assumed_error_contains_the_bias():
    obs, background, analysis = analysed()
    found = estimate_errors(with_bias(obs, 0.8, by="source"), background, analysis, by="source")
    np.testing.assert_allclose(found.u_assumed, np.hypot(R, 0.8))
    xr.testing.assert_identical(found.u_error, estimate_errors(obs, background, analysis, by="source").u_error)


def test_a_background_of_other_times():
    obs, background, analysis = analysed()
    with pytest.raises(GridError, match=r"H\(x\) has .* values of 'u', expected \(4000, 2\) along"):
        estimate_errors(obs, background.isel(time=slice(10)), analysis)
