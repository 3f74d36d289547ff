"""Which observations belong to the windows of a cycle."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.inference.place import Place
from sdaxr.inference.windows import joined, within
from sdaxr.observations.screening import Screening
from sdaxr.schema import OptionError


@pytest.mark.parametrize(
    ("options", "number", "beyond"),
    [
        # The window of January and February goes to the end of February, and then needs March, too.
        ({}, [0, 1, 2], True),
        ({"time": "nearest", "tolerance": "16D"}, [0, 1], False),
    ],
)
def test_a_window_of_months_ends_with_a_month(options: dict, number: list[int], beyond: bool):
    axis = xr.DataArray(xr.date_range("1999-01-01", periods=12, freq="MS"), dims="time", name="time")
    days = np.array(["1999-01-31T23", "1999-02-10", "1999-02-28T23", "1999-03-01", "1999-05-01"], "M8[ns]")
    data = xr.Dataset({"a": ("obs", np.zeros(5), {"units": "K"}), "a_error": 0.4}, {"time": ("obs", days)})
    found, end = within("o", data, axis, (0, 2), Screening(**options))
    assert found is not None and found.time.values.tolist() == days[number].tolist() and end == 2 + beyond
    later, end = within("o", data, axis, (2, 4), Screening(**options))
    assert later is not None and later.sizes["obs"] == 4 - len(number) and end == 4
    assert within("o", data, axis, (6, 8), Screening(**options)) == (None, 8)


def test_a_network_without_times_cannot_be_split() -> None:
    axis = xr.DataArray(np.arange(4.0), dims="time", name="time")
    data = xr.Dataset({"a": ("site", np.zeros(5), {"units": "K"}), "a_error": 0.4})
    with pytest.raises(OptionError, match="the network 'o' has no times of its own"):
        within("o", data, axis, (0, 2), Screening())


def test_what_differs_between_windows_is_told_of_all() -> None:
    common = {
        "seed": 1,
        "networks": ["o"],
        "mode_test": "0 of 8 members without weight",
        "evaluations_per_member": 10.0,
    }
    again = common | {"mixing_sampler": "twisted", "effective_members": 5.0, "evaluations_per_member": 30.0}
    parts = [
        xr.Dataset({"a": ("time", [0.0])}, {"time": [float(i)]}, attrs)
        for i, attrs in enumerate((again, common, common, again))
    ]
    found = joined(parts, ["o"], {"about": 1}, Place(None, None, False, {})).attrs
    assert found["windows_mixed"] == 2 and found["evaluations_per_member"] == 20.0 and found["about"] == 1
    assert not {"mode_test", "mixing_sampler", "effective_members"} & set(found)
