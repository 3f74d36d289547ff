"""The page on data of full size runs on small stand-ins of the public archives that it names."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import sdaxr
from sdaxr.commands.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "full-size.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def temperature(time: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Waves that travel east, and noise, (time, lat, lon)."""
    random = np.random.default_rng(0)
    phase = np.cumsum(random.normal(size=(len(time), 3)), 0)
    y, x = np.deg2rad(lat)[:, None], np.deg2rad(lon)
    waves = [np.cos((k + 1) * x - phase[:, k, None, None]) * np.cos(y) ** (k + 1) for k in range(3)]
    return (280 + 5 * sum(waves) + 0.5 * random.normal(size=(len(time), len(lat), len(lon)))).astype("f4")


def weatherbench() -> xr.Dataset:
    time = np.arange("2020-09-01", "2021-01-05", np.timedelta64(6, "h"), "datetime64[ns]")
    lat, lon = np.arange(-82.5, 90, 15).astype("f4"), np.arange(0, 360, 30).astype("f4")
    dims = ("time", "latitude", "longitude")
    data = {
        "2m_temperature": (dims, temperature(time, lat, lon), {"units": "K", "long_name": "2 metre temperature"}),
        "land_sea_mask": (dims[1:], np.random.default_rng(1).random((12, 12)).astype("f4"), {"units": "(0 - 1)"}),
        "geopotential": (("time", "level", *dims[1:]), np.zeros((len(time), 2, 12, 12), "f4"), {"units": "m**2 s**-2"}),
    }
    coords = {"time": time, "latitude": lat, "longitude": lon, "level": np.array([500, 850])}
    return xr.Dataset(data, coords).transpose("time", "level", "longitude", "latitude")


def arco() -> xr.Dataset:
    time = np.arange("2018-12-30", "2019-01-20", np.timedelta64(1, "h"), "datetime64[ns]")
    lat, lon = np.arange(66, 43, -3).astype("f4"), np.arange(0, 360, 4).astype("f4")
    values = temperature(time, lat, lon)
    values[-24:] = np.nan
    attrs = {"valid_time_start": "2018-12-30", "valid_time_stop": "2019-01-18"}
    data = {"2m_temperature": (("time", "latitude", "longitude"), values, {"units": "K"})}
    return xr.Dataset(data, {"time": time, "latitude": lat, "longitude": lon}, attrs)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder where the page's Python code ran, and its names."""
    folder = tmp_path_factory.mktemp("page")
    opened, names = xr.open_zarr, {}
    with pytest.MonkeyPatch.context() as patch:
        for name, data in {"weatherbench2": weatherbench(), "arco": arco()}.items():
            data.chunk(time=400).to_zarr(folder / f"{name}.zarr", consolidated=False)

        def remote(url: Any, *, storage_options: Any = None, **options: Any) -> xr.Dataset:
            if not str(url).startswith("gs://"):
                return opened(url, **options)
            assert storage_options == {"token": "anon"}
            name = "weatherbench2" if "weatherbench2" in url else "arco"
            return opened(folder / f"{name}.zarr", consolidated=False, **options)

        patch.setattr(xr, "open_zarr", remote)
        patch.chdir(folder)
        for block in blocks("python"):
            exec(compile(block, "full-size.md", "exec"), names)
    return folder, names


def test_the_code_runs_on_a_globe_with_longitude_before_latitude(ran: tuple[Path, dict[str, Any]]) -> None:
    _, names = ran
    assert names["prior"].metadata["parameterisation"] == "eof"
    assert names["prior"].layout.climatology is not None
    scores = sdaxr.verify(names["posterior"], names["truth"])
    assert float(scores["rmse_2m_temperature"].mean()) < 0.8 * float(names["truth"]["2m_temperature"].std())


def test_the_region_goes_across_greenwich_and_can_be_trained_on(ran: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = ran
    region = sdaxr.open_archive(folder / "british-isles.zarr")
    np.testing.assert_array_equal(region.longitude, [-12, -8, -4, 0, 4])
    whole = arco()["2m_temperature"].sel(time=region.time, latitude=region.latitude)
    np.testing.assert_array_equal(region["2m_temperature"].sel(longitude=-8), whole.sel(longitude=352))
    prior = sdaxr.train(region, folder / "region.safetensors", steps=0, progress=False)
    assert prior.metadata["parameterisation"] == "eof" and prior.layout.periodic == (False, False)


def test_the_commands_run(ran: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, names = ran
    monkeypatch.chdir(folder)
    names["observations"].to_netcdf("observations.nc")
    names["truth"].to_netcdf("truth.nc")
    lines = "".join(blocks("sh")).splitlines()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.replace("--minutes 1440", "--steps 0"))
        assert words[0] == "sdaxr"
        result = CliRunner().invoke(main, [*words[1:], "--quiet"], catch_exceptions=False)
        assert result.exit_code == 0, result.output


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="the package is there")
def test_addresses_need_the_package_of_their_file_system() -> None:
    with pytest.raises(sdaxr.schema.ArchiveError, match=r"cannot open 'gs://.*gcsfs"):
        sdaxr.open_archive(re.findall(r'url = "(.*)"', PAGE)[0])
