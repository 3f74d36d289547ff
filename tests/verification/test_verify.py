"""Scores against closed forms, alignment, laziness, units and messages."""

from __future__ import annotations

import logging

import dask
import numpy as np
import pytest
import xarray as xr
from ensembles import ensemble

from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.verification.verify import METRICS, summary, verify

TWO_PI = 2 * np.pi


def test_fair_crps_of_a_gaussian_has_its_analytic_mean():
    # E CRPS(N(0, s^2), y ~ N(0, 1)) = sqrt(2 (1 + s^2) / pi) - s / sqrt(pi), for any number of members.
    random = np.random.default_rng(1)
    for members, scale in ((2, 1.0), (5, 2.0)):
        post = xr.Dataset({"x": (("member", "time"), scale * random.standard_normal((members, 40_000)))})
        truth = xr.Dataset({"x": ("time", random.standard_normal(40_000))})
        times = {"time": np.arange(40_000.0)}
        crps = verify(post.assign_coords(times), truth.assign_coords(times), metrics=["crps"]).crps_x
        expected = np.sqrt(2 * (1 + scale**2) / np.pi) - scale / np.sqrt(np.pi)
        assert float(crps.mean()) == pytest.approx(expected, abs=4 * float(crps.std()) / 200)


def test_exchangeable_members_have_spread_skill_one_and_a_flat_rank_histogram():
    post, truth = ensemble(members=4, times=50, size=16)
    scores = verify(post, truth)
    table = summary(scores)
    assert table.loc["spread_skill", "u"] == pytest.approx(1, abs=0.02)
    histogram = scores.rank_histogram_u
    np.testing.assert_allclose(histogram.sum("rank"), 1)
    np.testing.assert_allclose(histogram.mean("time"), 1 / 5, atol=0.015)
    np.testing.assert_array_equal(histogram["rank"], np.arange(1, 6))


def test_an_overconfident_ensemble_is_seen():
    post, truth = ensemble(members=4, times=20, size=16, spread=0.2)
    scores = verify(post, truth)
    assert summary(scores).loc["spread_skill", "v"] < 0.3
    mean = scores.rank_histogram_v.mean("time")
    assert mean[0] > 0.3 and mean[-1] > 0.3


def test_values_by_hand():
    post = xr.Dataset({"x": (("member", "time", "site"), [[[1.0, 2.0]], [[3.0, 2.0]]])}, {"time": [0.0]})
    truth = xr.Dataset({"x": (("time", "site"), [[1.0, 5.0]])}, {"time": [0.0]})
    scores = verify(post, truth)
    assert scores.rmse_x.item() == pytest.approx(np.sqrt((1 + 9) / 2))
    assert scores.bias_x.item() == pytest.approx((1 - 3) / 2)
    assert scores.spread_x.item() == pytest.approx(1)  # variances 2 and 0
    assert scores.spread_skill_x.item() == pytest.approx(np.sqrt(1.5) / np.sqrt(5))
    assert scores.crps_x.item() == pytest.approx(((1 - 1) + 3) / 2)
    # site 0: the truth ties with the lower member (ranks 1 and 2); site 1: above both.
    np.testing.assert_allclose(scores.rank_histogram_x.values, [[0.25, 0.25, 0.5]])
    assert scores.attrs["members"] == 2


def test_every_result_has_units_and_a_name():
    scores = verify(*ensemble())
    units = {n: scores[n].attrs["units"] for n in scores.data_vars}
    assert units["rmse_u"] == units["crps_v"] == units["spread_u"] == units["bias_u"] == "m s-1"
    assert units["spread_skill_u"] == units["rank_histogram_v"] == "1"
    assert units["spectrum_kinetic_energy"] == "m2 s-2"
    assert all(scores[n].attrs["long_name"] for n in scores.data_vars)
    assert scores.rmse_u.dims == ("time",)
    xr.testing.assert_allclose(scores.rmse_u.time, ensemble()[0].time)


