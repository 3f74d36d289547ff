"""Maps, offline."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import shapefile
import xarray as xr
from cartopy.crs import PlateCarree
from figures import bars, meshes, rows

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
    with caplog.at_level(logging.WARNING, "sdaxr"):
        figure = plot(on_earth(3), truth=on_earth(), observations=stations, times=2, path=tmp_path / "map.png")
        plot(on_earth(), times=1, path=tmp_path / "again.png")
    assert sum("coastline" in r.message for r in caplog.records) == 1
    assert rows(figure)[:2] == ["truth", "observation"]
    assert bars(figure) == ["t2m [K]", "spread of t2m [K]"]
    assert figure.axes[0].get_title() == "2019-03-25 00:00"
    assert type(figure.axes[0]).__name__ == "GeoAxes"
    extents = {tuple(np.round(a.get_extent(), 6)) for a in figure.axes if type(a).__name__ == "GeoAxes"}
    assert len(extents) == 1


def test_a_cut_across_the_meridian_of_zero_is_drawn_in_one_piece():
    """Grid, stations counted from elsewhere, and dimensions in the other order; the same of a ring against time."""
    field = on_earth().assign_coords(lon=np.array([351.0, 354, 357, 0, 3, 6, 9, 12]))
    place = {d: xr.DataArray(v, dims="station") for d, v in (("lat", [52.0, 58.0]), ("lon", [-3.0, 3.0]))}
    stations = on_earth().isel(lon=0, drop=True).interp(lat=place["lat"]).assign_coords(lon=place["lon"])
    expected = field.t2m[0, ::-1].values.ravel()
    for data in (field, field.transpose("time", "lon", "lat")):
        figure = plot(data, observations=stations, times=1)
        figure.canvas.draw()
        for axes in figure.axes[:2]:
            np.testing.assert_allclose(axes.get_extent(), (-12, 12, 49, 61), atol=1e-6)
            assert axes.projection.transform_point(0, 55, PlateCarree())[0] == pytest.approx(-1.5)
        seen, drawn = meshes(figure)
        np.testing.assert_allclose(np.diff(seen.get_offsets()[:, 0]), 6)
        np.testing.assert_array_equal(np.asarray(drawn.get_array()).ravel(), expected)
        assert np.ptp(drawn.get_coordinates()[..., 0]) == 24
    only = plot(stations.assign_coords(lon=place["lon"] % 360), times=1)
    np.testing.assert_allclose(only.axes[0].get_extent()[:2], (-3.3, 3.3), atol=1e-6)
    ring = plot(field.isel(lat=0, drop=True), observations=on_earth().isel(lat=0, lon=[5, 7], drop=True))
    for axes in ring.axes[:2]:
        low, high = axes.get_xlim()
        assert 349 <= low < high <= 375


@pytest.mark.parametrize("east", [60.0, 150.0, 165.0, 180.0])
def test_observations_on_both_ends_of_a_map_are_not_drawn_between(east: float):
    """A sector across 0E on a globe that is counted from 0 to 360 degrees."""
    lat, lon = np.linspace(-60, 60, 5), np.arange(0.0, 360.0, 15.0)
    globe = xr.DataArray(np.ones((1, 5, 24)), {"time": [0.0], "lat": lat, "lon": lon}, ("time", "lat", "lon"), "t")
    east_and_west = globe.assign_coords(lon=(globe.lon + 180) % 360 - 180).sortby("lon")
    sector = east_and_west.sel(lon=slice(-east, east)).to_dataset()
    seen = meshes(plot(globe.to_dataset(), observations=sector, times=1))[0]
    edges = seen.get_coordinates()[0, :, 0]
    there = np.isfinite(np.ma.filled(seen.get_array(), np.nan)).reshape(5, -1)[0]
    assert np.diff(edges)[there].max() == 15 and np.diff(edges)[there].sum() == 15 * sector.sizes["lon"]


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
