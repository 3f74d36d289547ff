"""Windows: which stretches of the data are drawn, from memory and from disk, and how they are split and cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_training import autoregressive

from sdaxr.prior.windows import Windows, cut, split
from sdaxr.schema import DataError, OptionError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout


def test_windows_are_stretches_of_one_trajectory() -> None:
    """Values say where they come from: trajectory * 1000 + time."""
    data, layout = numbered(5, 30)
    windows = Windows(data, layout, 7, seed=0)
    assert not windows.streams
    states, context = windows.batch(3, 50)
    assert states.shape == (50, 7, 1) and context.shape == (1, 7, 1)
    assert_stretches(layout, states)
    again, _ = Windows(data, layout, 7, seed=0).batch(3, 50)
    np.testing.assert_array_equal(states, again)
    assert not np.array_equal(states, windows.batch(4, 50)[0])


def test_streamed_windows_are_valid_and_cover_everything() -> None:
    data, layout = numbered(6, 40)
    windows = Windows(data, layout, 7, seed=0, memory=4 * 16 * 8, batch=32)
    assert windows.streams
    seen = [windows.batch(n, 32)[0] for n in range(560)]
    assert_stretches(layout, np.concatenate(seen))
    firsts = {round(float(s)) for batch in seen for s in physical(layout, batch)[:, 0]}
    assert firsts == {1000 * i + t for i in range(6) for t in range(34)}  # every window of every trajectory
    again = Windows(data, layout, 7, seed=0, memory=4 * 16 * 8, batch=32)
    for number in (100, 9, 559, 0):  # as of runs that go on from a checkpoint
        np.testing.assert_array_equal(again.batch(number, 32)[0], seen[number])


def test_streamed_windows_do_not_depend_on_what_is_lazy() -> None:
    data, layout = numbered(6, 40)
    stored = data.chunk(trajectory=2, time=10)
    lazy, held = (Windows(each, layout, 7, seed=0, memory=4 * 16 * 8, batch=32) for each in (stored, data))
    held.blocks._blocks = lazy.blocks._blocks
    for number in (0, 9, 40):
        np.testing.assert_array_equal(lazy.batch(number, 32)[0], held.batch(number, 32)[0])


@pytest.mark.parametrize("cycles", [(), ("hour_of_day",)])
def test_streaming_holds_no_more_than_it_may(cycles: tuple[str, ...]) -> None:
    data, _ = numbered(20, 64)
    data = data.assign_coords(time=np.datetime64("2019-01-01", "ns") + np.arange(64) * np.timedelta64(1, "h"))
    memory = 4 * 64 * 16
    windows = Windows(data, infer_layout(data, cycles=cycles), 7, seed=0, memory=memory, batch=4)
    _, context = windows.batch(0, 4)
    assert windows.streams and context.shape == ((4, 7, 3) if cycles else (1, 7, 1))
    held = windows._buffer.at(0)
    assert (held.context is not None) == bool(cycles)
    taken = held.states.nbytes + (held.context.nbytes if held.context is not None else 0)
    assert memory / 2 < taken <= 3 / 4 * memory


@pytest.mark.parametrize("shared", [True, False])
def test_windows_in_pieces(shared: bool) -> None:
    """Pieces follow each other in their window and keep their context; a rest is left out."""
    states = torch.arange(2 * 11 * 3).reshape(2, 11, 3)
    context = torch.ones((1, 11, 1)) if shared else torch.arange(22).reshape(2, 11, 1)
    parts, beside = cut(states, context, 2)
    assert parts.shape == (4, 5, 3) and beside.shape == (1 if shared else 4, 5, 1)
    for piece, (window, first) in enumerate([(0, 0), (0, 5), (1, 0), (1, 5)]):
        np.testing.assert_array_equal(parts[piece], states[window, first : first + 5])
        np.testing.assert_array_equal(
            beside[0 if shared else piece], context[0 if shared else window, first : first + 5]
        )


@pytest.mark.parametrize(("states", "least", "training"), [(100, 5, 90), (100, 30, 70), (20, 5, 15), (10, 5, 5)])
def test_without_a_split_the_end_of_the_series_validates(states: int, least: int, training: int) -> None:
    """A tenth of the times, and at least one window."""
    data, _ = numbered(2, states)
    first, last = split(data, least)
    assert (first.sizes["time"], last.sizes["time"]) == (training, states - training)
    xr.testing.assert_identical(xr.concat([first, last], "time"), data)


@pytest.mark.parametrize("memory", [4e9, 4 * 16 * 8])
def test_no_window_crosses_a_gap(memory: float, caplog: pytest.LogCaptureFixture) -> None:
    data, _ = numbered(3, 60)
    kept = data.isel(time=[*range(20), *range(24, 45), *range(50, 60)])
    layout = infer_layout(kept)
    windows = Windows(kept, layout, 7, seed=0, memory=memory, batch=32)
    seen = [windows.batch(n, 32)[0] for n in range(560)]
    assert_stretches(layout, np.concatenate(seen))
    firsts = {round(float(s)) % 1000 for batch in seen for s in physical(layout, batch)[:, 0]}
    assert firsts == {*range(14), *range(24, 39), *range(50, 54)}
    _, last = split(kept, 12)
    assert "the times have 2 gaps, which no window crosses; 1 of 3 stretches are shorter than 12 states" in caplog.text
    np.testing.assert_array_equal(last.time, [*range(33, 45), *range(50, 60)])
    Windows(last, layout, 12, seed=0)
    with pytest.raises(DataError, match="found 21 states a trajectory, expected at least the window of 22 without a"):
        Windows(kept, layout, 22, seed=0)


def test_a_split_decides_which_trajectories_validate(caplog: pytest.LogCaptureFixture) -> None:
    data = autoregressive(5, 12)
    first, last = split(data, 5)
    xr.testing.assert_identical(first, data.isel(trajectory=slice(3)))
    xr.testing.assert_identical(last, data.isel(trajectory=[3]))
    assert not caplog.records
    alone = data.assign_coords(split=("trajectory", ["train"] * 5))
    xr.testing.assert_identical(split(alone, 5)[1], alone)
    assert "no 'trajectory' has the split 'valid': the training data validate" in caplog.text
    with pytest.raises(DataError, match="expected some 'train'"):
        split(data.assign_coords(split=("trajectory", ["test"] * 5)), 5)


def test_too_few_states_for_a_window() -> None:
    data, layout = numbered(2, 4)
    with pytest.raises(DataError, match="found 4 times, expected at least 6: a window of 3 to train on, and one to"):
        split(data, 3)
    with pytest.raises(DataError, match="found 4 states a trajectory, expected at least the window of 5"):
        Windows(data, layout, 5, seed=0)


def test_windows_are_shifted_along_homogeneous_dimensions() -> None:
    """Of a ring of six points, all six shifts are drawn, and no other change is."""
    values = np.random.default_rng(0).normal(size=(5, 6))
    x = ("x", np.arange(6.0), {"period": 6.0})
    data = xr.Dataset({"a": (("time", "x"), values, {"units": "m"})}, {"time": np.arange(5.0), "x": x})
    layout = infer_layout(data)
    states, _ = Windows(data, layout, 5, seed=0, homogeneous=["x"]).batch(0, 200)
    shifts = np.stack([np.roll(layout.to_array(data), shift, -1) for shift in range(6)])
    distance = np.abs(states[:, None].numpy() - shifts).max((2, 3, 4))
    assert (distance.min(1) < 1e-6).all() and set(distance.argmin(1)) == set(range(6))


@pytest.mark.parametrize(("dim", "message"), [("y", "'y'; expected one of x"), ("x", "it has to be periodic")])
def test_what_is_not_homogeneous(dim: str, message: str) -> None:
    states = (("time", "x"), np.random.default_rng(0).normal(size=(5, 6)), {"units": "m"})
    data = xr.Dataset({"a": states}, {"time": np.arange(5.0)})
    with pytest.raises(OptionError, match=message):
        Windows(data, infer_layout(data), 3, seed=0, homogeneous=[dim])


@pytest.mark.parametrize(
    ("options", "land", "message"),
    [
        ({"context": ["h"]}, False, "the context field 'h' varies along 'x'"),
        ({"normalise": "point"}, False, "the mean of the states varies along 'x'"),
        ({}, True, "the land mask varies along 'x'"),
    ],
)
def test_what_would_stay_where_it_is_does_not_vary(options: dict[str, Any], land: bool, message: str) -> None:
    """Only the states are rolled; what is the same all along the dimension may stay."""
    y, x = ("y", np.arange(4.0)), ("x", np.arange(6.0), {"period": 6.0})
    states = (("time", "y", "x"), np.random.default_rng(0).normal(size=(5, 4, 6)), {"units": "m"})
    fields = {"a": states, "h": (("y", "x"), np.ones((4, 1)) * np.arange(6.0))}
    data = xr.Dataset(fields, {"time": np.arange(5.0), "y": y, "x": x})
    coast = data.assign(a=data.a.where(data.x > 3)) if land else data
    layout = infer_layout(coast, variables=["a"], **options)
    with pytest.raises(OptionError, match=message):
        Windows(coast, layout, 3, seed=0, homogeneous=["x"])
    channel = data.assign(a=data.a.where(data.y > 0), h=data.h * 0 + data.y)
    layout = infer_layout(channel, variables=["a"], context=["h"])
    assert (Windows(channel, layout, 3, seed=0, homogeneous=["x"]).batch(0, 4)[0][:, :, :, 0] == 0).all()


def test_the_sample_is_as_many_batches_as_are_quick_to_read() -> None:
    data, layout = numbered(5, 30)
    windows = Windows(data, layout, 7, seed=0)
    sample = list(windows.sample(1))
    assert len(sample) == 64
    for number in (0, 63):
        np.testing.assert_array_equal(sample[number], windows.batch(number, 16)[0])


def test_the_reference_is_as_the_file_holds_it() -> None:
    data, layout = numbered(5, 30)
    states, context = Windows(data, layout, 7, seed=0).reference()
    assert states.shape == (256, 7, 1) and context.shape == (1, 7, 1) and states.dtype == np.float32
    np.testing.assert_array_equal(states, states.astype(np.float16).astype(np.float32))


def numbered(number: int, steps: int) -> tuple[xr.Dataset, StateLayout]:
    values = 1000.0 * np.arange(number)[:, None] + np.arange(steps)
    data = xr.Dataset({"a": (("trajectory", "time"), values, {"units": "m"})}, {"time": np.arange(float(steps))})
    return data, infer_layout(data)


def physical(layout: StateLayout, states: np.ndarray) -> np.ndarray:
    return states[..., 0] * layout.std.item() + layout.mean.item()


def assert_stretches(layout: StateLayout, states: np.ndarray) -> None:
    np.testing.assert_allclose(np.diff(physical(layout, states), axis=1), 1, atol=1e-2)
