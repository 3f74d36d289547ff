"""Real data: hourly ERA5 through the functions of recipes/era5_uk, with a network far too small to be good."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import sdaxr

ROOT = Path(__file__).resolve().parents[2]
# The folder of real data, where there is one.
FILE = Path(os.environ.get("SDAXR_DATA", ROOT)) / "era5_uk_t2m_2019-03.nc"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE.name}; set SDAXR_DATA to the folder that holds it")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    folder = ROOT / "recipes" / "era5_uk"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("era5_uk_run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def data(recipe) -> xr.Dataset:
    return recipe.load()


@pytest.fixture(scope="module")
def prior(recipe, data, tmp_path_factory):
    small = {"network": {"patch": 4, "widths": (16, 32), "blocks": 1}, "window": 4, "steps": 3}
    path = tmp_path_factory.mktemp("era5") / "prior.safetensors"
    return sdaxr.train(recipe.training_data(data), path, progress=False, **{**recipe.TRAINING, **small})


def test_layout_of_real_data_is_found(recipe, data, prior):
    layout = prior.layout
    assert layout.cycles == ("hour_of_day",)  # a month does not cover the day of the year
    assert layout.time.kind == "datetime" and layout.time.step == 3600
    assert layout.periodic == (False, False)
    assert layout.attrs["t2m"]["units"] == "K"
    assert sorted(layout.context) == ["diurnal", "mean", "spread"]
    expected = data["t2m"].sel(time=recipe.TRAIN).mean("time")
    np.testing.assert_allclose(layout.mean[0], expected, rtol=1e-5)


def test_posterior_of_stations_is_labelled_and_scored(recipe, data, prior):
    truth = data[["t2m"]].sel(time=slice("2019-03-26T06", "2019-03-26T13"))
    used, left_out = recipe.networks(data)
    observations = truth.sda.observe(used, error=0.5, missing=recipe.MISSING, seed=0)
    assert observations["t2m"].dims == ("time", "station")
    assert 0.2 < float(observations["t2m"].isnull().mean()) < 0.4
    posterior = observations.sda.assimilate(
        prior, members=2, seed=0, sampler={"steps": 8, "corrections": 0}, progress=False
    )
    assert posterior["t2m"].dims == ("member", "time", "lat", "lon")
    xr.testing.assert_equal(posterior["time"], truth["time"])
    xr.testing.assert_allclose(posterior["lat"], truth["lat"])
    assert np.isfinite(posterior["t2m"]).all() and posterior["t2m"].attrs["units"] == "K"

    fit = sdaxr.innovations(posterior, observations)["t2m_innovation"].std()
    references = recipe.references(data, truth, observations, 0.5)
    usual = references["hourly climatology"]
    assert fit < 0.8 * sdaxr.innovations(usual, observations)["t2m_innovation"].std()

    estimates = {"sda": posterior} | references
    where = {"stations": 60, "error": 0.5, "window": "one"}
    rows = recipe.score(where, truth, estimates, left_out, {"sda": 1.0})
    table = recipe.summarise(pd.DataFrame(rows)).set_index(["place", "method"])
    error = table["rmse"]
    assert error["field", "optimal interpolation"] < error["field", "interpolation"]
    # Even where nothing is learnt, the prior is the Gaussian process of the training days.
    assert error["field", "sda"] < 0.8 * error["field", "interpolation"]
    assert 0 < table["cover_90"]["field", "sda"] <= 1
    assert set(table.index.get_level_values("place")) == {"field", "stations"}


def test_windows_cover_the_held_out_week_once(recipe, data):
    starts = [w.time.values[0] for w in recipe.windows(data.sel(time=recipe.TEST), 24)]
    assert len(starts) == 7 and (np.diff(starts) == np.timedelta64(24, "h")).all()
