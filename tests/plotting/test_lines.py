"""States without space are lines, those with one dimension Hovmoeller diagrams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from figures import state
from PIL import Image

from sdaxr.plotting.animate import animate
from sdaxr.plotting.plot import plot
from sdaxr.schema import DataError


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


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_lines_on_a_calendar(calendar: str, tmp_path: Path):
    """Days are evenly spaced, across the end of the year too; truth and observations stand at their times."""
    cftime = calendar != "standard"
    times = xr.date_range("2001-12-11", periods=30, freq="D", calendar=calendar, use_cftime=cftime)
    post, truth = (ds.assign_coords(time=times) for ds in (state(3), state()))
    seen = truth[["a"]].isel(time=[4, 25]).assign(a_error=((), 0.5))
    figure = plot(post, truth=truth, observations=seen, variable="a", path=tmp_path / "c.png")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    at = lines["truth"].get_xdata(orig=False).astype(float)
    np.testing.assert_allclose(np.diff(at), 1.0, atol=1e-6)
    np.testing.assert_array_equal(lines["mean"].get_xdata(orig=False).astype(float), at)
    np.testing.assert_allclose(lines["truth"].get_ydata(), truth.a)
    np.testing.assert_allclose(lines["mean"].get_ydata(), post.a.mean("member"))
    points = axes.containers[0].lines[0]
    np.testing.assert_array_equal(points.get_xdata(orig=False).astype(float), at[[4, 25]])
    assert axes.get_xlabel() == ("time [days since 2000-01-01]" if cftime else "")
    assert (tmp_path / "c.png").stat().st_size > 1000


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
    with Image.open(animate(post, tmp_path / "x.gif", truth=truth)) as image:
        assert image.n_frames == 12
        first = np.asarray(image.convert("RGB"), int)
        image.seek(11)
        last = np.asarray(image.convert("RGB"), int)
    assert np.abs(first - last).max() > 50, "the line of the time moves"


def test_trajectories_are_lines_and_hours_are_counted():
    hours = (np.arange(30) * np.timedelta64(90, "m")).astype("m8[ns]")
    many = state(3).rename(member="trajectory").assign_coords(time=hours)
    (axes,) = plot(many, variable="a").axes
    assert len(axes.lines) == 3 and axes.get_xlabel() == "time [h]"
    for line, values in zip(axes.lines, many.a.transpose("trajectory", "time").values, strict=True):
        np.testing.assert_allclose(line.get_xdata(), 1.5 * np.arange(30))
        np.testing.assert_allclose(line.get_ydata(), values)


def test_what_has_no_time_is_no_line():
    """Not even where another variable has one."""
    data = state().assign(k=((), 1.0))
    with pytest.raises(DataError, match=r"found \['k'\], expected a variable with a time dimension"):
        plot(data, variable="k")


def test_layers_and_a_truth_without_time(tmp_path: Path):
    """The first layer is drawn, wherever its dimension stands; a truth without time is not."""
    both = xr.concat([state(), state() + 10], "layer")
    many = xr.concat([both, both + 1], "member")
    seen = both.isel(time=slice(0, 30, 10)).assign(a_error=("layer", [0.1, 0.2]))
    truth = both.assign(b=((), 1.0))
    first, second, _ = plot(many, truth=truth, observations=seen).axes
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    np.testing.assert_allclose(lines["truth"], state().a)
    np.testing.assert_allclose(lines["mean"], state().a + 0.5)
    np.testing.assert_allclose(first.containers[0].lines[0].get_ydata(), state().a[::10])
    assert "truth" not in [line.get_label() for line in second.lines]
    alone = plot(both, truth=state().mean("time"), variable="a").axes[0]
    np.testing.assert_allclose(alone.lines[0].get_ydata(), state().a)


def test_only_the_trajectories_drawn_are_read():
    def refuse(block: np.ndarray, block_info: dict) -> np.ndarray:
        assert block_info[None]["chunk-location"][0] != 64, "a trajectory that is not shown was read"
        return block

    many = xr.DataArray(np.zeros((130, 5)), {"time": np.arange(5.0)}, ("trajectory", "time"), "a").to_dataset()
    lazy = many.chunk(trajectory=1)
    lazy["a"] = lazy.a.copy(data=lazy.a.data.map_blocks(refuse, dtype=float))
    assert len(plot(lazy).axes[0].lines) == 64
