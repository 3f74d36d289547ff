"""Altimetry of the Mediterranean and the scores of the ocean data challenges; the map with a coarse grid."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

import sdaxr

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(os.environ.get("SDAXR_DATA", ROOT)) / "ssh_mediterranean_2005q2.nc"
needs_data = pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE.name}; set SDAXR_DATA to the folder that holds it")


@pytest.fixture(scope="module")
def modules():
    folder = str(ROOT / "recipes" / "ssh_mediterranean")
    sys.path.insert(0, folder)
    names = ("challenge", "tracks", "run")
    before = {n: sys.modules.pop(n, None) for n in names}
    yield {n: importlib.import_module(n) for n in names}
    sys.path.remove(folder)
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(scope="module")
def challenge(modules) -> ModuleType:
    return modules["challenge"]


@pytest.fixture(scope="module")
def recipe(modules) -> ModuleType:
    return modules["run"]


def simulation(days: int = 20, cells: int = 40) -> xr.Dataset:
    """Waves of all lengths in the form of the challenge 2020a: ``sossheig`` on time, lat, lon."""
    random = np.random.default_rng(0)
    lon, lat = -65 + 0.25 * np.arange(cells), 33 + 0.25 * np.arange(12)
    shape = (days, len(lat), cells)
    power = np.fft.rfft2(random.normal(size=shape), axes=(0, 2))
    waves = np.hypot(np.fft.fftfreq(days)[:, None, None], np.fft.rfftfreq(cells)[None, None])
    values = np.fft.irfft2(power / (0.05 + waves), s=(days, cells), axes=(0, 2))
    time = np.datetime64("2012-10-22", "ns") + np.arange(days) * np.timedelta64(1, "D")
    dims = ("time", "lat", "lon")
    return xr.Dataset({"sossheig": (dims, 0.1 * values)}, {"time": time, "lat": lat, "lon": lon})


def smoothed(truth: xr.Dataset, name: str, shortest: float = 2.0) -> xr.Dataset:
    """The truth without waves shorter than ``shortest`` degrees, of another name and with longitudes from 0 to 360."""
    spectrum = np.fft.rfft(truth.sossheig, axis=2)
    spectrum[..., np.fft.rfftfreq(truth.sizes["lon"], 0.25) > 1 / shortest] = 0
    values = np.fft.irfft(spectrum, truth.sizes["lon"], axis=2)
    return xr.Dataset({name: (truth.sossheig.dims, values)}, truth.coords).assign_coords(lon=truth.lon + 360)


@pytest.mark.parametrize("name", ["sossheig", "gssh", "ssh"])
def test_a_file_of_the_challenge_joins_the_table(challenge, tmp_path: Path, name: str) -> None:
    truth = simulation()
    truth.to_netcdf(tmp_path / "truth.nc")
    maps = smoothed(truth, name)
    maps.to_netcdf(tmp_path / "maps.nc")
    table = tmp_path / "leaderboard.csv"
    for method in ("one", "another", "one"):
        call = [str(tmp_path / "maps.nc"), "--truth", str(tmp_path / "truth.nc"), "--name", method]
        result = CliRunner().invoke(challenge.main, [*call, "--table", str(table)])
        assert result.exit_code == 0, result.output
    rows = pd.read_csv(table)
    assert sorted(rows["method"]) == ["another", "one"]
    error = maps[name].values - truth.sossheig.values
    assert rows["mu"][0] == pytest.approx(
        1 - (error**2).mean() ** 0.5 / (truth.sossheig.values**2).mean() ** 0.5, abs=1e-4
    )
    by_day = 1 - ((error**2).mean((1, 2)) / (truth.sossheig.values**2).mean((1, 2))) ** 0.5
    assert rows["sigma"][0] == pytest.approx(by_day.std(), abs=1e-4)
    assert rows["lambda_x"][0] == pytest.approx(2.0, rel=0.2) and rows["lambda_x_units"][0] == "degree"


def test_tracks_that_no_map_has_seen_are_scored_in_km(challenge) -> None:
    truth = simulation(cells=80).rename(sossheig="ssh")
    count = 160 * 6
    along = np.arange(count) % 160
    start = np.datetime64("2012-10-24", "ns") + (np.arange(count) // 160) * np.timedelta64(1, "D")
    time = start + (along * 0.9434e9).astype("timedelta64[ns]")
    places = {"latitude": ("time", 33 + along * 0.016), "longitude": ("time", 296 + along * 0.05)}
    at = {n[:3]: xr.DataArray(v[1] - 360 * (n == "longitude"), dims="o") for n, v in places.items()}
    values = truth.ssh.interp(time=xr.DataArray(time, dims="o"), lat=at["lat"], lon=at["lon"]).values
    parts = {"sla_unfiltered": values - 0.5, "mdt": np.full(count, 0.6), "lwe": np.full(count, 0.1)}
    tracks = xr.Dataset({n: ("time", v) for n, v in parts.items()}, {"time": time, **places})
    score = challenge.along_tracks(challenge.read(truth), tracks)
    assert score["mu"] == pytest.approx(1.0) and score["sigma"] == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(size=count) * values.std()
    score = challenge.along_tracks(challenge.read(truth), tracks.assign(sla_unfiltered=tracks.sla_unfiltered + noise))
    assert score["lambda_x_units"] == "km" and 0 < score["mu"] < 0.7


def test_the_effective_resolution_is_where_the_ratio_crosses_a_half(challenge) -> None:
    wavenumber = np.array([1.0, 2.0, 3.0, 4.0])
    assert challenge.crossing_of(wavenumber, np.array([0.1, 0.25, 0.75, 0.2])) == pytest.approx(1 / 2.5)
    assert np.isnan(challenge.crossing_of(wavenumber, np.full(4, 0.1)))
    assert np.isnan(challenge.crossing_of(wavenumber, np.full(4, 0.9)))


def test_a_file_without_a_sea_level_is_refused(challenge) -> None:
    with pytest.raises(Exception, match="found \\['t'\\], expected one of"):
        challenge.read(xr.Dataset({"t": ("time", [0.0])}))


@needs_data
def test_maps_of_a_small_sea_beat_the_mean(recipe, modules, tmp_path: Path) -> None:
    data = recipe.load(4).sel(longitude=slice(13, 22))
    truth = data.isel(time=slice(71, 81))
    observations = modules["tracks"].altimetry(truth, averaged=8)
    again = modules["tracks"].altimetry(truth.isel(time=slice(3, None)), averaged=8)
    last = observations.isel(obs=slice(-again.sizes["obs"], None))
    np.testing.assert_array_equal(last.adt, again.adt)
    assert observations.adt_error.attrs["bias"] == 0.02
    methods = recipe.methods(data, tmp_path, 4, minutes=0)
    maps = {n: methods[n](truth, observations) for n in ("climatology", "interpolation", "oi")}
    rows = {n: recipe.score(estimate, truth)[0] for n, estimate in maps.items()}
    assert recipe.histogram(maps["oi"], truth).sum() == pytest.approx(1)
    assert rows["oi"]["rmse"] < 0.8 * min(rows["climatology"]["rmse"], rows["interpolation"]["rmse"])
    assert 0.3 < rows["oi"]["coverage_90"] <= 1 and "spread_skill" in rows["oi"]
    assert sdaxr.open_prior(tmp_path / "point.safetensors").metadata["modes"]["rank"] > 1
