"""States and a parameter together: posteriors against the Gaussian closed form, and the way of a parameter through."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from unknown_offset import DEVIATION, MEAN, OffsetSeries

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.unconditional import draw_prior
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.schema import DataError

# Of state vectors the covariance given z is known, on sites it is that of the denoiser.
METHODS: dict[int | None, Any] = {None: {"variance": "covariance"}, 3: {"name": "mmps", "iterations": 8}}
EXACT: dict[str, Any] = {"precision": "float32", "progress": False}
QUICK: dict[str, Any] = {**EXACT, "sampler": {"steps": 12, "corrections": 0}}
KNOWN = xr.Dataset({"forcing": ((), 8.6, {"units": "N"}), "forcing_error": 0.1})


def observed(series: OffsetSeries, seed: int, every: int = 2) -> tuple[xr.Dataset, xr.Dataset]:
    truth = series.trajectories(1, seed).isel(trajectory=0)
    return truth, sdaxr.observe(truth, op.select("x"), every=every, error=0.6, seed=seed)


def closed_form(
    series: OffsetSeries, observations: xr.Dataset, every: int = 2, known: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    y = ((observations.x - MEAN["x"]) / DEVIATION["x"]).values.ravel()
    rows = np.arange(series.size).reshape(series.length, -1)[::every].ravel()
    return series.posterior(rows, y, 0.6 / DEVIATION["x"], known)


@pytest.mark.parametrize("shared", [False, True], ids=["independent noise", "shared noise"])
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "measured"])
@pytest.mark.parametrize("sites", [None, 3])
def test_state_and_parameter_have_the_gaussian_posterior(sites: int | None, known: bool, shared: bool) -> None:
    series = OffsetSeries(7, sites)
    truth, observations = observed(series, seed=1)
    networks = {"x": observations, "known": KNOWN} if known else observations
    posterior = sdaxr.assimilate(
        networks, series.prior(shared=shared), times=truth.time, members=500, method=METHODS[3 if shared else sites],
        sampler={"steps": 100, "corrections": 0}, **EXACT,
    )  # fmt: skip
    measured = ((8.6 - MEAN["forcing"]) / DEVIATION["forcing"], 0.1 / DEVIATION["forcing"]) if known else None
    mean, covariance = closed_form(series, observations, known=measured)
    x, theta = series.normalised(posterior)
    deviation = np.sqrt(covariance.diagonal())
    assert posterior.forcing.dims == ("member",) and posterior.forcing.attrs["units"] == "N"
    assert abs(theta.mean() - mean[-1]) < 0.15 * deviation[-1]
    assert abs(theta.std() / deviation[-1] - 1) < 0.08
    assert np.abs((x.mean(0) - mean[:-1]) / deviation[:-1]).max() < 0.2
    # States and parameter belong together, member by member.
    joint = np.cov(np.column_stack([x, theta]).T) / np.outer(deviation, deviation)
    assert np.abs(joint - covariance / np.outer(deviation, deviation)).max() < 0.2


@pytest.mark.parametrize("sites", [None, 3])
def test_the_ensemble_carries_a_parameter_from_window_to_window(sites: int | None) -> None:
    """Against closed forms that see the observations up to the end of each window."""
    series, whole = OffsetSeries(6, sites), OffsetSeries(18, sites)
    _, observations = observed(whole, seed=4)
    cycled = sdaxr.cycle(
        observations, series.prior(200), window=6, members=200, method=METHODS[sites],
        sampler={"steps": 40, "corrections": 0}, **EXACT,
    )  # fmt: skip
    assert cycled.forcing.dims == ("member", "time") and cycled.sizes["time"] == 18
    for first, end in ((0, 6), (6, 12), (12, 18)):
        part = cycled.forcing.isel(time=slice(first, end))
        assert float(abs(part - part.isel(time=0)).max()) == 0
        theta = ((part.isel(time=0) - MEAN["forcing"]) / DEVIATION["forcing"]).values
        mean, covariance = closed_form(OffsetSeries(end, sites), observations.isel(time=slice(0, (end + 1) // 2)))
        deviation = covariance[-1, -1] ** 0.5
        assert abs(theta.mean() - mean[-1]) < 0.3 * deviation
        assert abs(theta.std() / deviation - 1) < 0.2


@pytest.mark.parametrize("ending", ["zarr", "nc"])
def test_archives_hold_a_parameter_of_each_member(tmp_path: Path, ending: str) -> None:
    series = OffsetSeries(7, 3)
    truth, observations = observed(series, seed=1)
    given: dict[str, Any] = {"times": truth.time, "members": 3, **QUICK}
    memory = sdaxr.assimilate(observations, series.prior(), **given)
    stored = sdaxr.assimilate(observations, series.prior(), store=tmp_path / f"p.{ending}", **given)
    xr.testing.assert_equal(memory, stored.drop_vars("status")[list(memory)])


def test_a_forecast_keeps_the_parameter_of_each_member() -> None:
    series = OffsetSeries(8, 3)
    ensemble = series.trajectories(40, seed=2).rename(trajectory="member")
    ahead = sdaxr.forecast(ensemble, series.prior(), steps=4, progress=False, sampler={"steps": 30, "corrections": 0})
    assert ahead.forcing.dims == ("member",) and ahead.x.dims == ("member", "lead_time", "site")
    # The known states are observed with errors of 0.03.
    np.testing.assert_allclose(ahead.forcing, ensemble.forcing, atol=4 * 0.03 * DEVIATION["forcing"])


def test_denoising_takes_a_parameter_for_one_number() -> None:
    """Its error falls as one observation and the noisy fields allow, and not as so many values of its channel would."""
    series = OffsetSeries(7)
    trajectories = series.trajectories(300, seed=3)
    random, error = np.random.default_rng(0), {"x": 1.0, "forcing": 0.25}
    noisy = trajectories + {v: error[v] * random.normal(size=a.shape) for v, a in trajectories.data_vars.items()}
    noisy = noisy.map(lambda a: a.assign_attrs(trajectories[a.name].attrs))
    found = sdaxr.denoise(noisy, series.prior(200), error=error, progress=False, steps=32)
    assert found.forcing.dims == ("trajectory",)
    rows, ratio = np.arange(7), error["x"] / DEVIATION["x"]
    _, covariance = series.posterior(rows, np.zeros(7), ratio, (0.0, error["forcing"] / DEVIATION["forcing"]))
    expected = DEVIATION["forcing"] * covariance[-1, -1] ** 0.5
    # A posterior sample is as far from the truth as its mean, and once more.
    assert abs(float((found - trajectories).forcing.std()) / (2**0.5 * expected) - 1) < 0.15


def test_samples_of_the_prior_have_a_parameter_and_tell_how_far_it_is_a_constant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    series = OffsetSeries(7, 3)
    prior = series.prior()
    with caplog.at_level(logging.INFO, "sdaxr.states.parameters"):
        drawn = draw_prior(prior, 7, sampler=resolve_sampler(prior), seed=1, precision="float32")
    assert drawn.forcing.dims == () and drawn.x.dims == ("time", "site")
    (record,) = (r for r in caplog.records if r.name == "sdaxr.states.parameters")
    assert record.levelno == logging.INFO and record.args[0] == "forcing" and record.args[1] < 1e-3


def test_a_background_with_an_error_tells_of_the_parameter() -> None:
    series = OffsetSeries(7)
    truth, observations = observed(series, seed=1)
    background = KNOWN.assign_coords(time=truth.time[0])
    networks = {"x": observations, "known": KNOWN}
    for given in ({"observations": observations, "background": background}, {"observations": networks}):
        found = sdaxr.assimilate(prior=series.prior(), times=truth.time, members=200, **QUICK, **given)
        assert abs(float(found.forcing.mean()) - 8.6) < 0.1 and float(found.forcing.std()) < 0.12


def test_a_parameter_is_observed_where_the_operator_selects_it() -> None:
    truth = OffsetSeries(7, 3).trajectories(1, seed=1)
    assert list(sdaxr.observe(truth, op.identity(), error=1.0).data_vars) == ["x", "x_error"]
    seen = sdaxr.observe(truth, op.select("forcing"), error=0.01, seed=2)
    assert seen.forcing.dims == () and abs(float(seen.forcing) - truth.forcing.item()) < 0.05


def test_a_parameter_alone_has_no_window() -> None:
    with pytest.raises(DataError, match=r"observations of \['forcing'\] alone, which have no time; pass times="):
        sdaxr.assimilate(KNOWN, OffsetSeries(7).prior())


def test_scores_of_a_parameter_have_no_time() -> None:
    series = OffsetSeries(7, 3)
    truth = series.trajectories(1, seed=1)
    members = series.trajectories(9, seed=2).rename(trajectory="member")
    scores = sdaxr.verify(members, truth)
    known, values = truth.forcing.item(), members.forcing.values
    np.testing.assert_allclose(scores.rmse_forcing, abs(values.mean() - known), rtol=1e-5)
    np.testing.assert_allclose(scores.spread_forcing, values.std(ddof=1), rtol=1e-5)
    assert scores.rank_histogram_forcing.dims == ("rank",)
    assert scores.rank_histogram_forcing.values.argmax() == (values < known).sum()
    # In a cycle the estimates have times, and the truth is that of all.
    timed = members.assign(forcing=members.forcing.expand_dims({"time": 7}))
    np.testing.assert_allclose(sdaxr.verify(timed, truth).rmse_forcing, [abs(values.mean() - known)] * 7, rtol=1e-5)


def test_the_distribution_of_a_parameter_is_drawn(tmp_path: Path) -> None:
    series = OffsetSeries(7, 3)
    truth, members = series.trajectories(1, seed=1), series.trajectories(30, seed=2).rename(trajectory="member")
    figure = sdaxr.plot(members, truth=truth, observations=KNOWN, variable="forcing", path=tmp_path / "f.png")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "forcing [N]" and sum(bar.get_height() for bar in axes.patches[:-1]) == 30
    assert {line.get_label() for line in axes.lines} >= {"mean", "truth", "observation"}
    # Without a name it is the states that are drawn, whatever comes first.
    assert len(sdaxr.plot(members[["forcing", "x"]]).axes) > 1


@pytest.mark.parametrize("points", [2, {"time": [0, 3], "site": [1, 2]}])
def test_a_calibration_ranks_the_parameter(points: int | dict[str, list[int]]) -> None:
    series = OffsetSeries(5, 3)
    found = sdaxr.calibrate(
        series.trajectories(4, seed=1), op.select("x"), series.prior(), error=0.6, truths=4, members=5, points=points,
        progress=False, sampler={"steps": 8, "corrections": 0},
    )  # fmt: skip
    names = found.quantity.values.tolist()
    assert names.count("forcing") == 1 and "mean of x" in names and "mean of forcing" not in names
    assert found.variable.values.tolist() == ["x", "forcing"] and np.isfinite(found.squared_error).all()
