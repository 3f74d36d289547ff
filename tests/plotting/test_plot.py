"""Figures hold the right panels with the right scales, for every kind of data, offline and without pyplot."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from sdaxr.plotting import maps
from sdaxr.plotting.panels import vorticity
from sdaxr.plotting.plot import animate, plot
from sdaxr.schema import DataError

TWO_PI = 2 * np.pi


def flow(members: int | None = None, times: int = 9, size: int = 8, seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    centres = (np.arange(size) + 0.5) * TWO_PI / size
    grid = {d: xr.Variable(d, centres, {"units": "1", "period": TWO_PI}) for d in ("y", "x")}
    ds = xr.Dataset(coords={"time": ("time", 0.2 * np.arange(times), {"units": "1"}), **grid})
    u = np.cos(ds.y) * (1 + ds.time) + 0 * ds.x
    v = np.sin(ds.x) * (1 + ds.time) + 0 * ds.y
    ds = ds.assign(u=u.transpose("time", "y", "x"), v=v.transpose("time", "y", "x"))
    if members:
        noise = xr.DataArray(random.standard_normal((members, times, size, size)), dims=("member", *ds.u.dims))
        ds = (ds + 0.1 * noise).transpose("member", ...).assign_coords(member=np.arange(members))
    for name in "uv":
        ds[name].attrs = {"units": "1", "long_name": f"velocity {name}"}
    return ds


def observed(ds: xr.Dataset, every: int = 4) -> xr.Dataset:
    coarse = ds.isel(time=slice(None, None, every)).coarsen(y=2, x=2).mean()
    errors = {f"{n}_error": ((), 0.1, {"units": "1"}) for n in ds.data_vars}
    for d in ("y", "x"):
        coarse[d].attrs = ds[d].attrs
    return coarse.assign(errors)


def rows(figure: Figure) -> list[str]:
    return [a.get_ylabel() for a in figure.axes if a.get_ylabel() and a.get_label() != "<colorbar>"]


def bars(figure: Figure) -> list[str]:
    return [a.get_ylabel() or a.get_xlabel() for a in figure.axes if a.get_label() == "<colorbar>"]


def meshes(figure: Figure) -> list:
    return [a.collections[0] for a in figure.axes if a.collections and a.get_label() != "<colorbar>"]


def test_vorticity_by_central_differences():
    ds = flow(size=64)
    found = vorticity(ds.u, ds.v)
    expected = (np.cos(ds.x) + np.sin(ds.y)) * (1 + ds.time)
    np.testing.assert_allclose(found, expected.transpose(*found.dims), atol=0.01)
    assert found.attrs["units"] == "1"


def test_vorticity_does_not_wrap_around_a_cut() -> None:
    ds = flow()
    cut = ds.isel(x=slice(0, 6))
    found, whole = vorticity(cut.u, cut.v), vorticity(ds.u, ds.v)
    np.testing.assert_allclose(found[..., 1:-1], whole[..., 1:5], atol=1e-12)
    ahead = (cut.v[..., 1] - cut.v[..., 0]) / (TWO_PI / 8)
    across = (ds.v[..., 1] - ds.v[..., -1]) / (2 * TWO_PI / 8)
    np.testing.assert_allclose((found - whole)[..., 0], ahead - across, atol=1e-12)


def test_vorticity_on_the_sphere_of_solid_rotation():
    lat, lon = np.linspace(30, 60, 31), np.linspace(0, 30, 31)
    grid = xr.Dataset(coords={"lat": lat, "lon": lon})
    u = (10 * np.cos(np.deg2rad(grid.lat)) + 0 * grid.lon).assign_attrs(units="m s-1")
    found = vorticity(u, xr.zeros_like(u))
    np.testing.assert_allclose(found, 2 * 10 / 6_371_229 * np.sin(np.deg2rad(grid.lat)) + 0 * u, rtol=0.02)
    assert found.attrs["units"] == "s-1"


def test_a_posterior_beside_truth_and_observations(tmp_path: Path):
    truth = flow()
    path = tmp_path / "posterior.png"
    figure = plot(flow(members=3), truth=truth, observations=observed(truth), path=path, times=3)
    assert rows(figure) == ["truth", "observation", "member 0", "member 1", "mean", "spread"]
    assert bars(figure) == ["vorticity", "spread of vorticity"]
    assert [a.get_title() for a in figure.axes[:3]] == ["t = 0", "t = 0.8", "t = 1.6"]
    fields, spreads = meshes(figure)[:-3], meshes(figure)[-3:]
    limits = {m.get_clim() for m in fields}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high
    assert {m.get_cmap().name for m in fields} == {"RdBu_r"}
    assert {m.get_cmap().name for m in spreads} == {"magma"} and spreads[0].get_clim()[0] == 0
    with Image.open(path) as image:
        assert image.size[0] > 600 and len(np.unique(np.asarray(image))) > 50


def test_fields_and_times_are_the_ones_asked_for():
    post = flow(members=3)
    figure = plot(post, variable="u", times=[0.4, 1.0], members=1)
    assert rows(figure) == ["member 0", "mean", "spread"]
    drawn = np.asarray(meshes(figure)[1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(drawn, post.u[0, 5])
    spread = np.asarray(meshes(figure)[-1].get_array()).reshape(8, 8)
    np.testing.assert_allclose(spread, post.u[:, 5].std("member", ddof=1))


def test_only_the_times_shown_are_read():
    post = flow(members=3).chunk(time=1)
    expected = plot(flow(members=3), times=2)
    poisoned = post.where(post.time != post.time[3]).map(
        lambda v: v.copy(data=v.data.map_blocks(_refuse_nan, dtype=v.dtype))
    )
    figure = plot(poisoned, times=2)
    np.testing.assert_array_equal(meshes(figure)[0].get_array(), meshes(expected)[0].get_array())


def _refuse_nan(block: np.ndarray) -> np.ndarray:
    if np.isnan(block).all() and block.size:
        raise AssertionError("a time that is not shown was read")
    return block


def test_each_kind_of_data_alone():
    many = flow(members=3).rename(member="trajectory")
    assert rows(plot(many)) == ["trajectory 0", "trajectory 1"]
    assert rows(plot(observed(flow()))) == ["observation"]
    assert rows(plot(flow())) == ["field"]
    forecast = flow(members=3).rename(time="lead_time")
    forecast = forecast.assign_coords(init_time=2.0, valid_time=("lead_time", 2 + forecast.lead_time.values))
    figure = plot(forecast, truth=flow(times=20), times=2)
    assert rows(figure)[0] == "truth" and figure.axes[0].get_title() == "t = 2"


def test_a_time_without_observation_says_so():
    truth = flow()
    figure = plot(flow(members=2), truth=truth, observations=observed(truth, every=8), times=3)
    texts = [t.get_text() for a in figure.axes for t in a.texts if t.get_visible()]
    assert texts == ["none"]


def test_velocities_at_stations_are_points_beside_the_vorticity():
    place = {d: xr.DataArray([1.0, 2.0, 4.0, 5.0], dims="station") for d in ("y", "x")}
    stations = flow().interp(place).isel(time=slice(None, None, 4))
    assert bars(plot(flow(members=2), observations=stations))[0] == "observed u"
    assert rows(plot(stations))
    figure = plot(flow(members=2), variable="u", observations=stations, times=2)
    assert bars(figure) == ["u", "spread of u"]
    np.testing.assert_allclose(meshes(figure)[0].get_offsets(), [[1, 1], [2, 2], [4, 4], [5, 5]])


def test_observations_of_another_quantity_have_their_own_scale():
    truth = flow()
    seen = observed(truth).isel(x=slice(1, 3)).rename(u="speed", v="angle").drop_vars(["u_error", "v_error"])
    figure = plot(flow(members=2), truth=truth, observations=seen)
    assert bars(figure) == ["observed speed", "vorticity", "spread of vorticity"]
    assert rows(figure)[:3] == ["observation", "truth", "member 0"]  # the rows of a bar are neighbours
    assert figure.axes[0].get_xlim() == pytest.approx((0, TWO_PI))  # and all show the state's domain


def state(members: int | None = None) -> xr.Dataset:
    times = 0.1 * np.arange(30)
    ds = xr.Dataset({n: ("time", 5 * np.sin(times + i), {"units": "K"}) for i, n in enumerate("abc")}, {"time": times})
    if members:
        noise = xr.DataArray(np.random.default_rng(0).standard_normal((members, 30)), dims=("member", "time"))
        ds = ds + noise
    return ds


def test_states_without_space_are_lines(tmp_path: Path):
    seen = state()[["a"]].isel(time=slice(None, None, 8))
    seen = seen.assign(a_error=("time", np.full(seen.time.size, 0.5)))
    figure = plot(state(5), truth=state(), observations=seen, path=tmp_path / "lines.png")
    assert [a.get_ylabel() for a in figure.axes] == ["a [K]", "b [K]", "c [K]"]
    first = figure.axes[0]
    assert len(first.lines) >= 5 + 1 + 1
    assert len(first.containers) == 1  # error bars
    assert not figure.axes[1].containers
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert labels == {"members", "mean", "truth", "observation"}
    assert len(plot(state(5), variable="b").axes) == 1
    assert len(plot(seen).axes[0].containers) == 1


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_lines_on_a_calendar(calendar: str, tmp_path: Path):
    times = xr.date_range("2001-02-20", periods=30, freq="D", calendar=calendar, use_cftime=calendar == "noleap")
    plot(state(3).assign_coords(time=times), truth=state().assign_coords(time=times), path=tmp_path / "c.png")


def test_one_space_dimension_is_a_hovmoeller_diagram(tmp_path: Path):
    ds = xr.Dataset(coords={"time": 0.05 * np.arange(12), "site": np.arange(10.0)})
    truth = ds.assign(x=np.sin(ds.time * 5 + ds.site).assign_attrs(units="m"))
    post = truth + xr.DataArray(np.random.default_rng(0).standard_normal((3, 1, 1)), dims=("member", "time0", "site0"))
    post = post.isel(time0=0, site0=0)
    seen = truth.isel(time=slice(None, None, 4), site=slice(None, None, 2))
    figure = plot(post, truth=truth, observations=seen, path=tmp_path / "x.png")
    titles = [a.get_title() for a in figure.axes if a.get_title()]
    assert titles == ["truth", "observation", "member 0", "member 1", "mean", "spread"]
    assert figure.axes[0].get_ylabel() == "time"
    animate(post, tmp_path / "x.gif", truth=truth)


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
    monkeypatch.setattr(maps, "_SYSTEM", ())
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
    shapefile = pytest.importorskip("shapefile")
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


def test_animations_have_a_frame_per_time(tmp_path: Path):
    truth = flow()
    path = animate(flow(members=2), tmp_path / "flow.gif", truth=truth, observations=observed(truth), fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 9 and image.info["duration"] == 100 and image.info["loop"] == 0
        first = np.asarray(image.convert("RGB"), int)
        image.seek(8)
        last = np.asarray(image.convert("RGB"), int)
    assert first.shape == last.shape and np.abs(first - last).max() > 50
    assert (first[-3:] == last[-3:]).all()  # the layout does not move
    lines = animate(state(3).isel(time=slice(0, 4)), str(tmp_path / "lines.gif"), truth=state())
    assert lines.stat().st_size > 0
    with pytest.raises(DataError, match=r"ends in \.gif"):
        animate(truth, tmp_path / "flow.mp4")
    with pytest.raises(DataError, match="fps is 0"):
        animate(truth, tmp_path / "flow.gif", fps=0)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="Did you mean 'vorticity'"):
        plot(flow(), variable="vortcity")
    with pytest.raises(DataError, match="no data at the time"):
        plot(flow(), times=[0.3])
    with pytest.raises(DataError, match="expected one time dimension"):
        plot(flow().isel(time=0, drop=True))
    with pytest.raises(DataError, match="at most two"):
        plot(flow().expand_dims(z=3), variable="u")


def test_figures_belong_to_nobody_and_show_in_notebooks():
    code = (
        "import sys, numpy as np, xarray as xr; from sdaxr.plotting.plot import plot;"
        "ds = xr.Dataset({'a': ('time', np.arange(5.0))}, {'time': np.arange(5.0)});"
        "figure = plot(ds); assert 'matplotlib.pyplot' not in sys.modules;"
        "assert figure._repr_png_()[:4] == b'\\x89PNG'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
