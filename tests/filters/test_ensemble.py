"""What ensemble methods share: any system, first ensembles, statistics of first guesses, and every message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from chains import TRIPLE, Ring, truth_of
from filtered import QUIET, model_of
from linear_ensembles import Turning, in_background, linear_case

import sdaxr
from sdaxr import operators as op
from sdaxr.filters.ensemble import FirstGuess, Forecast
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import DataError, DivergenceError, GridError, OptionError, UnitsError
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic

SYSTEMS = {
    "kolmogorov": (Kolmogorov(resolution=16, coarsen=1, spin_up=2), None),
    "quasigeostrophic": (QuasiGeostrophic(resolution=16, coarsen=1, spin_up=0.02), None),
    "lorenz96": (Lorenz96(sites=8), 1.0),
    "lorenz63": (Lorenz63(spin_up=100), 1.0),
    "linear": (TRIPLE, 0.2),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_observations_draw_an_ensemble_of_any_system_to_the_truth(name: str) -> None:
    system, error = SYSTEMS[name]
    truth = truth_of(system, 9, 1)
    scale = float(max(v.std() for v in truth.data_vars.values()))
    seen = observe(truth, op.identity(), error=error or 0.1 * scale, every=2, seed=2)
    found = seen.sda.assimilate(system=system, method="etkf", members=12, seed=3, progress=False)
    free = np.mean([system.to_vectors(system.trajectory(9, seed)) for seed in range(5, 13)], axis=0)
    there = system.to_vectors({n: v.values for n, v in truth.data_vars.items()})
    ours = system.to_vectors({n: v.values for n, v in found.mean("member").data_vars.items()})
    assert np.abs(ours - there).mean() < 0.8 * np.abs(free - there).mean()
    assert found.attrs["members_distribution"] == "filtering"
    assert list(found.data_vars) == list(truth.data_vars) and found.sizes["member"] == 12


def test_the_first_ensemble_is_the_background() -> None:
    model, exact = linear_case(op.identity(), error=0.5)
    truth = truth_of(Turning(), 6, 3)
    seen = observe(truth, op.identity(), error=0.5, seed=4)
    background = in_background(model.first, Turning())
    options = {"method": "etkf", "members": 20} | QUIET
    found = smooth(seen, Turning(), background=background, **options)
    np.testing.assert_allclose(found.x.mean("member"), exact.means, atol=2e-5)
    for other in (background.expand_dims(time=[0.0]), background.assign_coords(time=0.0)):
        xr.testing.assert_equal(smooth(seen, Turning(), background=other, **options), found)
    assert found.attrs["background_sha256"]
    assert not smooth(seen, Turning(), **options).equals(found)


def test_without_an_observation_an_ensemble_is_forecast() -> None:
    first = TRIPLE.initial(4, seed=0)
    none = observe(truth_of(TRIPLE, 3, 1), op.identity(), error=0.5) * np.nan
    found = smooth(
        none.assign({f"x{i}_error": 0.5 for i in (1, 2, 3)}), TRIPLE, method="etkf", members=4,
        background=in_background(first, TRIPLE), times=0.5 * np.arange(3), **QUIET,
    )  # fmt: skip
    np.testing.assert_allclose(found.x1.isel(time=0), first[:, 0], rtol=1e-6)
    assert "first_guess_spread" not in found.attrs


def test_statistics_of_first_guesses_are_consistent_where_the_model_is_right() -> None:
    model, _ = linear_case(op.identity(), members=400, system=Ring(), error=0.5)
    predicted, observation = model.first, model.observations[0]
    one = FirstGuess()
    one.add(Forecast(predicted, observation, None, np.random.default_rng(0)))
    innovation, variance = observation.values - predicted.mean(0), predicted.var(0, ddof=1)
    assert one.about["first_guess_innovation"] == pytest.approx(np.sqrt((innovation**2).mean()) / 0.5, rel=1e-5)
    assert one.about["first_guess_spread"] == pytest.approx(np.sqrt(variance.mean()) / 0.5, rel=1e-5)
    seen = observe(truth_of(Ring(), 400, 1), op.identity(), error=0.5, seed=2)
    found = smooth(seen, Ring(), method="etkf", members=100, **QUIET).attrs
    # 1600 normal values, whose root mean square has a standard error of 1 / sqrt(2 * 1600).
    assert found["first_guess_consistency"] == pytest.approx(1, abs=5 / np.sqrt(3200) + 0.01)


def test_observations_at_irregular_times_and_places_of_several_networks() -> None:
    truth = truth_of(Lorenz96(), 60, 1)
    stations = observe(truth, op.points({"site": [0.25, 7.5, 21.0]}), error=0.5, every=3, seed=1, missing=0.3)
    squares = observe(truth, op.compose(op.subsample(2), op.arctan()), error=0.2, every=5, start=2, seed=2)
    options = {"system": "lorenz96", "method": {"name": "etkf", "inflation": 1.02}, "members": 200, "seed": 1}
    found = sdaxr.assimilate({"stations": stations, "squares": squares}, progress=False, **options)
    assert found.attrs["observations_used"] == [
        int(np.isfinite(stations.x).sum()), int(np.isfinite(squares.x).sum())
    ]  # fmt: skip
    one = sdaxr.assimilate(stations, progress=False, **options | {"times": truth.time.values})
    away = [float(((p.x.mean("member") - truth.x).isel(time=p.time >= 1) ** 2).mean()) for p in (found, one)]
    assert away[0] < away[1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"members": 1}, OptionError, "method='etkf' needs at least 2 members, found members=1"),
        ({"members": 3}, DataError, "the background has 4 members, expected members=3; pass members=4"),
        ({"background": {"time": [1.0]}}, DataError, "the background is at 1.0, expected the first time"),
        ({"background": {"drop": "x"}}, DataError, "variable 'x'"),
        ({"background": {"units": "m"}}, UnitsError, "'x' has units 'm'"),
        ({"background": {"sites": 3}}, GridError, "'site' has 3 points in the data and 4 in ring"),
        ({"background": {"error": 0.5}}, DataError, "members along 'member' and .*x_error"),
        ({"background": {"value": np.nan}}, DataError, "'x' of the background has values that are not finite"),
    ],
)
def test_what_does_not_fit(change: dict, error: type, message: str) -> None:
    seen = observe(truth_of(Ring(), 3, 1), op.identity(), error=0.5)
    background, asked = in_background(Ring().initial(4, seed=0), Ring()), change.get("background", {})
    if "time" in asked:
        background = background.expand_dims(asked)
    if "drop" in asked:
        background = background.rename(x="z")
    if "units" in asked:
        background.x.attrs["units"] = "m"
    if "sites" in asked:
        background = background.isel(site=slice(3))
    if "error" in asked:
        background = background.assign(x_error=asked["error"])
    if "value" in asked:
        background.x.values[0, 0] = np.nan
    with pytest.raises(error, match=message):
        given = None if change.get("members") == 1 else background
        smooth(seen, Ring(), method="etkf", members=change.get("members", 4), background=given, **QUIET)


def test_a_forecast_that_is_not_finite_says_where() -> None:
    system = Lorenz96(step=2.0, spin_up=0)
    truth = truth_of(Lorenz96(), 3, 1).assign_coords(time=[0.0, 2.0, 4.0])
    seen = observe(truth, op.identity(), error=1.0)
    background = in_background(Lorenz96().initial(3, seed=0), Lorenz96())
    with pytest.raises(DivergenceError, match="member 0 is not finite at .* in the forecast by lorenz96"):
        smooth(seen, system, method="etkf", members=3, background=background, **QUIET)


def test_methods_for_chains_have_no_first_ensemble() -> None:
    seen = observe(truth_of(TRIPLE, 3, 1), op.identity(), error=0.5)
    background = in_background(TRIPLE.initial(4, seed=0), TRIPLE)
    with pytest.raises(DataError, match="the background has 4 states along 'member', expected one and its error"):
        smooth(seen, TRIPLE, method="kalman", background=background, **QUIET)
    model = replace(model_of(TRIPLE, {"seen": seen}, 3), first=None)
    with pytest.raises(OptionError, match="ensemble methods need first states, found a model without"):
        ETKF().draw(model, 4, 0)
