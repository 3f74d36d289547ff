"""The climatology of series whose cycles and whose noise are known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from seasons import autoregressive, climatology, hours, months

from sdaxr.states.harmonics import Harmonics
from sdaxr.states.seasonal import estimate, kept
from sdaxr.states.time import time_axis


def spectrum(memory: float, cycles: float, count: int) -> float:
    """Variance of a coefficient at a frequency (cycles a step) of an AR(1) series of unit variance."""
    return 2 / count * (1 - memory**2) / (1 - 2 * memory * np.cos(2 * np.pi * cycles) + memory**2)


def test_cycles_of_the_day_and_the_year_are_recovered_within_their_error() -> None:
    times, memory, step = hours(8 * 730, 3), 0.9, 3 / 24
    day, year = 2 * np.pi * times.dt.hour.values / 24, 2 * np.pi * (times.dt.dayofyear.values - 1) / 365
    year = year + day / 365
    mean = 280 + 8 * np.cos(year - 3.5) + (3 - 2 * np.cos(year)) * np.cos(day - 3.8)
    values = mean[:, None] + autoregressive(times.size, 40, memory)
    found, _ = climatology(values, times).at(times)
    error = ((found[:, 0] - mean[:, None]) ** 2).mean()
    daily, yearly, constant = (spectrum(memory, f, times.size) for f in (step, step / 365, 0.0))
    # The mean, four coefficients of the day and its change each with the year, and two of the year.
    assert error < 1.5 * (constant / 2 + 3 * daily + yearly)
    # Least squares on all 36 harmonics would have the noise of all.
    assert error < 0.7 * (constant / 2 + 4 * yearly + 6 * daily)


@pytest.mark.parametrize("points", [1, 60])
@pytest.mark.parametrize(
    ("times", "memory"),
    [(hours(24 * 21), 0.97), (hours(24 * 21), 0.0), (months(360), 0.8), (hours(800, 24, "360_day"), 0.9)],
    ids=["three weeks of hours", "white", "months", "days"],
)
def test_noise_without_a_cycle_gives_almost_nothing(times: xr.DataArray, memory: float, points: int) -> None:
    """A single point keeps some of its noise; a field of points knows that there is no cycle."""
    kept_power, power = 0.0, 0.0
    for seed in range(4 if points == 1 else 1):
        values = 280 + autoregressive(times.size, points, memory, seed)
        found = climatology(values, times)
        columns = found.harmonics.columns(times)
        design = np.concatenate([np.ones((times.size, 1)), columns], axis=1)
        plain = np.linalg.lstsq(design, values, rcond=None)[0][1:]
        kept_power += ((columns @ found.mean_terms[:, 0]) ** 2).mean()
        power += ((columns @ plain) ** 2).mean()
        assert np.sqrt((found.deviation_terms**2).mean()) < 0.1
    assert kept_power < (0.35 if points == 1 else 0.12) * power


def test_a_standard_deviation_that_changes() -> None:
    times = hours(4 * 365 * 6, 6)
    day, year = 2 * np.pi * times.dt.hour.values / 24, 2 * np.pi * times.dt.dayofyear.values / 365
    std = 2 * np.exp(0.5 * np.cos(year) + 0.3 * np.cos(day - 1.0))
    found = climatology(std[:, None] * autoregressive(times.size, 30, 0.8), times)
    mean, deviation = found.at(times)
    assert np.sqrt((mean**2).mean()) < 0.25
    np.testing.assert_allclose(np.log(deviation[:, 0] / std[:, None]), 0, atol=0.25)
    assert np.abs(np.log(deviation[:, 0] / std[:, None])).mean() < 0.04


@pytest.mark.parametrize("calendar", ["standard", "360_day", "noleap"])
def test_monthly_steps_have_the_mean_of_each_calendar_month(calendar: str) -> None:
    times, cycle = months(480, calendar), np.array([3, -1, 4, 1, -5, 9, -2, 6, 5, -3, 5, -8.0])
    values = 10 + np.tile(cycle, 40)[:, None] + 0.5 * autoregressive(480, 20, 0.5)
    found, std = climatology(values, times).at(months(12, calendar))
    plain = values.reshape(40, 12, -1).mean(0)
    np.testing.assert_allclose(found[:, 0], plain, atol=0.1)
    np.testing.assert_allclose(std[:, 0], 0.5, rtol=0.15)


def test_gaps_and_land() -> None:
    """Values that come and go leave the climatology where it is; land has none, nor a point with few values a cycle."""
    times = hours(24 * 40)
    day = 2 * np.pi * times.dt.hour.values / 24
    full = 5 + 2 * np.cos(day - 1)[:, None] + 0.5 * autoregressive(times.size, 4, 0.9)
    values = full.copy()
    # More is missing by day than by night: means over what is there would be too cold.
    lost = np.random.default_rng(1).random(times.size) < 0.4 + 0.4 * np.cos(day - 1)
    values[lost, 0], values[:, 1], values[20:, 2] = np.nan, np.nan, np.nan
    found = climatology(values, times)
    mean, std = found.at(times[:24])
    exact = 5 + 2 * np.cos(day[:24] - 1)
    np.testing.assert_allclose(mean[:, 0, [0, 3]], np.stack([exact, exact], axis=1), atol=0.35)
    assert abs(np.nanmean(values[:, 0]) - 5) > 0.5 and abs(mean[:, 0, 0].mean() - 5) < 0.15
    assert (mean[:, 0, 1] == 0).all() and (std[:, 0, 1] == 1).all()
    assert np.ptp(mean[:, 0, 2]) == 0 and mean[0, 0, 2] == pytest.approx(np.nanmean(values[:, 2]))
    np.testing.assert_allclose(std[:, 0, [0, 3]], 0.5, rtol=0.25)


def test_a_point_that_does_not_vary_has_a_standard_deviation() -> None:
    """That of the channel with the weight of one value, so that anomalies there are not divided by nothing."""
    times = months(360)
    values = autoregressive(360, 10, 0.3)
    values[:, 3] = -1.8
    found = climatology(values, times)
    assert found.mean[0, 3] == pytest.approx(-1.8) and found.std[0, 3] == pytest.approx(0.9**0.5 / 361**0.5, rel=0.1)
    assert np.abs(found.std[0, :3] - 1).max() < 0.15


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_a_record_is_read_in_blocks_and_members_count_alike(block: int) -> None:
    times = hours(24 * 15)
    values = autoregressive(24 * 15, 6, 0.9).reshape(-1, 2, 3).transpose(1, 0, 2)[:, :, None]
    axis, harmonics = time_axis(times.to_dataset(name="t")), Harmonics(((1, 0), (2, 0)))
    found = estimate(lambda part: values[:, part], times, axis, harmonics, block=block)
    one = estimate(lambda part: values[:, part], times, axis, harmonics, block=360)
    for name in ("mean", "std", "mean_terms", "deviation_terms"):
        np.testing.assert_allclose(getattr(found, name), getattr(one, name), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.mean[0], values.mean((0, 1, 2)), rtol=1e-6)
    gappy = np.where(np.random.default_rng(0).random(values.shape) < 0.1, np.nan, values)
    near = estimate(lambda part: gappy[:, part], times, axis, harmonics, block=block)
    np.testing.assert_allclose(near.mean, one.mean, atol=0.1)
    assert not np.allclose(near.mean, one.mean, atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_record_is_read_few_times(missing: float) -> None:
    """Once for the regression, once more where there are gaps; for the noise, the variance and four steps for it."""
    times = hours(600, 6)
    values = autoregressive(times.size, 3, 0.5)[None]
    values[0, np.random.default_rng(0).random(times.size) < missing, 0] = np.nan
    calls = []

    def read(part: slice) -> np.ndarray:
        calls.append(part.stop - part.start)
        return values[:, part]

    estimate(read, times, time_axis(times), Harmonics(((1, 0), (0, 1))), block=100)
    assert calls.count(100) == 6 * (10 if missing else 9)


def test_what_is_kept_of_a_harmonic() -> None:
    """Of one point the uniform prior; of many, what the others have in common."""
    noise = np.random.default_rng(0).normal(size=(16, 1))
    noise /= np.sqrt((noise**2).mean())
    alone = [float(kept(np.array([ratio]), noise)[0]) for ratio in (0.0, 2.0, 40.0, 1e6)]
    np.testing.assert_allclose(alone, [1 / 3, 0.395, 0.868, 1.0], atol=0.005)
    random = np.random.default_rng(1)
    beyond = random.normal(size=(16, 400))
    silent = (random.normal(size=(2, 400)) ** 2).sum(0)
    loud = (random.normal(size=(2, 400)) ** 2).sum(0) * (1 + 3)
    assert kept(silent, beyond).mean() < 0.13
    assert kept(loud, beyond).mean() == pytest.approx(3 / 4, abs=0.08)


@pytest.mark.parametrize("times", [hours(24 * 7), hours(730, 24), months(40)], ids=["hours", "days", "months"])
def test_values_that_hardly_vary_have_a_climatology(times: xr.DataArray) -> None:
    """Rain at few times, a point that never has any, one with a single value, and a time without any."""
    values = autoregressive(times.size, 8, 0.2)
    values = np.where(values > 1.2, values, 0.0)
    values[:, 3], values[:, 4], values[7, :] = 0.0, np.nan, np.nan
    values[9, 4] = 1.0
    mean, std = climatology(values, times).at(times)
    assert np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    assert np.ptp(mean[:, 0, 3]) == 0 and std[:, 0, 3].max() < 0.2 * std[:, 0, 0].mean()
