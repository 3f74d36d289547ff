"""Experiments and errors of recipes/ensemble_filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
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
