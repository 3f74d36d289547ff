"""Tables of recipes/kolmogorov."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from recipe_modules import RECIPES, recipe_modules

import sdaxr


@pytest.fixture(scope="module")
def cost() -> Iterator[ModuleType]:
    with recipe_modules("kolmogorov", ["cost"]) as modules:
        yield modules.cost


def waves() -> xr.Dataset:
    """Velocities of two trajectories on the grid of the recipe, with energy at all wavenumbers."""
    random, axis = np.random.default_rng(0), 2 * np.pi / 64 * np.arange(64.0)
    attrs = {"units": "1", "periodic": 1, "period": 2 * np.pi}
    fields = {v: (("trajectory", "time", "y", "x"), random.normal(size=(1, 32, 64, 64)), {"units": "1"}) for v in "uv"}
    coords = {"y": ("y", axis, attrs), "x": ("x", axis, attrs), "time": 0.2 * np.arange(32.0)}
    return xr.Dataset(fields, coords).assign_coords(trajectory=[76], split=("trajectory", ["valid"]))


@pytest.mark.parametrize("study", ["samplers", "methods", "compositions"])
def test_a_study_writes_the_columns_of_its_table(
    cost: ModuleType, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = waves()
    shifts = xr.DataArray([-0.1, 0.0, 0.2], dims="member", coords={"member": [0, 1, 2]})

    def assimilate(observations: xr.Dataset, prior: str, **options: object) -> xr.Dataset:
        with xr.set_options(keep_attrs=True):
            return (truth.isel(trajectory=0, drop=True) + shifts).assign_attrs(evaluations_per_member=22.0)

    monkeypatch.setattr(cost, "open_trajectories", lambda store: truth)
    monkeypatch.setattr(sdaxr, "assimilate", assimilate)
    cost.study(study, {"a": ("", {})}, store="", count=1, members=3, device="cpu", output=tmp_path)
    found, kept = (pd.read_csv(folder / f"{study}.csv") for folder in (tmp_path, RECIPES / "kolmogorov"))
    assert found.columns.tolist() == kept.columns.tolist()
    assert not found.isna().any(axis=None) and found["evaluations"].tolist() == [22.0]