def test_dask_is_lazy_and_gives_the_same():
    post, truth = ensemble()
    expected = verify(post, truth)

    def refuse(*args, **kwargs):
        raise AssertionError("computed too early")

    with dask.config.set(scheduler=refuse):
        lazy = verify(post.chunk(member=1, time=2), truth.chunk(time=3, x=4))
        assert all(lazy[n].chunks for n in lazy.data_vars)
        mixed = verify(post.chunk(member=1), truth)
    for found in (lazy, mixed):
        xr.testing.assert_allclose(found.compute(), expected)
        assert found.rmse_u.attrs == expected.rmse_u.attrs


def test_summary_takes_roots_of_mean_squares():
    post, truth = ensemble()
    scores = verify(post, truth)
    table = summary(scores)
    assert list(table.index) == ["count", "rmse", "bias", "crps", "spread", "spread_skill"]
    assert table.loc["count", "u"] == truth.u.size
    assert list(table.columns) == ["u", "v"]
    error = post.mean("member") - truth
    assert table.loc["rmse", "u"] == pytest.approx(float(np.sqrt((error.u**2).mean())))
    assert table.loc["spread", "v"] == pytest.approx(float(np.sqrt(post.v.var("member", ddof=1).mean())))
    ratio = np.sqrt(11 / 10) * table.loc["spread", "u"] / table.loc["rmse", "u"]
    assert table.loc["spread_skill", "u"] == pytest.approx(ratio)
    assert table.attrs["units"] == {"u": "m s-1", "v": "m s-1"}


def test_layers_are_kept_apart():
    post, truth = ensemble(members=3, times=2)
    post, truth = (ds[["u"]].expand_dims(layer=[0, 1]) * xr.Variable("layer", [1.0, 10.0]) for ds in (post, truth))
    scores = verify(post, truth)
    assert set(scores.rmse_u.dims) == {"layer", "time"}
    table = summary(scores)
    assert table.loc["rmse", "u[layer=1]"] == pytest.approx(10 * table.loc["rmse", "u[layer=0]"])


def test_state_vectors_without_space():
    random = np.random.default_rng(3)
    times = {"time": np.arange(5.0)}
    post = xr.Dataset({n: (("member", "time"), random.standard_normal((4, 5))) for n in "abc"}, times)
    truth = xr.Dataset({n: ("time", random.standard_normal(5)) for n in "abc"}, times)
    scores = verify(post, truth)
    xr.testing.assert_allclose(scores.rmse_a.drop_attrs(), abs(post.a.mean("member") - truth.a).drop_attrs())
    assert not [n for n in scores if str(n).startswith("spectrum")]
    np.testing.assert_allclose(scores.rank_histogram_b.sum("rank"), 1)


def test_a_single_field_has_no_ensemble_scores():
    post, truth = ensemble()
    for field in (post.isel(member=0, drop=True), post.isel(member=[0])):
        scores = verify(field, truth)
        assert {str(n).rsplit("_", 1)[0] for n in scores if "spectrum" not in str(n)} == {
            "count",
            "rmse",
            "bias",
            "crps",
        }
        mae = abs(post.u[0] - truth.u).mean(("y", "x"))
        np.testing.assert_allclose(scores.crps_u, mae)
        assert list(scores.source) == ["estimate", "truth"]
    with pytest.raises(OptionError, match="at least two members"):
        verify(post.isel(member=[0]), truth, metrics=["spread"])


def test_masked_cells_are_left_out_of_every_score():
    post, truth = ensemble()
    hole = xr.zeros_like(truth.u.isel(time=0, drop=True), dtype=bool)
    hole[2:5, 1:4] = True
    expected = verify(post.where(~hole, drop=False), truth, metrics=METRICS[:-1])
    other_way = verify(post, truth.where(~hole), metrics=METRICS[:-1])
    spoiled = verify(post.where(~hole | (post.member > 0)), truth.where(~hole, 1e9), metrics=METRICS[:-1])
    xr.testing.assert_allclose(expected, other_way)
    xr.testing.assert_allclose(expected, spoiled)
    keep = ~hole.values
    by_hand = np.sqrt(((post.u.mean("member") - truth.u).values[:, keep] ** 2).mean(-1))
    np.testing.assert_allclose(expected.rmse_u, by_hand)


