"""Figures hold the right panels with the right scales, for every kind of data, offline and without pyplot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from figures import TWO_PI, bars, flow, meshes, observed, rows, state
from PIL import Image

from sdaxr.plotting.animate import animate
from sdaxr.plotting.plot import plot
from sdaxr.schema import DataError, OptionError


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


def test_each_kind_of_data_alone():
    many = flow(members=3).rename(member="trajectory")
    assert rows(plot(many)) == ["trajectory 0", "trajectory 1"]
    assert rows(plot(observed(flow()))) == ["observation"]
    assert rows(plot(flow())) == ["field"]
    forecast = flow(members=3).rename(time="lead_time")
    forecast = forecast.assign_coords(init_time=2.0, valid_time=("lead_time", 2 + forecast.lead_time.values))
    figure = plot(forecast, truth=flow(times=20), times=2)
    assert rows(figure)[0] == "truth" and figure.axes[0].get_title() == "t = 2"


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


def test_an_ending_that_is_no_format_is_refused_before_anything_is_drawn(tmp_path: Path):
    with pytest.raises(OptionError, match=r"cannot write a figure to 'z\.foo', expected .*'pdf', .*'png'"):
        plot(state(), variable="a", path=tmp_path / "z.foo")
    plot(state(), path=tmp_path / "z.PDF")
    assert [p.name for p in tmp_path.iterdir()] == ["z.PDF"]


def test_figures_belong_to_nobody_and_show_in_notebooks():
    code = (
        "import sys, numpy as np, xarray as xr; from sdaxr.plotting.plot import plot;"
        "ds = xr.Dataset({'a': ('time', np.arange(5.0))}, {'time': np.arange(5.0)});"
        "figure = plot(ds); assert 'matplotlib.pyplot' not in sys.modules;"
        "assert figure._repr_png_()[:4] == b'\\x89PNG'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_labels_of_colour_bars_are_inside_the_figure():
    """On maps that are wide and flat, the bar of the spread is shorter than its label in one line."""
    size = {"member": 3, "time": 2, "lat": 10, "lon": 30}
    values = np.random.default_rng(0).normal(size=tuple(size.values()))
    coords = {
        "time": np.arange(2.0),
        "lat": ("lat", np.linspace(-20, 20, 10), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(130, 270, 30), {"units": "degrees_east"}),
    }
    data = xr.Dataset({"sst_anomaly": (tuple(size), values, {"units": "K"})}, coords)
    figure = plot(data, times=2)
    figure.canvas.draw()
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes if axes.yaxis.label.get_text()]
    assert len(boxes) >= 6 and bars(figure)[-1] == "spread of\nsst_anomaly\n[K]"
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1 for box in boxes)
