"""Scores at observations, against closed forms of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from instruments import make_truth, soundings
from scipy import stats

from sdaxr import operators as op
from sdaxr.observations.bias import with_bias
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, OptionError
from sdaxr.verification.observed import METRICS, are_observations, verify_at
from sdaxr.verification.verify import summary, verify

COUNT, ERROR = 20_000, 0.7


def ensemble(members=5, spread=1.0, count=COUNT, seed=0):
    """Members and a truth N(0, spread^2) and N(0, 1) around one mean, and observations of the truth with an error."""
    draw = np.random.default_rng(seed)
    mean = draw.normal(0, 3, count)
    times = {"time": np.arange(float(count))}
    attrs = {"units": "m", "long_name": "height"}
    post = xr.Dataset({"x": (("member", "time"), mean + spread * draw.normal(size=(members, count)), attrs)}, times)
    values = mean + draw.normal(size=count) + ERROR * draw.normal(size=count)
    obs = xr.Dataset({"x": ("time", values, attrs), "x_error": ("time", np.full(count, ERROR), {"units": "m"})}, times)
    return post, obs


def test_a_reliable_ensemble_is_reliable():
    scores = verify(*ensemble())
    assert scores.spread_skill_x.item() == pytest.approx(1, abs=0.02)
    assert scores.rcrv_bias_x.item() == pytest.approx(0, abs=0.02)
    np.testing.assert_allclose(scores.rank_histogram_x, 1 / 6, atol=0.01)
    assert scores.rmse_corrected_x.item() == pytest.approx(np.sqrt(1 + 1 / 5), rel=0.02)
    assert scores.rmse_x.item() == pytest.approx(np.sqrt(1 + 1 / 5 + ERROR**2), rel=0.02)
    assert scores.spread_x.item() == pytest.approx(1, rel=0.02)
    assert scores.count_x.item() == COUNT and scores.attrs["members"] == 5
    large = verify(*ensemble(members=200, count=2000))
    assert large.rcrv_dispersion_x.item() == pytest.approx(1, abs=0.04)
    assert stats.kstest(large.pit_x.values, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("members", "spread"), [(2, 1.0), (5, 2.0), (40, 0.5)])
def test_the_crps_has_its_analytic_mean(members, spread):
    # E CRPS(N(0, a^2), y ~ N(0, b^2)) = sqrt(2 (a^2 + b^2) / pi) - a / sqrt(pi), for any number of members.
    crps = verify(*ensemble(members, spread), metrics=["crps"]).crps_x.item()
    a, b = np.sqrt(spread**2 + ERROR**2), np.sqrt(1 + ERROR**2)
    assert crps == pytest.approx(np.sqrt(2 * (a**2 + b**2) / np.pi) - a / np.sqrt(np.pi), rel=0.015)


def test_a_single_field_is_a_gaussian_around_it():
    post, obs = ensemble(members=1, count=3)
    scores = verify(post.isel(member=0), obs)
    z = (obs.x - post.x.isel(member=0)) / ERROR
    expected = ERROR * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert scores.crps_x.item() == pytest.approx(float(expected.mean()))
    np.testing.assert_allclose(scores.pit_x, stats.norm.cdf(z))
    assert "spread_x" not in scores and scores.attrs["members"] == 1
    with pytest.raises(OptionError, match=r"\['spread'\] need at least two members"):
        verify(post, obs, metrics=["spread"])


def test_values_by_hand():
    post = xr.Dataset({"x": (("member", "time"), [[0.0, 1.0], [2.0, 1.0]], {"units": "m"})}, {"time": [0.0, 1.0]})
    obs = xr.Dataset({"x": ("time", [1.0, 4.0], {"units": "m"}), "x_error": 1.0}, post.drop_vars("x").coords)
    scores = verify(post, obs)
    low, high = stats.norm.cdf(1.0), stats.norm.cdf(-1.0)
    np.testing.assert_allclose(scores.pit_x, [(low + high) / 2, stats.norm.cdf(3.0)])
    np.testing.assert_allclose(scores.rcrv_x, [0, 3])  # variances 2 and 0: total 1.5 * 2 + 1, and 1
    p = stats.norm.cdf(3.0)
    ranks = np.array(
        [
            [(1 - low) * (1 - high), low * (1 - high) + high * (1 - low), low * high],
            [(1 - p) ** 2, 2 * p * (1 - p), p**2],
        ]
    )
    np.testing.assert_allclose(scores.rank_histogram_x, ranks.mean(0))
    assert scores.bias_x.item() == -1.5 and scores.rmse_x.item() == pytest.approx(np.sqrt(4.5))
    assert scores.rmse_corrected_x.item() == pytest.approx(np.sqrt(3.5))


def test_errors_are_whole_errors():
    """Scores with a bias are those of an error with the sum of both variances."""
    post, obs = ensemble(count=50)
    obs = obs.assign_coords(height=("time", np.linspace(0, 2, 50)))
    whole = np.sqrt(ERROR**2 + 0.4**2 + (0.3 * obs.height.values) ** 2)
    found = verify(post, with_bias(obs, 0.4, predictors={"height": 0.3}))
    xr.testing.assert_allclose(found, verify(post, obs.assign(x_error=("time", whole, {"units": "m"}))))
    assert found.rcrv_dispersion_x < verify(post, obs).rcrv_dispersion_x


def test_an_error_larger_than_the_innovations_says_so():
    post, obs = ensemble(count=50)
    assert np.isnan(verify(post, obs.assign(x_error=("time", np.full(50, 99.0)))).rmse_corrected_x.item())


def test_the_observation_operator_is_applied():
    truth = make_truth("datetime")
    states = xr.concat([truth, truth + 1], "member")
    grid = observe(truth, op.coarsen(2), every=2, error=1e-6)
    scores = verify(states, grid)
    assert scores.bias_u.item() == pytest.approx(0.5, abs=1e-4) and scores.count_u.item() == 3 * 16
    assert scores.pit_u.dims == ("time", "y", "x") and int(scores.pit_u.notnull().sum()) == 3 * 16
    points = soundings(truth)
    assert verify(states, points).pit_u.dims == ("obs",)


def test_what_lies_outside_is_counted():
    truth = make_truth("datetime")
    states = xr.concat([truth, truth + 1], "member")
    scores = verify(states.isel(time=slice(3)), soundings(truth))
    assert scores.count_u.item() + scores.attrs["observations_outside"] == 20 > scores.count_u.item()
    later = states.assign_coords(time=truth.time + np.timedelta64(30, "D"))
    with pytest.raises(DataError, match="no observation lies within the posterior"):
        verify(later, soundings(truth))


def test_gaps_of_the_posterior_are_no_observations():
    post, obs = ensemble(count=10)
    assert verify(post.where(post.time > 3), obs).count_x.item() == 6
    with pytest.raises(DataError, match="no observation of 'x' lies within the posterior"):
        verify(post.where(post.time > 30), obs)


def test_a_forecast_is_verified_when_it_is_valid():
    truth = make_truth("datetime")
    expected = verify(xr.concat([truth, truth + 1], "member"), soundings(truth))
    lead = truth.time - truth.time[0]
    forecast = xr.concat([truth, truth + 1], "member").rename(time="lead_time").assign_coords(lead_time=lead.values)
    forecast = forecast.assign_coords(init_time=truth.time.values[0], valid_time=("lead_time", truth.time.values))
    xr.testing.assert_allclose(verify(forecast, soundings(truth)).drop_vars("time"), expected.drop_vars("time"))
    several = forecast.drop_vars(["valid_time", "init_time"]).expand_dims(init_time=truth.time.values[:2])
    with pytest.raises(DataError, match="several initial times"):
        verify(several, soundings(truth))


def test_the_table_has_the_scores_with_units():
    scores = verify(*ensemble(count=100))
    table = summary(scores)
    assert list(table.index) == [m for m in METRICS if m not in ("pit", "rcrv", "rank_histogram")]
    assert table.attrs["units"] == {"x": "m"}
    assert table.loc["spread_skill", "x"] == pytest.approx(scores.spread_skill_x.item())
    assert scores.crps_x.attrs["units"] == "m" and scores.rcrv_bias_x.attrs["units"] == "1"
    assert all(scores[n].attrs["long_name"] for n in scores.data_vars)


def test_options_and_kinds():
    post, obs = ensemble(count=10)
    assert list(verify_at(post, obs, metrics=["crps", "rmse"])) == ["crps_x", "rmse_x"]
    with pytest.raises(OptionError, match="unknown metric 'energy'"):
        verify(post, obs, metrics=["energy"])
    assert are_observations(obs) and not are_observations(post)
