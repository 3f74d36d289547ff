"""Figures: truth, observation, members, mean and spread side by side.

States with two space dimensions are drawn as rows of fields over time, as maps where the dimensions are latitude and
longitude. States with one are drawn as Hovmöller diagrams (time against space), states without space as lines. A figure
belongs to the caller: pyplot is not imported and no backend is chosen.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from sdaxr.archives.paths import Location, located
from sdaxr.archives.stores import written_to
from sdaxr.observations.places import OBS
from sdaxr.plotting import flags, maps, points
from sdaxr.plotting.calibration import draw_calibration, is_calibration
from sdaxr.plotting.panels import (
    Panel,
    Quantity,
    choose_variable,
    laid_out,
    make_panels,
    plane_axes,
    point_coordinates,
    positions,
)
from sdaxr.plotting.parameters import draw_parameter, is_parameter
from sdaxr.schema import DataError, OptionError, check_least
from sdaxr.states.axes import space_dimensions
from sdaxr.states.inputs import as_dataset
from sdaxr.verification.alignment import valid_times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Extent = tuple[float, float, float, float]
_DOT = 14.0  # area of a point, in squares of 1/72 inch
_CHARACTER = 0.075  # width of a character of a colour bar's label, in inches


def plot(
    data: xr.Dataset,
    *,
    truth: xr.Dataset | None = None,
    observations: xr.Dataset | None = None,
    variable: str | None = None,
    times: int | Sequence[Any] = 4,
    members: int = 2,
    path: str | PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Figure:
    """Draw ``data`` beside the truth and the observations.

    Parameters
    ----------
    data
        A posterior ``(member, time, ...)``, a forecast, trajectories, observations or a single field. Measurements in
        point form are drawn at the nearest of the times shown, flags (CF ``flag_meanings``) as categories. A result of
        `sdaxr.calibrate` is drawn alone: ranks, coverage and p values.
    truth, observations
        Drawn above ``data``, at the same times.
    variable
        Name of a variable, or ``"vorticity"`` where ``data`` has a velocity on a grid of two dimensions. Default: the
        vorticity of such a velocity; else the first variable; all variables for states without space. Of a parameter,
        which has neither time nor space, the distribution of the members is drawn.
    times
        Number of times, spread evenly and moved to the nearest observed ones, or a list of times. Lines and Hovmöller
        diagrams show all times.
    members
        Number of members (or trajectories) that are drawn. Lines show all of them, 64 at most.
    path
        Path or URL to which the figure is saved; its ending is the format.
    storage_options
        Options of the file system of ``path`` (fsspec).

    Returns
    -------
    matplotlib.figure.Figure
        The figure. A notebook displays it where it is the last value of a cell.

    Raises
    ------
    DataError
        If ``data`` does not have the variable, has no time, or has more than two space dimensions.
    OptionError
        If matplotlib does not write files with the ending of ``path``.
    """
    target = None if path is None else located(path, storage_options)
    if target is not None:
        _check_ending(target)
    check_least("members", members, 1)
    if isinstance(times, int):
        check_least("times", times, 1)
    figure, _ = draw(data, truth, observations, variable, times, members)
    if target is not None:
        with written_to(target) as file:
            figure.savefig(file, dpi=150)
    return figure


def _check_ending(path: Location) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    endings = sorted(FigureCanvasBase.get_supported_filetypes())
    # Without an ending, matplotlib adds its default, .png.
    if path.suffix and path.suffix[1:].lower() not in endings:
        raise OptionError(f"cannot write a figure to '{path.name}', expected a name that ends in one of {endings}")


class Update:
    """Moves a figure to another of its times."""

    def __init__(self, frames: int, move: Callable[[int], None]) -> None:
        self.frames, self.move = frames, move


def draw(
    data: xr.Dataset,
    truth: xr.Dataset | None,
    observations: xr.Dataset | None,
    variable: str | None,
    times: int | Sequence[Any] | None,
    members: int,
    *,
    animated: bool = False,
) -> tuple[Figure, Update]:
    """The figure, and what moves it to another of its times; the parameters are those of `plot`."""
    data = as_dataset(data, "what is drawn")
    if is_calibration(data) and not animated:
        return draw_calibration(_figure, data, truth, observations, variable), Update(1, lambda _: None)
    truth = None if truth is None else as_dataset(truth, "the truth")
    observations = None if observations is None else as_dataset(observations, "the observations")
    if points.is_point_form(data):
        data = points.at_times(data, points.own_times(data, times))
        times = times if isinstance(times, Sequence) else None
    stamps = valid_times(data)
    if observations is not None and stamps is not None and stamps.ndim == 1 and points.is_point_form(observations):
        observations = points.at_times(observations, stamps, reach=0.5)
    name = choose_variable(data, variable)
    if is_parameter(data, name) and not animated:
        return draw_parameter(_figure, data, truth, observations, name), Update(1, lambda _: None)
    source = data[name] if name in data.data_vars else data[next(iter(data.data_vars))]
    space = space_dimensions(source)
    if len(space) > 2:
        raise DataError(f"'{name}' has the space dimensions {space}, expected at most two; select one of them")
    if not space:
        from sdaxr.plotting.lines import draw_lines

        names = [name] if variable is not None else None
        figure, move, frames = draw_lines(_figure, data, truth, observations, names)
        return figure, Update(frames, move)
    one_dimensional = len(space) == 1 and len(point_coordinates(source)) < 2
    shown = None if one_dimensional else times
    panels, labels = make_panels(
        data, truth=truth, observations=observations, variable=name, members=members, times=shown
    )
    if one_dimensional:
        from sdaxr.plotting.lines import draw_hovmoeller

        figure, move, frames = draw_hovmoeller(_figure, panels, scales(panels), _colour_bars)
        return figure, Update(frames, move)
    return _draw_fields(panels, labels, animated)


def _draw_fields(panels: list[Panel], labels: list[str], animated: bool) -> tuple[Figure, Update]:
    rows, columns = (1, len(panels)) if animated else (len(panels), len(labels))
    extent = _extent(panels)
    width, height = extent[1] - extent[0], extent[3] - extent[2]
    panel_width = 2.1
    panel_height = panel_width * float(np.clip(height / width, 0.4, 1.6))
    figure = _figure(panel_width * columns + 1.3, panel_height * rows + (1.5 if animated else 0.4), "compressed")
    look = scales(panels)
    artists: list[Callable[[int], None]] = []
    bars: dict[Quantity, tuple[Any, list[Any]]] = {}
    for row, panel in enumerate(panels):
        for column in range(1 if animated else columns):
            position = row if animated else row * columns + column
            axes, drawn, move = _draw_field(
                figure, (rows, columns, position + 1), panel, column, look[panel.quantity], extent
            )
            artists.append(move)
            bars.setdefault(panel.quantity, (drawn, []))[1].append(axes)
            if animated:
                axes.set_title(panel.label, fontsize=10)
            elif row == 0:
                axes.set_title(labels[column], fontsize=10)
            if column == 0 and not animated:
                axes.set_ylabel(panel.label, fontsize=10)
                axes.yaxis.set_visible(True)  # cartopy hides the axes of maps, and the label with them
    _colour_bars(figure, bars, look, horizontal=animated)

    def move_all(frame: int) -> None:
        figure.suptitle(labels[frame], fontsize=11)
        for artist in artists:
            artist(frame)

    if animated:
        move_all(0)
    return figure, Update(len(labels), move_all)


def _draw_field(
    figure: Figure,
    place: tuple[int, int, int],
    panel: Panel,
    index: int,
    look: dict[str, Any],
    extent: _Extent,
) -> tuple[Any, Any, Callable[[int], None]]:
    field = panel.field
    y, x = plane_axes(field)
    geographic = maps.is_map(field, y, x)
    axes: Any = figure.add_subplot(*place, projection=maps.projection(extent) if geographic else None)
    extra = {"transform": maps.decorate(axes, extent)} if geographic else {}
    style = {k: v for k, v in look.items() if k != "extend"}
    limits = {y: np.array(extent[2:]), x: np.array(extent[:2])}
    if panel.is_points:
        values = field.transpose("time", ...).values
        ys, xs = (positions(field, name, limits[name]) for name in (y, x))
    else:
        field = laid_out(laid_out(field, y, limits[y]), x, limits[x]).transpose("time", y, x)
        values, ys, xs = field.values, field[y].values, field[x].values
    axes.set_facecolor("0.93")
    if panel.is_points:
        drawn = axes.scatter(xs, ys, c=values[index], s=_DOT, edgecolors="0.2", linewidths=0.3, **style, **extra)
    else:
        drawn = axes.pcolormesh(
            xs, ys, np.ma.masked_invalid(values[index]), shading="nearest", rasterized=True, **style, **extra
        )
    if not geographic:
        ratio = (extent[3] - extent[2]) / (extent[1] - extent[0])
        axes.set_aspect("equal" if 0.3 < ratio < 3 else "auto")
        axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.set_xticks([])
    axes.set_yticks([])
    absent = axes.text(0.5, 0.5, "none", color="0.45", ha="center", va="center", fontsize=9, transform=axes.transAxes)

    def move(frame: int) -> None:
        drawn.set_array(np.ma.masked_invalid(values[frame]))
        if OBS in field.dims:  # A station without data is an empty circle; a measurement is at its own time only.
            drawn.set_sizes(np.where(np.isfinite(values[frame]), _DOT, 0.0))
        absent.set_visible(not np.isfinite(values[frame]).any())

    move(index)
    return axes, drawn, move


def scales(panels: Sequence[Panel]) -> dict[Quantity, dict[str, Any]]:
    """Colour map and limits of each quantity, from the truth where there is one.

    Colours diverge from zero where both signs occur, and the smaller extreme is a fifth of the larger one or more.
    """
    found: dict[Quantity, dict[str, Any]] = {}
    for quantity in {p.quantity: None for p in panels}:
        alike = [p for p in panels if p.quantity == quantity]
        if quantity.flags:
            found[quantity] = flags.scale(quantity.flags)
            continue
        reference = [p for p in alike if p.label == "truth"] or alike
        values = np.concatenate([p.field.values[np.isfinite(p.field.values)] for p in reference])
        values = values if values.size else np.zeros(1)
        # One value in a hundred is beyond the limits, so that a few extremes do not set the scale.
        low, high = (float(v) for v in np.quantile(values, (0.005, 0.995)))
        largest = max(abs(low), abs(high)) or 1.0
        if quantity.spread:
            found[quantity] = {"cmap": "magma", "vmin": 0.0, "vmax": largest, "extend": "max"}
        elif low < 0 < high and min(-low, high) > 0.2 * largest:
            found[quantity] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest, "extend": "both"}
        else:
            high = high if high > low else low + 1
            found[quantity] = {"cmap": "viridis", "vmin": low, "vmax": high, "extend": "both"}
    return found


def _colour_bars(
    figure: Figure,
    bars: dict[Quantity, tuple[Any, list[Any]]],
    look: dict[Quantity, dict[str, Any]],
    horizontal: bool = False,
) -> None:
    for quantity, (drawn, axes) in bars.items():
        lines = len({(a.get_subplotspec().colspan if horizontal else a.get_subplotspec().rowspan).start for a in axes})
        bar = figure.colorbar(
            drawn,
            ax=axes,
            extend=look[quantity]["extend"],
            orientation="horizontal" if horizontal else "vertical",
            fraction=0.09 if horizontal else 0.06,
            aspect=(12 if horizontal else 14) * lines,
            pad=0.03,
            extendfrac=0.08 / lines,
        )
        if quantity.flags:
            bar.set_ticks(range(len(quantity.flags)), labels=quantity.flags)
        # In lines that are no longer than the bar, which is about as long as the panels beside it.
        grid = axes[0].get_subplotspec().get_gridspec()
        side = figure.get_size_inches()[0 if horizontal else 1] * lines / (grid.ncols if horizontal else grid.nrows)
        label = textwrap.fill(quantity.label, max(1, int(side / _CHARACTER)), break_long_words=False)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)


def _extent(panels: Sequence[Panel]) -> _Extent:
    """Left, right, bottom and top of the grid of the state, or of the observations where there is no other field."""
    field = min(panels, key=lambda p: (p.is_points, p.label == "observation")).field
    y, x = plane_axes(field)
    edges: list[float] = []
    for axis in (x, y):
        values = positions(field, axis)
        # A single place has no extent.
        margin = (0.05 * np.ptp(values) or 1.0) if y not in field.dims else 0.5 * abs(np.diff(values).mean())
        edges += [float(values.min() - margin), float(values.max() + margin)]
    return edges[0], edges[1], edges[2], edges[3]


def _figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    from matplotlib.figure import Figure

    class _NotebookFigure(Figure):
        # A notebook learns from pyplot how to display a Figure, and pyplot is not imported.
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    return _NotebookFigure(figsize=(width, height), layout=layout)
