"""Real data with land: sea surface temperature through the functions of recipes/sst_pacific, on a coarse grid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from recipe_modules import recipe_modules

import sdaxr

ROOT = Path(__file__).resolve().parents[2]
# The folder of real data, where there is one.
FILE = Path(os.environ.get("SDAXR_DATA", ROOT)) / "sst_anomaly_pacific_1970-2003.nc"
needs_data = pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE.name}; set SDAXR_DATA to the folder that holds it")


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    with recipe_modules("sst_pacific", ["run", "limits"]) as found:
        yield found


@pytest.fixture(scope="module")
def recipe(modules) -> ModuleType:
    return modules.run


@pytest.fixture(scope="module")
def data(recipe) -> xr.Dataset:
    return recipe.load().isel(lat=slice(None, None, 3), lon=slice(None, None, 3))


@pytest.fixture(scope="module")
def found(recipe, data, tmp_path_factory) -> tuple[xr.Dataset, dict[str, xr.Dataset], pd.DataFrame]:
    """The year of an El Nino from 60 places: truth, estimates, and scores."""
    store = tmp_path_factory.mktemp("sst")
    prior = recipe.prior_of("floor", data, store, minutes=0)
    assert recipe.prior_of("floor", data, store, minutes=0).metadata == prior.metadata  # read, not made again
    truth = data.sel(time="1997")
    used, withheld = recipe.networks(data, 60)
    observations = truth.sda.observe(used, error=recipe.ERROR, missing=recipe.MISSING, seed=0)
    estimates = dict(recipe.estimates(data, truth, observations, {"floor": prior}, 20, store))
    rows = [{"year": 1997, "places": 60, "method": m} | recipe.score(e, truth, withheld) for m, e in estimates.items()]
    return truth, estimates, pd.DataFrame(rows)


@needs_data
def test_places_are_at_sea_and_withheld_ones_are_others(recipe, data):
    used, withheld = (op.apply(data)["sst_anomaly"] for op in recipe.networks(data, 60))
    assert used.sizes["station"] == 60 and withheld.sizes["station"] == 20
    assert used.notnull().all() and withheld.notnull().all()
    places = [set(zip(p["lat"].values, p["lon"].values, strict=True)) for p in (used, withheld)]
    assert not places[0] & places[1]
    fewer = recipe.networks(data, 15)[0].apply(data)["sst_anomaly"]
    xr.testing.assert_equal(fewer.reset_coords(drop=True), used.isel(station=slice(15)).reset_coords(drop=True))


@needs_data
def test_posteriors_have_the_land_of_the_data_and_beat_the_references(found):
    truth, estimates, table = found
    assert set(estimates) == {"no network", "optimal interpolation", "interpolation", "climatology"}
    for estimate in estimates.values():
        missing = estimate["sst_anomaly"].isnull()
        assert (missing == truth["sst_anomaly"].isnull()).all()
    rmse = table.set_index("method")["rmse"]
    assert max(rmse["no network"], rmse["optimal interpolation"]) < rmse["interpolation"] < rmse["climatology"]
    assert abs(rmse["no network"] / rmse["optimal interpolation"] - 1) < 0.1  # draws from the same posterior


@needs_data
def test_scores_of_ensembles_are_those_of_verify(recipe, found):
    truth, estimates, table = found
    row = table.set_index("method").loc["optimal interpolation"]
    assert (
        row.drop(["year", "places", "method", "seconds"], errors="ignore").between(0.05, 1.5).all()
        and row["seconds"] > 0
    )
    expected = sdaxr.verify(estimates["optimal interpolation"], truth, metrics=("crps",))["crps_sst_anomaly"].mean()
    assert row["crps"] == pytest.approx(float(expected))
    single = table.set_index("method").loc["climatology"]
    assert single[["spread", "spread_skill", "coverage"]].isna().all()


@needs_data
def test_index_is_that_of_its_box_with_an_interval(recipe, found):
    truth, estimates, _ = found
    months = recipe.monthly(estimates["no network"], truth).assign(places=60, method="no network")
    box = truth["sst_anomaly"].where((abs(truth["lat"]) <= 5) & (truth["lon"] >= 190) & (truth["lon"] <= 240))
    expected = box.weighted(np.cos(np.deg2rad(truth["lat"]))).mean(("lat", "lon"))
    np.testing.assert_allclose(months["truth"], expected)
    assert (months["low"] < months["mean"]).all() and (months["mean"] < months["high"]).all()
    index = recipe.summarise_index(months).iloc[0]
    assert index["correlation"] > 0.9 and index["rmse"] < 0.5 < index["truth_sd"]


@needs_data
def test_ranks_sum_to_one_and_the_figure_is_written(recipe, found, tmp_path):
    truth, estimates, _ = found
    withheld = recipe.networks(truth, 60)[1]
    about = {"places": 60, "method": recipe.drawing.METHOD}
    ranks = recipe.histogram(estimates["no network"], truth, withheld).assign(**about)
    assert len(ranks) == 21 and ranks["frequency"].sum() == pytest.approx(1)
    recipe.drawing.index_and_ranks(
        recipe.monthly(estimates["no network"], truth).assign(**about), ranks, tmp_path / "nino34.png"
    )
    assert (tmp_path / "nino34.png").stat().st_size > 10_000


def test_interval_holds_nine_draws_in_ten(recipe):
    draws = xr.DataArray(np.random.default_rng(0).standard_normal((21, 20_000)), dims=("member", "case"))
    held = recipe.covered(draws[:20], draws[20]).mean()
    assert float(held) == pytest.approx(0.9, abs=0.008)


def test_missing_data_are_told_in_one_line(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("SDAXR_DATA", str(tmp_path))
    with pytest.raises(click.ClickException, match="found no sst_anomaly.*SDAXR_DATA.*README") as caught:
        recipe.load()
    assert "\n" not in caught.value.message


@needs_data
def test_the_closed_form_mean_is_that_of_optimal_interpolation(recipe, modules, data, tmp_path):
    prior = recipe.prior_of("floor", data, tmp_path, minutes=0)
    truth = data.sel(time="1997")
    observations = truth.sda.observe(recipe.networks(data, 60)[0], error=recipe.ERROR, missing=recipe.MISSING, seed=0)
    members = 400
    draws = sdaxr.assimilate(
        observations, prior, method={"name": "oi", "adapt": False}, members=members, seed=1, progress=False
    )["sst_anomaly"].transpose("member", "time", "lat", "lon")
    exact = draws[0].copy(data=modules.limits.Process.of(prior).mean(truth, observations).reshape(draws[0].shape))
    away = ((draws.mean("member") - exact) / draws.std("member", ddof=1) * members**0.5).where(
        truth["sst_anomaly"].notnull()
    )
    # Standard normal numbers, if the means are the same; neighbours are correlated.
    assert float((away**2).mean()) == pytest.approx(1, abs=0.35) and float(abs(away).max()) < 5.5
