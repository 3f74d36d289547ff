"""Scores and errors of recipes/lorenz96."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from recipe_modules import recipe_modules

import sdaxr


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    with recipe_modules("lorenz96", ["run"]) as modules:
        yield modules.run


def test_scores_are_what_they_are_called(recipe) -> None:
    random = np.random.default_rng(0)
    truth, members = np.zeros((4, 400)), 2 + 3 * random.normal(size=(4, 50, 400))
    found = recipe.score(members, truth)
    pairs = np.abs(members[:, :, None] - members[:, None]).sum((1, 2)) / (50 * 49)
    np.testing.assert_allclose(found["crps"], (np.abs(members).mean(1) - pairs / 2).mean(1))
    np.testing.assert_allclose(found["rmse_filter"], np.sqrt((members.mean(1) ** 2).mean(1)))
    np.testing.assert_allclose(found["spread"], 3, rtol=0.05)


def test_standard_errors_know_about_autocorrelation(recipe) -> None:
    random, coefficient = np.random.default_rng(1), 0.9
    series = np.zeros((300, 2000))
    for i in range(1, 2000):
        series[:, i] = coefficient * series[:, i - 1] + random.normal(size=300)
    found = [recipe.batch_means(list(four)) for four in series.reshape(75, 4, 2000)]
    means, errors = np.array(found).T
    # Of white noise with the same variance, the standard error would be smaller by a factor of 4.4.
    assert np.sqrt((errors**2).mean()) == pytest.approx(means.std(), rel=0.25)


def test_a_row_is_measured_and_replaced(recipe, tmp_path: Path) -> None:
    setting = replace(recipe.SETTINGS["sakov2008"], burn_in=5, cycles=20)
    series = [recipe.experiment(setting, seed) for seed in range(2)]
    run = recipe.Run(sdaxr.methods.EnKS(filter=sdaxr.methods.ETKF(inflation=1.02), lag=3), 40)
    found = recipe.measure(setting, run, series)
    assert found["cycles"] == 40 and 0 < found["rmse_smoother"] < found["rmse_filter"] < 1
    row = {
        "setting": "sakov2008",
        "method": "enks",
        "options": recipe.text(run.method),
        "members": 40,
        "published": None,
    }
    assert row["options"] == "etkf(inflation=1.02), lag=3"
    other = row | {"members": 41}
    for each in (row, other, row | {"published": 0.1}):
        recipe.save(each | found, tmp_path / "r.csv")
    table = pd.read_csv(tmp_path / "r.csv")
    assert table.members.tolist() == [41, 40] and table.published.iloc[1] == 0.1
    assert {"rmse_filter", "rmse_filter_se", "seconds", "seconds_se", "crps_se", "spread_se"} <= set(table.columns)


def test_iterations_give_filter_and_smoother(recipe) -> None:
    setting = replace(recipe.SETTINGS["sakov2008"], burn_in=5, cycles=20)
    found = recipe.measure(setting, recipe.Run(sdaxr.methods.IEnKS(lag=3), 40), [recipe.experiment(setting, 0)])
    assert 0 < found["rmse_smoother"] < found["rmse_filter"] < 1 and np.isnan(found["seconds_se"])


def test_every_setting_has_methods_that_fit_it(recipe) -> None:
    for setting in recipe.SETTINGS.values():
        _, model = recipe.experiment(replace(setting, burn_in=1, cycles=1), 0)
        for run in setting.runs:
            run.method.check(replace(model, first=model.first[: run.members]), run.members)
        assert len({(recipe.text(run.method), run.members) for run in setting.runs}) == len(setting.runs)
