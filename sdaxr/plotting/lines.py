"""Diagrams against time: lines for states without space, Hovmöller diagrams for states with one space dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr.plotting.flags import meanings
from sdaxr.plotting.panels import Panel, Quantity, laid_out, positions, top_layer
from sdaxr.schema import TIME, TRAJECTORY, DataError
from sdaxr.states.axes import ensemble_dimension, space_dimensions
from sdaxr.states.time import time_kind
from sdaxr.verification.alignment import single, valid_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Move = Callable[[int], None]
_FAN = 64  # members that are drawn: the eye does not tell more lines apart
_EPOCH = 2000  # cftime: all data of a figure are drawn in days since the first of January of this year


def draw_lines(
    new_figure: Callable[[float, float], Figure],
    data: xr.Dataset,
    truth: xr.Dataset | None,
    observations: xr.Dataset | None,
    variables: Sequence[str] | None,
) -> tuple[Figure, Move, int]:
    """One diagram for each variable: the truth in black, observations with error bars, members and their mean.

    Returns the figure, a function that moves its time marker, and the number of times.
    """
    truth = None if truth is None else single(truth)
    asked = list(variables or map(str, data.data_vars))
    lines = [n for n in asked if not space_dimensions(data[n]) and _timed(data[n])]
    names = [n for n in lines if not n.endswith(("_error", "_qc"))]
    if not names:
        raise DataError(f"found {sorted(asked)}, expected a variable with a time dimension")
    figure = new_figure(8.0, 0.6 + 1.7 * len(names))
    panels = list(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0])
    stamps = _stamps(data)
    for axes, name in zip(panels, names, strict=True):
        _fan(axes, data, name, stamps)
        if truth is not None and name in truth.data_vars and TIME in truth[name].dims:
            line = top_layer(truth[name]).values
            axes.plot(_numbers(truth[TIME]), line, color="black", lw=1.3, label="truth", zorder=4)
        if observations is not None and name in observations and TIME in observations[name].dims:
            _error_bars(axes, observations, name)
        units = str(data[name].attrs.get("units", "1"))
        axes.set_ylabel(name if units in ("", "1") else f"{name} [{units}]")
        known = meanings(data[name])
        if known:
            axes.set_yticks(list(known), labels=list(known.values()))
        axes.spines[["top", "right"]].set_visible(False)
    _time_label(panels[-1].xaxis, panels[-1].set_xlabel, stamps)
    handles, labels = _unique(panels)
    figure.legend(handles, labels, loc="outside upper center", ncols=max(len(labels), 1), frameon=False, fontsize=9)
    return figure, _cursor(panels, _numbers(stamps), horizontal=False), stamps.size


def draw_hovmoeller(
    new_figure: Callable[[float, float], Figure],
    panels: list[Panel],
    look: dict[Quantity, dict[str, Any]],
    colour_bars: Callable[..., None],
) -> tuple[Figure, Move, int]:
    """One Hovmöller diagram for each panel: time upwards, space to the right.

    Returns the figure, a function that moves its time marker, and the number of times.
    """
    figure = new_figure(1.2 + 2.0 * len(panels), 4.4)
    row = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    bars: dict[Quantity, tuple[Any, list[Any]]] = {}
    fields = [_numbered(panel.field) for panel in panels]
    state = min(zip(panels, fields, strict=True), key=lambda pair: pair[0].label == "observation")[1]
    within = positions(state, space_dimensions(state)[0])
    for axes, panel, numbered in zip(row, panels, fields, strict=True):
        (space,) = space_dimensions(numbered)
        field = laid_out(numbered, space, within).transpose(TIME, space)
        style = {k: v for k, v in look[panel.quantity].items() if k != "extend"}
        seen = np.isfinite(field.values).any(axis=1)
        times, values = _numbers(field[TIME]), np.ma.masked_invalid(field.values)
        axes.set_facecolor("0.93")
        drawn = axes.pcolormesh(field[space].values, times, values, shading="nearest", rasterized=True, **style)
        axes.set_title(panel.label if seen.any() else f"{panel.label} (none)", fontsize=10)
        attrs = panel.field[space].attrs
        units = str(attrs.get("units", "1"))
        axes.set_xlabel(str(space) if units in ("", "1") else f"{space} [{units}]")
        bars.setdefault(panel.quantity, (drawn, []))[1].append(axes)
    stamps = panels[0].field[TIME]
    _time_label(row[0].yaxis, row[0].set_ylabel, stamps)
    colour_bars(figure, bars, look, horizontal=True)
    return figure, _cursor(row, _numbers(stamps), horizontal=True), stamps.size


def _numbered(field: xr.DataArray) -> xr.DataArray:
    # Sites with names are drawn one after the other.
    (space,) = space_dimensions(field)
    return field if field[space].dtype.kind in "fiu" else field.assign_coords({space: np.arange(field.sizes[space])})


def _fan(axes: Axes, data: xr.Dataset, name: str, stamps: xr.DataArray) -> None:
    times, values = _numbers(stamps), top_layer(data[name])
    member = ensemble_dimension(data)
    observed = f"{name}_error" in data.variables
    if member is None or member not in values.dims:
        if observed:
            _error_bars(axes, data, name)
        else:
            axes.plot(times, values.values, color="C0", lw=1.3, label="field")
        return
    values = values.transpose(member, ...)
    count = values.sizes[member]
    shown = np.unique(np.linspace(0, count - 1, min(count, _FAN)).astype(int))
    if member == TRAJECTORY:
        for line in values.isel({member: shown}).values:
            axes.plot(times, line, lw=0.8, alpha=0.8)
        return
    fan = values.values
    for line in fan[shown]:
        axes.plot(times, line, color="C0", lw=0.6, alpha=max(0.12, min(0.6, 6 / len(shown))), label="members")
    axes.plot(times, fan.mean(axis=0), color="C0", lw=1.8, label="mean")


def _error_bars(axes: Axes, observations: xr.Dataset, name: str) -> None:
    values = top_layer(observations[name])
    error = observations.get(f"{name}_error")
    bars = None if error is None else np.broadcast_to(top_layer(error).values, values.shape)
    style: dict[str, Any] = {"fmt": "o", "ms": 3.5, "color": "C3", "capsize": 2, "elinewidth": 1, "zorder": 5}
    axes.errorbar(_numbers(_stamps(observations)), values.values, yerr=bars, label="observation", **style)


def _timed(values: xr.DataArray) -> bool:
    return TIME in values.dims or "lead_time" in values.dims


def _stamps(data: xr.Dataset) -> xr.DataArray:
    stamps = valid_times(data)
    if stamps is None or stamps.ndim != 1:
        raise DataError(f"found the dimensions {tuple(map(str, data.dims))}, expected one time dimension to plot")
    return stamps.reset_coords(drop=True)


def _numbers(stamps: xr.DataArray) -> np.ndarray:
    # matplotlib draws datetime64 itself; times of other calendars are drawn as days of their own calendar.
    kind = time_kind(stamps)
    if kind == "timedelta":
        return stamps.values / np.timedelta64(1, "h")
    if kind == "cftime":
        start = {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0}
        epoch = stamps.values[0].replace(year=_EPOCH, **start)
        return np.array([(t - epoch).total_seconds() / 86400 for t in stamps.values])
    return stamps.values


def _time_label(axis: Axis, set_label: Callable[..., Any], stamps: xr.DataArray) -> None:
    kind = time_kind(stamps)
    if kind == "datetime":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=8)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator))
        return
    units = {"timedelta": "h", "cftime": f"days since {_EPOCH}-01-01"}.get(kind, str(stamps.attrs.get("units", "1")))
    set_label("time" if units in ("", "1") else f"time [{units}]")


def _unique(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _cursor(panels: Sequence[Axes], times: np.ndarray, *, horizontal: bool) -> Move:
    lines: list[Any] = []

    def move(frame: int) -> None:
        if not lines:
            lines.extend((a.axhline if horizontal else a.axvline)(times[frame], color="0.2", lw=1) for a in panels)
        for line in lines:
            at = [times[frame]] * 2
            line.set_ydata(at) if horizontal else line.set_xdata(at)

    return move
