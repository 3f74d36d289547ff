"""What is said about a Dataset."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.description import describe


@pytest.mark.parametrize(
    ("part", "space"),
    [
        ({}, "y 8 (periodic), x 8 (periodic)"),
        ({"x": slice(0, 4)}, "y 8 (periodic), x 4"),
        ({"x": slice(0, 7), "y": [0]}, "y 1, x 7"),
        ({"x": slice(0, None, 2)}, "y 8 (periodic), x 4 (periodic)"),
    ],
)
def test_a_cut_of_a_periodic_domain_is_not_called_periodic(
    trajectories: xr.Dataset, part: dict[str, slice], space: str
) -> None:
    assert describe(trajectories.isel(part))["space"] == space


def test_longitudes_are_called_periodic_around_the_globe() -> None:
    lon = np.arange(0.0, 360.0, 90.0)
    data = xr.Dataset({"t": (("time", "lon"), np.zeros((2, 4)))}, {"time": [0.0, 1.0], "lon": lon})
    assert describe(data)["space"] == "lon 4 (periodic)"
    assert describe(data.isel(lon=slice(0, 3)))["space"] == "lon 3"
