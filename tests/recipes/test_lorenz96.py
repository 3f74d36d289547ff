"""Scores and errors of recipes/lorenz96."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from recipe_modules import recipe_modules

import sdaxr
from sdaxr.systems.lorenz96 import Lorenz96


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    with recipe_modules("lorenz96", ["run"]) as modules:
        yield modules.run


@pytest.fixture(scope="module")
def windows() -> Iterator[ModuleType]:
    with recipe_modules("lorenz96", ["run", "windows"]) as modules:
        yield modules.windows


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    with recipe_modules("lorenz96", ["prior"]) as modules:
        yield modules.prior


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
        recipe.save(each | found, recipe.KEYS, tmp_path / "r.csv")
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
        assert len({(recipe.label(run.method), run.members) for run in setting.runs}) == len(setting.runs)


@pytest.mark.parametrize("forcing", [(8.0, 8.0), (6.0, 10.0)])
def test_trajectories_side_by_side_are_those_of_the_system(training, forcing) -> None:
    found = training.trajectories(forcing, count=2, validation=1, states=5)
    assert found.split.values.tolist() == ["train", "train", "valid"] and ("forcing" in found) == (forcing[0] < 8)
    for _, one in found.groupby("trajectory"):
        each = float(one.forcing.mean()) if "forcing" in one else 8.0
        following = Lorenz96(forcing=each).advance({"x": one.x.values[0, 0]}, 4)["x"]
        np.testing.assert_allclose(one.x.values[0, 1:], following, atol=1e-4)
        assert forcing[0] <= each <= forcing[1]


def test_a_window_is_smoothed_and_its_row_replaced(windows, tmp_path: Path) -> None:
    draw = windows.with_model(sdaxr.methods.EnKS())
    found = windows.row("sakov2008", 0, draw, 60, "cpu")
    assert found["rmse"] < 0.5 < 1 and found["cycles"] == 64 and found["spread"] > 0
    key = {"scenario": "sakov2008", "method": "enks", "members": 60}
    for number, rmse in ((0, 1.0), (1, 2.0), (0, 3.0)):
        windows.save(key | {"window": number} | found | {"rmse": rmse}, windows.KEYS, tmp_path / "w.csv")
    table = windows.summary(pd.read_csv(tmp_path / "w.csv"))
    assert table.rmse.tolist() == [2.5] and table.rmse_se.tolist() == [0.5] and table.windows.tolist() == [2]


def test_rows_of_a_gpu_are_taken_over(windows, tmp_path: Path) -> None:
    line = {"what": "window", "at": 1.0, "scenario": "sakov2008", "method": "sda", "members": 16, "window": 3}
    lines = [{"what": "machine", "at": 0.1}, line | {"rmse": 0.5, "device": "cuda"}]
    (tmp_path / "smoothing.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    outcome = CliRunner().invoke(
        windows.main, ["--take", str(tmp_path / "smoothing.jsonl"), "--output", str(tmp_path / "w.csv")]
    )
    assert outcome.exit_code == 0, outcome.output
    assert pd.read_csv(tmp_path / "w.csv").to_dict("records") == [
        {key: value for key, value in lines[1].items() if key not in ("what", "at")}
    ]


@pytest.mark.parametrize(
    ("line", "methods"),
    [
        ("| EnKS | 200 |", "enks, inflation"),
        ("| EnKS of the LETKF | 100 |", "enks of letkf"),
        ("| iEnKS, lag 8 | 60 |", "ienks"),
        ("| prior, `sda`, 32 levels and 3 corrections | 16 |", "sda, 32 levels"),
        ("| prior, `sda`, the sampler of its file | 16 |", "sda"),
        ("| prior, `mmps` below 1, 32 levels | 16 |", "mmps below 1, 32 levels"),
        ("| prior, `mmps` below 1, the sampler of its file | 4 |", "mmps below 1"),
    ],
)
def test_the_page_has_the_figures_of_the_results(windows, line: str, methods: str) -> None:
    table = windows.summary(pd.read_csv(windows.HERE / "windows.csv"))
    page = (windows.HERE / "prior.md").read_text().splitlines()
    cells = next(each for each in page if each.startswith(line))[len(line) :].split("|")[:3]
    for cell, scenario in zip(cells, ("sakov2008", "bocquet2010", "spantini2019"), strict=True):
        if not cell.strip():
            continue
        named = table.loc[scenario].index.get_level_values("method")
        chosen = table.loc[scenario][named == methods if methods[0] in "sm" else named.str.startswith(methods)]
        best = chosen.loc[chosen.rmse.idxmin()]
        said, error = map(float, cell.split("(")[0].split("±"))
        assert said == pytest.approx(best.rmse, abs=0.006) and error == pytest.approx(best.rmse_se, abs=0.006)
