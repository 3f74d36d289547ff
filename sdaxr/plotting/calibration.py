"""The figure of a calibration: distribution functions of the ranks, coverage, and p values, with their bands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr.schema import DataError
from sdaxr.verification.verdict import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RIGHT = ("calibrated", "too few truths")
_LABELLED = 30  # quantities whose names are still legible


def is_calibration(data: xr.Dataset) -> bool:
    """Whether ``data`` is a result of `sdaxr.calibrate`."""
    return data.attrs.get("sdaxr_kind") == "calibration"


def draw_calibration(new_figure: Callable[[float, float], Figure], data: xr.Dataset, *beside: Any) -> Figure:
    """Three panels: the ranks of each quantity, the coverage of all values, and the p values.

    Raises
    ------
    DataError
        If no posterior could be drawn, so that there are no ranks; or if something else is to be drawn beside.
    """
    if any(given is not None for given in beside):
        raise DataError(
            "found truth=, observations= or variable= beside a calibration, which is drawn alone; leave it out"
        )
    if "ecdf_band" not in data:
        raise DataError(f"the calibration has no ranks to draw ({data.attrs.get('verdict')}), expected some")
    figure = new_figure(13.0, max(4.2, 1.2 + 0.2 * min(data.sizes["quantity"], _LABELLED)))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    _draw_ranks(left, data)
    _draw_coverage(middle, data)
    _draw_p_values(right, data)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    about = f"{data.attrs['title']}: {data.attrs['truths']} truths, {data.attrs['members']} members"
    figure.suptitle(f"{about}\n{data.attrs['verdict']}", fontsize=11)
    return figure


def colours(data: xr.Dataset) -> list[str]:
    """A colour for each quantity: grey, and red where the ranks are not uniform."""
    return ["0.45" if str(word) in _RIGHT else "C3" for word in data["verdict"].values]


def _draw_ranks(axes: Axes, data: xr.Dataset) -> None:
    z = data["fraction"].values
    low, high = data["ecdf_band"].values - z
    axes.fill_between(z, low, high, color="C0", alpha=0.2, lw=0, label=f"{1 - ALPHA:.0%} band of one quantity")
    for line, colour in zip(data["ecdf"].values - z, colours(data), strict=True):
        axes.plot(z, line, color=colour, lw=1.2 if colour == "C3" else 0.7)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="fraction of the ranks", ylabel="share of the truths - fraction", title="ranks of each quantity")
    axes.legend(frameon=False, fontsize=8, loc="lower center")


def _draw_coverage(axes: Axes, data: xr.Dataset) -> None:
    levels = data["level"].values
    low, high = data["coverage_band"].values - levels
    axes.fill_between(levels, low, high, color="C0", alpha=0.2, lw=0, label=f"{1 - ALPHA:.0%} band of one quantity")
    for n, name in enumerate(data["variable"].values):
        mean = data["state_coverage"].values[n]
        bars = np.abs(data["state_coverage_interval"].values[:, n] - mean)
        axes.errorbar(levels, mean - levels, yerr=bars, fmt="o-", ms=3, lw=1, capsize=2, label=f"all values of {name}")
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="nominal level", ylabel="coverage - nominal level", title="coverage of central intervals")
    axes.legend(frameon=False, fontsize=8, loc="lower center")


def _draw_p_values(axes: Axes, data: xr.Dataset) -> None:
    order = np.argsort(-data["p_value"].values, kind="stable")[-_LABELLED:]
    shades, places = colours(data), np.arange(len(order))
    axes.barh(places, data["p_value"].values[order], color=[shades[n] for n in order], height=0.6)
    axes.set_yticks(places, labels=[str(name) for name in data["quantity"].values[order]], fontsize=7)
    axes.axvline(ALPHA, color="black", lw=0.8, ls=":")
    axes.set(xscale="log", xlim=(5e-5, 1), xlabel="p value", title="uniformity of the ranks")
