"""The figure of a calibration shows the numbers of the calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import sdaxr
from sdaxr import operators as op
from sdaxr.plotting.animate import animate
from sdaxr.plotting.plot import plot
from sdaxr.schema import DataError


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    how = {"error": 0.5, "every": 2, "steps": 6, "truths": 6, "members": 4, "progress": False}
    return sdaxr.calibrate("linear", op.select("x1"), system="linear", method="kalman", **how)


def test_three_panels_show_ranks_coverage_and_p_values(result: xr.Dataset, tmp_path: Path) -> None:
    figure = plot(result, path=tmp_path / "c.png")
    ranks, coverage, p_values = figure.axes
    count = result.sizes["quantity"]
    assert len(ranks.lines) == count + 1 and len(p_values.patches) == count
    shown = ranks.lines[2].get_ydata()
    np.testing.assert_allclose(shown, result["ecdf"].values[2] - result["fraction"].values)
    np.testing.assert_allclose(sorted(bar.get_width() for bar in p_values.patches), sorted(result["p_value"].values))
    means = [bar.lines[0].get_ydata() for bar in coverage.containers]
    np.testing.assert_allclose(means, result["state_coverage"].values - result["level"].values)
    assert figure.get_suptitle().endswith(result.attrs["verdict"])
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 1000


def test_quantities_that_are_not_uniform_are_red(result: xr.Dataset) -> None:
    words = result["verdict"].values.copy()
    words[3] = "too narrow"
    ranks = plot(result.assign_coords(verdict=("quantity", words))).axes[0]
    assert [line.get_color() for line in ranks.lines].count("C3") == 1 and ranks.lines[3].get_color() == "C3"


def test_what_cannot_be_drawn_is_refused(result: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="beside a calibration"):
        plot(result, variable="rank")
    with pytest.raises(DataError, match="no ranks to draw"):
        plot(result.drop_vars("ecdf_band"))
    with pytest.raises(DataError, match="expected one time dimension"):
        animate(result, tmp_path / "c.gif")
