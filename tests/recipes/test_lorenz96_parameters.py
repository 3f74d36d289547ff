"""Scores of the forcing in recipes/lorenz96/parameters.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from recipe_modules import recipe_modules
from small_training import trained

from sdaxr.systems.generation import generate
from sdaxr.systems.registry import open_system


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    with recipe_modules("lorenz96", ["parameters"]) as modules:
        yield modules.parameters


def test_scores_are_what_they_are_called(recipe) -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        centre = random.normal()
        found.append(recipe.scores_of(centre + 0.5 * random.normal(size=19), centre + 0.5 * random.normal()))
    summary = recipe.summary([each | {"rmse_state": 1.0, "seconds": 2.0} for each in found])
    np.testing.assert_allclose([summary["rmse"], summary["spread"]], [0.5 * (20 / 19) ** 0.5, 0.5], rtol=0.04)
    # The truth is like a member.
    np.testing.assert_allclose(summary["coverage"], 0.9, atol=0.02)
    np.testing.assert_allclose(summary["crps"], 0.5 / np.pi**0.5, rtol=0.06)
    assert (summary["truths"], summary["rmse_state"], summary["seconds"]) == (3000, 1.0, 2.0)


def test_a_truth_has_a_forcing_that_its_observations_do_not_tell(recipe) -> None:
    system = open_system("lorenz96", forcing=(5, 11), spin_up=20)
    truth, observations = recipe.case(recipe.SETTINGS["bocquet2010"], system, 6, 3)
    assert truth.forcing.item() == np.float32(system.values(3)["forcing"])
    assert observations.sizes["site"] == 20 and set(observations.data_vars) == {"x", "x_error"}


def test_an_ensemble_and_a_prior_estimate_the_forcing(recipe, tmp_path: Path) -> None:
    data = generate(
        "lorenz96", tmp_path / "t.zarr", trajectories=6, steps=12, forcing=(5, 11), spin_up=20, progress=False
    )
    # As fields, whose channel is a parameter by the metadata of the prior.
    fields = data.assign(forcing=data.forcing.broadcast_like(data.x).assign_attrs(data.forcing.attrs)).load()
    trained(fields, tmp_path / "p.safetensors", network="auto", parameterisation="edm", steps=3)
    prior = recipe.with_forcing(recipe.sdaxr.open_prior(tmp_path / "p.safetensors"))
    system = open_system("lorenz96", forcing=(5, 11), spin_up=20)
    case = recipe.case(recipe.SETTINGS["sakov2008"], system, 8, 1)
    method, members = recipe.ENSEMBLES[1]
    rows = [
        recipe.estimate(case, method, members, None, system, None, None),
        recipe.estimate(case, "sda", 2, prior, system, None, 2),
        recipe.estimate(case, "sda", 2, prior, system, 4, 2),
    ]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    # The model and all sites tell of the forcing within eight states.
    assert rows[0]["variance"] < 0.5 * 6**2 / 12


def test_a_row_replaces_the_one_with_the_same_keys(recipe, tmp_path: Path) -> None:
    keys = dict(zip(recipe.KEYS, ("sakov2008", 64, 64, "sda", "levels=own", 32), strict=True))
    for value in (1.0, 2.0):
        recipe.save(keys | {"rmse": value}, recipe.KEYS, tmp_path / "p.csv")
    recipe.save(keys | {"members": 16, "rmse": 3.0}, recipe.KEYS, tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv").rmse.tolist() == [2.0, 3.0]
