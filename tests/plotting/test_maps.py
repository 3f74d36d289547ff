"""Maps, offline."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import shapefile
import xarray as xr
from figures import bars, rows

from sdaxr.plotting import maps
from sdaxr.plotting.plot import plot


def on_earth(members: int | None = None) -> xr.Dataset:
    lat, lon = np.linspace(60, 50, 6), np.linspace(-10, 2, 8)
    times = xr.date_range("2019-03-25", periods=4, freq="6h")
    ds = xr.Dataset(coords={"time": times, "lat": lat, "lon": lon})
    field = (280 + np.cos(np.deg2rad(ds.lat * 3)) + 0.1 * ds.lon).expand_dims(time=times).assign_attrs(units="K")
    ds = ds.assign(t2m=field.copy())
    if members:
        ds = (ds + xr.DataArray(np.arange(float(members)), dims="member")).transpose("member", ...)
        ds.t2m.attrs = {"units": "K"}
    return ds


@pytest.fixture
def no_coastlines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import cartopy

    for key in ("pre_existing_data_dir", "data_dir", "repo_data_dir"):
        monkeypatch.setitem(cartopy.config, key, tmp_path)
    monkeypatch.setattr(maps, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    maps.coastlines.cache_clear()
    maps._warn.cache_clear()
    yield tmp_path
    maps.coastlines.cache_clear()
    maps._warn.cache_clear()


def test_maps_work_offline_with_one_warning(no_coastlines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    stations = on_earth().interp(
        lat=xr.DataArray([51.0, 55.0, 58.0], dims="station"),
        lon=xr.DataArray([0.0, -3.0, -8.0], dims="station"),
    )
    with caplog.at_level(logging.WARNING):
        figure = plot(on_earth(3), truth=on_earth(), observations=stations, times=2, path=tmp_path / "map.png")
        plot(on_earth(), times=1, path=tmp_path / "again.png")
    assert sum("coastline" in r.message for r in caplog.records) == 1
    assert rows(figure)[:2] == ["truth", "observation"]
    assert bars(figure) == ["t2m [K]", "spread of t2m [K]"]
    assert figure.axes[0].get_title() == "2019-03-25 00:00"
    assert type(figure.axes[0]).__name__ == "GeoAxes"
    extents = {tuple(np.round(a.get_extent(), 6)) for a in figure.axes if type(a).__name__ == "GeoAxes"}
    assert len(extents) == 1


def test_coastlines_on_disk_are_drawn(no_coastlines: Path, tmp_path: Path):
    folder = no_coastlines / "shapefiles/gshhs/c"
    folder.mkdir(parents=True)
    with shapefile.Writer(str(folder / "GSHHS_c_L1"), shapeType=shapefile.POLYGON) as writer:
        writer.field("name", "C")
        writer.poly([[[-8, 52], [-8, 58], [0, 58], [0, 52], [-8, 52]]])
        writer.record("island")
    assert len(maps.coastlines()) == 1
    figure = plot(on_earth(), times=1, path=tmp_path / "coast.png")
    kinds = [type(c).__name__ for c in figure.axes[0].get_children()]
    assert "FeatureArtist" in kinds