@pytest.mark.parametrize(
    ("of_posterior", "of_truth", "compared", "alone"),
    [(0, 0, 64, 0), (32, 32, 32, 0), (0, 32, 32, 32), (16, 0, 48, 16), (8, 16, 48, 8)],
)
def test_what_is_compared_is_counted(of_posterior: int, of_truth: int, compared: int, alone: int, caplog):
    """A land mask of both says nothing; gaps of one of the two alone are reported."""
    post, truth = ensemble()
    number = xr.DataArray(np.arange(64).reshape(8, 8), dims=("y", "x"))
    post, truth = post.where(number >= of_posterior), truth.where(number >= of_truth)
    with caplog.at_level(logging.WARNING, "sdaxr"):
        scores = verify(post, truth)
    assert (scores.count_u == compared).all() and scores.count_u.attrs["units"] == "1"
    total = compared * truth.sizes["time"], alone * truth.sizes["time"]
    assert summary(scores).loc["count", "v"] == total[0]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{n}: {total[1]} of {truth.u.size} values are NaN in the truth or in a member alone, and are not compared"
        for n in "uv"
        if alone
    ]


def test_a_time_without_truth_is_nan_and_dropped_from_the_summary():
    post, truth = ensemble()
    gap = truth.where(truth.time > 0.1)
    for scores in (verify(post, gap), verify(post.chunk(), gap.chunk()).compute()):
        assert np.isnan(scores.rmse_u[0]) and np.isnan(scores.rank_histogram_u[0]).all()
        assert np.isfinite(summary(scores)).all().all()


def test_latitudes_are_weighted_by_their_cosine():
    lat = np.array([0.0, 60.0])
    truth = xr.Dataset(
        {"t": (("time", "lat", "lon"), np.zeros((1, 2, 3)))},
        {"time": [0.0], "lat": lat, "lon": [0.0, 1.0, 2.0]},
    )
    field = truth + xr.DataArray([1.0, 4.0], dims="lat")
    scores = verify(field, truth, metrics=["rmse", "bias"])
    assert scores.bias_t.item() == pytest.approx((1 + 0.5 * 4) / 1.5)
    assert scores.rmse_t.item() == pytest.approx(np.sqrt((1 + 0.5 * 16) / 1.5))


def test_stations_count_alike():
    random = np.random.default_rng(5)
    place = {"lat": ("station", [10.0, 70.0, 80.0]), "lon": ("station", [0.0, 1.0, 2.0])}
    coords = {"time": np.arange(4.0), "station": [0, 1, 2], **place}
    truth = xr.Dataset({"t": (("time", "station"), random.standard_normal((4, 3)), {"units": "K"})}, coords)
    truth.t[1, 2] = np.nan
    post = truth.fillna(0) + xr.DataArray(random.standard_normal((5, 3)), dims=("member", "station"))
    scores = verify(post, truth)
    error = (post.t.mean("member") - truth.t) ** 2
    np.testing.assert_allclose(scores.rmse_t, np.sqrt(error.mean("station")))
    assert "spectrum_t" not in scores
    with pytest.raises(GridError, match="not an axis of a grid"):
        verify(post, truth, metrics=["spectrum"])


def test_bad_input_is_named():
    post, truth = ensemble()
    with pytest.raises(GridError, match="'x' has 4 points in the truth and 8 in the estimate"):
        verify(post, truth.isel(x=slice(0, 4)))
    with pytest.raises(GridError, match="'y' has 8 points from .* is not among the former"):
        verify(post, truth.assign_coords(y=truth.y + 1))
    with pytest.raises(GridError, match="dimensions"):
        verify(post.isel(x=0, drop=True), truth)
    wrong = truth.copy()
    wrong["u"] = wrong.u.assign_attrs(units="km h-1")
    with pytest.raises(UnitsError, match="'u' has units 'm s-1' in the estimate, expected 'km h-1'"):
        verify(post, wrong)
    with pytest.raises(DataError, match="at least one in common"):
        verify(post, truth.rename(u="a", v="b"))
    with pytest.raises(DataError, match="2 values along 'trajectory'"):
        verify(post, xr.concat([truth, truth], "trajectory"))
    with pytest.raises(OptionError, match="Did you mean 'rmse'"):
        verify(post, truth, metrics=["rsme"])
    xr.testing.assert_equal(verify(post, truth.expand_dims(trajectory=[7])), verify(post, truth))
