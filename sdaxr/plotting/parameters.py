"""Parameters of a system: the distribution of the members, beside the truth and an observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import xarray as xr

from sdaxr.states.axes import ensemble_dimension
from sdaxr.verification.alignment import single

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def is_parameter(data: xr.Dataset, name: str) -> bool:
    """Whether the variable ``name`` has one value for each member or trajectory, and no other dimension."""
    return name in data.data_vars and data[name].dims == (ensemble_dimension(data),)


def draw_parameter(
    new_figure: Callable[[float, float], Figure],
    data: xr.Dataset,
    truth: xr.Dataset | None,
    observations: xr.Dataset | None,
    name: str,
) -> Figure:
    """A histogram of the members with each of them as a tick, their mean, the truth, and an observation with its error.

    Parameters
    ----------
    new_figure
        Function of width and height in inches.
    data, truth, observations, name
        As of `sdaxr.plot`; the parameter is ``name``.
    """
    values, figure = data[name].values.astype(float), new_figure(5.0, 3.4)
    axes = figure.subplots()
    # The number of bins of Freedman and Diaconis, which numpy knows; of a few members at least some.
    axes.hist(values, bins="auto", color="C0", alpha=0.5, label="members")
    axes.plot(values, [0.0] * values.size, "|", color="C0", ms=10, clip_on=False)
    axes.axvline(values.mean(), color="C0", lw=1.8, label="mean")
    if truth is not None and name in truth:
        known = single(truth)[name]
        if not known.dims:
            axes.axvline(float(known), color="black", lw=1.3, label="truth")
    if observations is not None and name in observations and not observations[name].dims:
        _observed(axes, observations, name)
    units = str(data[name].attrs.get("units", "1"))
    axes.set(xlabel=name if units in ("", "1") else f"{name} [{units}]", ylabel="members")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _observed(axes: Axes, observations: xr.Dataset, name: str) -> None:
    value = float(observations[name])
    axes.axvline(value, color="C3", lw=1.3, label="observation")
    if f"{name}_error" in observations:
        error = float(observations[f"{name}_error"])
        axes.axvspan(value - error, value + error, color="C3", alpha=0.15, lw=0)
