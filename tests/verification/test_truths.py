"""Where truths come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from chains import truth_of

from sdaxr.schema import DataError, OptionError
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.verification.truths import Simulated, Windows, truths_of


def archive(trajectories: int = 10, states: int = 20) -> xr.Dataset:
    """Trajectories whose values say where they are from; the last three are of the test split."""
    values = 100.0 * np.arange(trajectories)[:, None] + np.arange(states)
    split = ("trajectory", np.array(["train"] * (trajectories - 3) + ["test"] * 3, object))
    coords = {"time": ("time", 0.1 * np.arange(states)), "split": split, "trajectory": np.arange(trajectories)}
    return xr.Dataset({"x": (("trajectory", "time"), values)}, coords)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 9])
def test_windows_are_of_the_test_split_and_do_not_overlap(count: int) -> None:
    windows = Windows.of(archive(), count, 6, None)
    drawn = [windows.draw(n, 0) for n in range(count)]
    values = np.concatenate([each.x.values for each in drawn])
    assert len(set(values)) == 6 * count and values.min() >= 700
    # Every trajectory gives a first window before any gives a second one.
    assert len({int(each.x[0]) // 100 for each in drawn}) == min(count, 3)
    np.testing.assert_allclose(drawn[-1].time, 0.1 * (drawn[-1].x.values % 100))
    assert set(drawn[0].coords) == {"time"} and json.loads(windows.describe())["steps"] == 6


def test_a_series_and_trajectories_without_a_split_are_used_as_a_whole() -> None:
    assert Windows.of(archive().isel(trajectory=4), 3, 6, None).draw(2, 0).x.values[-1] == 419
    assert len(Windows.of(archive().drop_vars("split"), 10, None, None).places) == 10
    # The window of the prior, but not more than there is.
    assert Windows.of(archive(), 3, None, 8).steps == 8 and Windows.of(archive(), 3, None, 256).steps == 20


def test_draws_of_a_system_are_its_trajectories() -> None:
    found = Simulated(Lorenz63(), 5).draw(3, 77)
    xr.testing.assert_identical(found, truth_of(Lorenz63(), 5, 77))


def test_too_few_windows_are_counted() -> None:
    with pytest.raises(
        DataError, match="found 9 windows of 6 states in 3 trajectories of the test split .*expected 10"
    ):
        Windows.of(archive(), 10, 6, None)
    with pytest.raises(DataError, match="expected 'time' with a coordinate"):
        Windows.of(archive().drop_vars("time"), 1, 6, None)


@pytest.mark.parametrize(
    ("truth", "steps", "message"),
    [
        ("lorens63", 4, "truth='lorens63'.*Did you mean 'lorenz63'"),
        ("prior", 4, "truth='prior' without prior="),
        ("lorenz63", None, "found no steps="),
        ("lorenz63", 0, "steps=0, expected a whole number of at least 1"),
    ],
)
def test_what_is_no_truth_is_refused(truth: str, steps: int | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        truths_of(truth, 4, steps, prior=None, drawn=None)
