"""Experiments and errors of recipes/ensemble_filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from analyses import seen
from recipe_modules import recipe_modules


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    with recipe_modules("ensemble_filters", ["run"]) as modules:
        yield modules.run


def test_a_first_ensemble_knows_the_truth_or_nothing(recipe) -> None:
    setting = replace(recipe.ring(12, 1, ()), cycles=3, spread=0.1)
    for knows in (False, True):
        truth, seen, first = recipe.experiment(replace(setting, knows=knows), seed=1)
        centre = truth.x.isel(time=0) if knows else 0.0
        assert float(np.abs(first.x.mean("member") - centre).max()) < 0.1
        assert seen.sizes["time"] == 3 and first.sizes["member"] == recipe.MEMBERS


def test_rows_are_errors_after_the_burn_in(recipe, tmp_path: Path) -> None:
    setting = replace(recipe.ring(12, 2, ()), cycles=8, burn_in=5, knows=True, spread=0.1)
    series = [recipe.experiment(setting, seed) for seed in (1, 2)]
    for run in ({"name": "letkf", "localisation": 3.0}, {"name": "latent", "modes": 8}):
        found = recipe.measure(setting, run, series)
        assert 0 < found["rmse"] < 0.5 and found["spread"] > 0 and found["seconds"] > 0 and found["truths"] == 2
        row = {"setting": "small", "method": run["name"], "options": "{}"}
        for _ in range(2):
            recipe.save(row | found, tmp_path / "results.csv")
    assert list(pd.read_csv(tmp_path / "results.csv").method) == ["letkf", "latent"]


def test_what_diverges_has_no_error(recipe) -> None:
    setting = replace(recipe.ring(12, 1, ()), cycles=20, burn_in=5)
    found = recipe.measure(setting, {"name": "etkf", "inflation": 50.0}, [recipe.experiment(setting, 1)])
    assert np.isnan(found["rmse"])


@pytest.fixture(scope="module")
def flows() -> Iterator[ModuleType]:
    with recipe_modules("ensemble_filters", ["climates", "flows"]) as modules:
        yield modules.flows


def climate(flows: ModuleType, truths: int = 2, states: int = 3) -> object:
    """Kolmogorov-like fields of 128 x 128 points: the forcing's shape, times one number a state or truth."""
    system, random = flows.KOLMOGOROV, np.random.default_rng(0)
    y = system.template().y
    made = []
    for dim, count, times in (("truth", truths, 29), ("state", states, 1)):
        size = xr.DataArray(random.normal(size=(count, times)), dims=(dim, "time"))
        u = (size * np.sin(4 * y) * xr.ones_like(system.template().x)).transpose(dim, "time", "y", "x")
        made.append(xr.Dataset({"u": u.assign_attrs(units="1"), "v": (0.5 * u).assign_attrs(units="1")}))
    truth = made[0].assign_coords(time=("time", system.step * np.arange(29.0), system.time_attrs))
    return flows.Climate(truth, made[1].isel(time=0))


def test_shifted_states_have_the_forcing_where_it_is(flows) -> None:
    found = climate(flows)
    first = found.ensemble(flows.KOLMOGOROV, members=5, seed=1)
    ratio = first.u.isel(x=0) / np.sin(4 * first.y)
    assert first.sizes["member"] == 5
    np.testing.assert_allclose(ratio.std("y"), 0, atol=1e-12)


def test_means_are_of_places_and_not_of_states(flows) -> None:
    found = climate(flows, states=4)
    coarse = flows.means(found.states, flows.CELLS)
    assert dict(coarse.sizes) == {"state": 4, "y": 64, "x": 64}
    np.testing.assert_allclose(coarse.u, found.states.u.coarsen(y=2, x=2).mean().transpose(*coarse.u.dims))


def test_scores_are_in_units_of_the_climate_by_parts_of_the_window(flows) -> None:
    found = climate(flows)
    flow, sd = flows.FLOWS["kolmogorov"], flows.spreads(found)
    truth = flows.means(found.truths.isel(truth=1), flows.CELLS)
    away = xr.DataArray([-1.0, 0.0, 4.0], dims="member") * (1 + (truth.time >= truth.time[28]))
    members = xr.Dataset({n: (truth[n] + away * sd[n]).assign_attrs(units="1") for n in truth.data_vars})
    parts = pd.DataFrame(flows.measure(flow, members, found, 1)).set_index("part")
    assert list(parts.index) == list(flows.PARTS)
    np.testing.assert_allclose(parts.rmse, [1, 1, 1, 8 / 7, 2], rtol=1e-6)
    np.testing.assert_allclose(parts.spread["last"], 2 * np.std([-1, 0, 4], ddof=1), rtol=1e-6)
    # Mean distance to the truth minus half of that between two members.
    np.testing.assert_allclose(parts.crps["last"], 2 * (5 / 3 - 5 / 3), atol=1e-6)


def test_rows_that_are_there_are_not_computed_again(flows, tmp_path: Path) -> None:
    row = dict(zip(flows.KEYS, ("kolmogorov", "letkf", "wrong", 4, 1), strict=True))
    flows.save([row | {"part": "1", "rmse": 0.5}], tmp_path / "flows.csv")
    assert flows._there(row, tmp_path / "flows.csv")
    assert not flows._there(row | {"truth": 2}, tmp_path / "flows.csv")


@pytest.fixture(scope="module")
def tries() -> Iterator[ModuleType]:
    with recipe_modules("ensemble_filters", ["climates", "flows", "tries"]) as modules:
        yield modules.tries


def test_optimal_interpolation_is_the_kalman_filter_with_states_at_all_places_alike(tries) -> None:
    random, size = np.random.default_rng(0), 4
    states = random.normal(2.0, 1.0, (3, 2, size, size))
    away = states - states.mean((2, 3), keepdims=True)
    moved = [np.roll(away, (i, j), (2, 3)).reshape(3, -1) for i in range(size) for j in range(size)]
    dense = np.concatenate(moved).T @ np.concatenate(moved) / (3 * size**2)
    spectra = tries.spectra(states)
    np.testing.assert_allclose(tries.product(spectra, np.eye(2 * size**2)), dense, atol=1e-12)
    matrix, y, error = random.standard_normal((5, 2 * size**2)), random.standard_normal(5), 0.3
    observation = seen(lambda x: x @ torch.from_numpy(matrix).T, y, error)
    gain = dense @ matrix.T @ np.linalg.inv(matrix @ dense @ matrix.T + error**2 * np.eye(5))
    mean, expected = tries.interpolation(observation, spectra)
    np.testing.assert_allclose(mean.ravel(), gain @ y, atol=1e-12)
    np.testing.assert_allclose(expected.ravel() ** 2, np.diag(dense - gain @ matrix @ dense), atol=1e-12)
