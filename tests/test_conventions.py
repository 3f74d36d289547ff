"""Every product passes the checker of the CF conventions (compliance-checker, cf:1.11) without an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.stores import save

# A checker's rule, not one of CF: a dimension named 'time' holds times since a date. Model time has no date.
_MODEL_TIME = "Coordinate variable 'time' should have standard_name='time', found: 'None'"
# In a process of its own, because it raises warnings; from the file names in its arguments to report.json.
_CHECKER = """
import sys
from compliance_checker.runner import CheckSuite, ComplianceChecker
CheckSuite.load_all_available_checkers()
output = {"output_filename": "report.json", "output_format": "json_new"}
ComplianceChecker.run_checker(sys.argv[1:], ["cf:1.11"], 0, "normal", **output)
"""
DRAWN: dict[str, Any] = {"sampler": {"steps": 2, "attempts": 1, "mixing": False}, "progress": False}


def weather() -> xr.Dataset:
    """Temperatures as other people's files have them: without the attributes that CF wants of coordinates."""
    random = np.random.default_rng(0)
    time = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    coords = {"time": time, "lat": np.linspace(-70, 70, 8), "lon": np.arange(0, 360, 22.5)}
    values = (280 + random.normal(size=(40, 8, 16))).astype(np.float32)
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K", "long_name": "temperature"})}, coords)


def model_products(folder: Path) -> dict[str, xr.Dataset]:
    """What is made of a system with model time."""
    archive = sdaxr.generate("lorenz63", folder / "archive.nc", trajectories=3, steps=16, progress=False)
    sdaxr.generate("lorenz63", folder / "t.zarr", trajectories=3, steps=16, progress=False)
    truth = archive.isel(trajectory=0)
    observations = sdaxr.observe(truth, op.select("a"), every=4, error=1.0)
    posterior = sdaxr.assimilate(observations, "lorenz63", members=3, store=folder / "posterior.nc", **DRAWN)
    return {
        "trajectories": sdaxr.open_archive(folder / "t.zarr"),
        "observations": observations,
        "forecast": sdaxr.forecast(posterior, "lorenz63", steps=3, store=folder / "f.zarr", progress=False),
        "innovations": sdaxr.innovations(posterior, observations),
        "scores": sdaxr.verify(posterior, truth),
        "calibration": sdaxr.calibrate(
            "linear", op.select("x1"), system="linear", error=1.0, steps=4, truths=3, members=2, progress=False
        ),
    }


def weather_products(folder: Path) -> dict[str, xr.Dataset]:
    """What is made of temperatures on a globe."""
    data = weather()
    truth = data.isel(time=slice(0, 3))
    network = {"name": "space-time-unet", "widths": [8], "blocks": 1}
    prior = sdaxr.train(
        data, folder / "p.safetensors", window=3, steps=1, network=network, optimisation={"batch": 2}, progress=False
    )
    grid = sdaxr.observe(truth, op.coarsen(2), every=2, error=1.0)
    stations = sdaxr.observe(truth, op.points({"lat": [10.0, 20.0], "lon": [0.0, 50.0]}), error=1.0)
    posterior = sdaxr.assimilate(grid, prior, members=3, store=folder / "weather-p.zarr", **DRAWN)
    sdaxr.cycle(grid, prior, members=2, window=3, store=folder / "weather-c.zarr", **DRAWN)
    ahead = sdaxr.forecast(posterior, prior, steps=3, **DRAWN)
    return {
        "weather-grid": grid,
        "weather-stations": stations,
        "weather-posterior": posterior,
        "weather-cycle": sdaxr.cycle(grid, prior, members=2, window=3, store=folder / "cycle.nc", **DRAWN),
        "weather-forecast": ahead,
        "weather-statuses": sdaxr.report(stations, prior),
        "weather-innovations": sdaxr.innovations(posterior, stations),
        "weather-scores": sdaxr.verify(posterior, truth),
        "weather-scores-of-a-forecast": sdaxr.verify(ahead, data),
        "weather-denoised": sdaxr.denoise(truth, prior, error=1.0, steps=2, progress=False),
        "weather-climatology": sdaxr.baselines.climatology(data, truth),
        "weather-interpolated": sdaxr.baselines.interpolate(grid, truth),
    }


def save_zarr(data: xr.Dataset, store: Path) -> Path:
    save(data, store)
    return store


def as_netcdf(store: Path, path: Path) -> None:
    """A Zarr archive as NetCDF, by xarray: what is opened of the archive reaches the checker."""
    found = sdaxr.open_archive(store).load().drop_encoding()
    found.to_netcdf(path, encoding={name: {"_FillValue": None} for name in found.coords})


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The errors that the checker finds in each product, by its name."""
    folder = tmp_path_factory.mktemp("products")
    for name, data in (model_products(folder) | weather_products(folder)).items():
        save(data, folder / f"{name}.nc")
        as_netcdf(save_zarr(data, folder / "zarr" / f"{name}.zarr"), folder / f"{name}-from-zarr.nc")
    for store in folder.glob("*.zarr"):
        as_netcdf(store, folder / f"{store.stem}-units-from-zarr.nc")
    files = sorted(folder.glob("*.nc"))
    names = [file.name for file in files]
    subprocess.run([sys.executable, "-c", _CHECKER, *names], cwd=folder, capture_output=True, check=True)
    report = json.loads((folder / "report.json").read_text())
    found = {}
    for file in files:
        rules = report[file.name]["cf:1.11"]["high_priorities"]
        found[file.stem] = [message for rule in rules for message in rule["msgs"]]
    return found


def test_the_checker_finds_what_is_wrong(errors: dict[str, list[str]]) -> None:
    assert _MODEL_TIME in errors["posterior"] and len(errors) == 43


def test_no_product_has_an_error(errors: dict[str, list[str]]) -> None:
    wrong = {name: [m for m in messages if m != _MODEL_TIME] for name, messages in errors.items()}
    assert {name: messages for name, messages in wrong.items() if messages} == {}
    assert not any(_MODEL_TIME in messages for name, messages in errors.items() if name.startswith("weather"))


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_flags_of_an_archive_have_the_type_of_its_status(tmp_path: Path, suffix: str) -> None:
    store = tmp_path / f"a{suffix}"
    status = sdaxr.generate("lorenz63", store, trajectories=1, steps=2, progress=False).status
    assert status.dtype == status.attrs["flag_values"].dtype == np.int8


def test_innovations_and_scores_say_what_they_are() -> None:
    truth = weather().isel(time=slice(0, 3))
    observations = sdaxr.observe(truth, op.identity(), error=1.0)
    ensemble = xr.concat([truth, truth + 1.0], "member")
    for data in (sdaxr.innovations(ensemble, observations), sdaxr.verify(ensemble, truth)):
        assert data.attrs["Conventions"].startswith("CF-") and data.attrs["title"]
