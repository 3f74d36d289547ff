"""The data of a figure: fields of one variable at chosen times, in the order of its panels.

`sdaxr.plot` and `sdaxr.animate` draw the panels.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.plotting import flags
from sdaxr.schema import TIME, TRAJECTORY, DataError, GridError, OperatorError, nearest
from sdaxr.states.axes import ensemble_dimension, is_latitude, is_longitude, layer_dimension, space_dimensions, upright
from sdaxr.states.coordinates import gathered, spacing_of, turn_of, unrolled, wrapped
from sdaxr.states.time import match_times, time_kind
from sdaxr.verification.alignment import single, valid_times
from sdaxr.verification.spectrum import velocity_pair

VORTICITY = "vorticity"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantity:
    """A quantity with a colour scale of its own.

    Attributes
    ----------
    name, units
        Text of the colour bar.
    spread
        Whether it is a spread, whose colours start at zero.
    flags
        What its values 0, 1, ... mean, where they are numbered flags.
    """

    name: str
    units: str
    spread: bool = False
    flags: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Text of the colour bar."""
        return self.name if self.units in ("", "1") else f"{self.name} [{self.units}]"


@dataclass(frozen=True)
class Panel:
    """One row of a figure: a field on ``(time, *space)``, which is NaN at times without data, and its label."""

    label: str
    field: xr.DataArray
    quantity: Quantity

    @property
    def is_points(self) -> bool:
        """Whether the field is given at scattered points, not on a grid."""
        space = space_dimensions(self.field)
        return len(space) == 1 and len(point_coordinates(self.field)) == 2


def choose_variable(data: xr.Dataset, variable: str | None) -> str:
    """The variable that is plotted: ``variable``; by default the vorticity of a velocity, else the first variable.

    Raises
    ------
    DataError
        If ``data`` does not have the variable.
    """
    has_vorticity = plane_velocity(data) is not None
    names = _shown(data)
    if variable is None:
        # What has one value for each member, such as a parameter, is drawn where it is asked for.
        ensemble = ensemble_dimension(data)
        return VORTICITY if has_vorticity else next((n for n in names if set(data[n].dims) - {ensemble}), names[0])
    if variable not in names and not (variable == VORTICITY and has_vorticity):
        raise DataError(f"cannot plot {nearest(variable, [*names, VORTICITY] if has_vorticity else names)}")
    return variable


def plane_velocity(data: xr.Dataset) -> tuple[str, str] | None:
    """Names of the two velocities where `sdaxr.operators.vorticity` applies to them; else None."""
    pair = velocity_pair(data)
    if pair is None or len(space := space_dimensions(data[pair[0]])) != 2:
        return None
    from sdaxr.operators.calculus import vorticity
    from sdaxr.operators.template import Template

    plane = data[list(pair)]
    u, v = map(str, pair)
    try:
        vorticity(u, v).bind(
            Template.from_dataset(_without_poles(plane.isel({d: 0 for d in plane.dims if d not in space})))
        )
    except (OperatorError, GridError):
        return None
    return u, v


def make_panels(
    data: xr.Dataset,
    *,
    truth: xr.Dataset | None,
    observations: xr.Dataset | None,
    variable: str,
    members: int,
    times: int | Sequence[Any] | None,
) -> tuple[list[Panel], list[str]]:
    """Panels from top to bottom, and the labels of their times.

    ``times`` is a number of times, spread evenly and moved to the nearest observed ones; a list of times; or None for
    all times. Only data at these times, in the first layer and of the trajectories shown, are read.
    """
    member = str(ensemble_dimension(data) or "")
    stamps = valid_times(data)
    if stamps is None or stamps.ndim != 1:
        raise DataError(f"found the dimensions {tuple(map(str, data.dims))}, expected one time dimension to plot")
    stamps = stamps.reset_coords(drop=True)
    chosen = _choose_times(stamps, times, observations)
    stamps = stamps[chosen].rename({stamps.dims[0]: TIME}) if stamps.dims[0] != TIME else stamps[chosen]
    data = data.isel({d: chosen for d in data.dims if d in (TIME, "lead_time")})
    if member == TRAJECTORY:  # of members, all are read, for their mean and spread
        data = data.isel({member: slice(members)})
    field = quantity_of(data, variable).load()
    field = field.rename({d: TIME for d in field.dims if d == "lead_time"})
    field, quantity = _categorised(field, variable)
    panels: list[Panel] = []
    if truth is not None:
        there = _at_times(single(truth), stamps, variable)
        panels += [] if there is None else [Panel("truth", _categorised(there, variable)[0], quantity)]
    if observations is not None:
        seen = _observed(observations, stamps, variable, quantity)
        # A panel with a colour bar of its own goes on top: the rows of each colour bar are then neighbours.
        same = all(panel.quantity == quantity for panel in seen)
        panels = panels + seen if same else seen + panels
    if not member:
        name = "observation" if _looks_observed(data) else str(data[_first(data, variable)].attrs.get("title", ""))
        panels.append(Panel(name or "field", field, quantity))
    else:
        shown = range(min(members, field.sizes[member]))
        labels = field[member].values if member in field.coords else np.arange(field.sizes[member])
        panels += [Panel(f"{member} {labels[i]}", field.isel({member: i}, drop=True), quantity) for i in shown]
        if member != TRAJECTORY and field.sizes[member] > 1 and not quantity.flags:
            spread = Quantity(f"spread of {variable}", quantity.units, spread=True)
            panels.append(Panel("mean", field.mean(member), quantity))
            panels.append(Panel("spread", field.std(member, ddof=1), spread))
    return panels, time_labels(stamps)


def quantity_of(data: xr.Dataset, variable: str) -> xr.DataArray:
    """The field ``variable`` of ``data``, in its first layer; vorticity is computed from the velocity."""
    if variable in data.data_vars:
        return top_layer(data[variable])
    pair = plane_velocity(data)
    if variable != VORTICITY or pair is None:
        raise DataError(f"cannot plot {nearest(variable, map(str, data.data_vars))}")
    return _vorticity(xr.Dataset({n: top_layer(data[n]) for n in pair}), *pair)


def top_layer(field: xr.DataArray) -> xr.DataArray:
    """The first layer of ``field``: figures show one."""
    layer = layer_dimension(field)
    return field if layer is None else field.isel({layer: 0}, drop=True)


def plane_axes(field: xr.DataArray) -> tuple[Hashable, Hashable]:
    """Names of the coordinates that are drawn upwards and to the right, of a grid or of scattered points."""
    points = point_coordinates(field)
    space = space_dimensions(field)
    y, x = points or upright(space, {d: field[d].attrs for d in space})
    return y, x


def positions(field: xr.DataArray, name: Hashable, within: np.ndarray | None = None) -> np.ndarray:
    """Where the coordinate ``name`` is drawn, shape (n,): without a jump at the seam of a circle.

    ``within`` are the positions, or limits, of an axis on which the coordinate is counted as there.
    """
    turn = turn_of(name, field[name].attrs)
    if within is not None:
        return wrapped(field[name].values, within, turn)
    values = field[name].values
    return unrolled(values, turn) if name in field.dims else gathered(values, turn)


def laid_out(field: xr.DataArray, dim: Hashable, within: np.ndarray) -> xr.DataArray:
    """``field`` as it is drawn along ``dim``: at rising `positions`; NaN between two parts at both ends of the axis."""
    sites = positions(field, dim, within)
    order = np.argsort(sites)
    field, sites = field.isel({dim: order}).assign_coords({dim: sites[order]}), sites[order]
    step = spacing_of(sites)
    for seam in np.flatnonzero(np.abs(np.diff(order)) > 1):
        low, high = sites[seam], sites[seam + 1]
        # Each part ends half a step beyond its last point, at the edge of an empty cell.
        empty = [low + step, high - step] if high - low > 2.5 * step else [(low + high) / 2]
        if high - low > 1.5 * step:
            field = field.reindex({dim: np.insert(sites, seam + 1, empty)})
    return field


def point_coordinates(field: xr.DataArray) -> list[Hashable]:
    """Names of the y and the x coordinate of scattered points; empty for a grid."""
    space = space_dimensions(field)
    names = [n for n, c in field.coords.items() if c.dims == space and n not in space and c.dtype.kind in "fiu"]
    if len(names) < 2:
        return []
    lat = [n for n in names if is_latitude(n, field[n].attrs) or n == "y"]
    lon = [n for n in names if is_longitude(n, field[n].attrs) or n == "x"]
    return [lat[0], lon[0]] if lat and lon else names[:2]


def time_labels(stamps: xr.DataArray) -> list[str]:
    """One short text for each time."""
    kind = time_kind(stamps)
    if kind == "datetime":
        return [str(t.astype("datetime64[m]")).replace("T", " ") for t in stamps.values]
    if kind == "cftime":
        return [t.strftime("%Y-%m-%d %H:%M") for t in stamps.values]
    if kind == "timedelta":
        return [f"{t / np.timedelta64(1, 'h'):g} h" for t in stamps.values]
    units = str(stamps.attrs.get("units", "1"))
    return [f"t = {float(t):.4g}" + ("" if units in ("", "1") else f" {units}") for t in stamps.values]


def _vorticity(data: xr.Dataset, u: str, v: str) -> xr.DataArray:
    """Vorticity of ``data`` by `sdaxr.operators.vorticity`, NaN at the poles, where it does not exist."""
    from sdaxr.operators.calculus import vorticity

    inner = _without_poles(data[[u, v]])
    field = vorticity(u, v).apply(inner)[VORTICITY]
    return field.reindex({d: data[d] for d in inner.dims if inner.sizes[d] < data.sizes[d]})


def _without_poles(data: xr.Dataset) -> xr.Dataset:
    from sdaxr.operators.calculus import POLE

    latitudes = [d for d in data.dims if d in data.coords and is_latitude(d, data[d].attrs)]
    return data.isel({d: np.flatnonzero(np.abs(data[d].values) <= POLE) for d in latitudes})


def _choose_times(
    stamps: xr.DataArray, times: int | Sequence[Any] | None, observations: xr.Dataset | None
) -> np.ndarray:
    if times is None:
        return np.arange(stamps.size)
    if not isinstance(times, int | np.integer):
        try:
            wanted = xr.DataArray(np.asarray(times, dtype=stamps.dtype), dims=TIME, name=TIME)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"found times={times!r}, expected a number of times, or some of those of the data"
            ) from error
        found = match_times(wanted, stamps, of="times=", like="the data")
        if (found < 0).any():
            raise DataError(
                f"found no data at the time {wanted.values[found < 0][0]}, expected times "
                f"from {stamps.values[0]} to {stamps.values[-1]}, at the steps of the data"
            )
        return found
    chosen = np.unique(np.linspace(0, stamps.size - 1, min(int(times), stamps.size)).round().astype(int))
    if observations is None or TIME not in observations.dims:
        return chosen
    seen = match_times(observations[TIME], stamps, of="the observations", like="the data")
    seen = np.unique(seen[seen >= 0])
    if not seen.size:
        return chosen
    snapped = np.unique(seen[np.abs(seen[None, :] - chosen[:, None]).argmin(axis=1)])
    return snapped if snapped.size == chosen.size else chosen


def _at_times(source: xr.Dataset, stamps: xr.DataArray, variable: str) -> xr.DataArray | None:
    """The variable of ``source`` at the times ``stamps``, NaN where it has none; None if it lacks variable or time."""
    pair = plane_velocity(source)
    if variable not in source.data_vars and (variable != VORTICITY or pair is None):
        return None
    keep = [variable] if variable in source.data_vars else list(pair or ())
    if TIME not in source[keep[0]].dims:
        return None
    found = match_times(stamps, source[TIME], of="the data", like="the truth or the observations")
    there = quantity_of(source[keep].isel({TIME: np.maximum(found, 0)}), variable).load()
    present = xr.DataArray(found >= 0, dims=TIME)
    return there.drop_vars(TIME).where(present).assign_coords({TIME: stamps})


def _observed(observations: xr.Dataset, stamps: xr.DataArray, variable: str, quantity: Quantity) -> list[Panel]:
    field = _at_times(observations, stamps, variable)
    if field is None:
        name = _shown(observations)[0]
        field = _at_times(observations, stamps, name)
        if field is None:
            _log.info("the observations have no time and are not drawn")
            return []
        quantity = Quantity(f"observed {name}", str(field.attrs.get("units", "1")))
    elif str(field.attrs.get("units", "1")) != quantity.units:
        quantity = Quantity(f"observed {quantity.name}", str(field.attrs.get("units", "1")))
    field, own = _categorised(field, quantity.name)
    return [Panel("observation", field, own if own.flags else quantity)]


def _categorised(field: xr.DataArray, name: str) -> tuple[xr.DataArray, Quantity]:
    """The field and what it is; flags are numbered."""
    known = flags.meanings(field)
    if not known:
        return field, Quantity(name, str(field.attrs.get("units", "1")))
    texts = tuple(text for _, text in sorted(known.items()))
    return flags.numbered(field), Quantity(name, "1", flags=texts)


def _shown(data: xr.Dataset) -> list[str]:
    """Variables that are not the errors and flags of others."""
    names = [str(n) for n in data.data_vars if not _is_ancillary(data, n)]
    if not names:
        raise DataError(
            f"found {sorted(map(str, data.data_vars))}, expected a variable besides errors and flags to plot"
        )
    return names


def _is_ancillary(data: xr.Dataset, name: Hashable) -> bool:
    ancillary = " ".join(str(v.attrs.get("ancillary_variables", "")) for v in data.data_vars.values()).split()
    return name in ancillary or str(name).endswith(("_error", "_qc"))


def _looks_observed(data: xr.Dataset) -> bool:
    return any(str(n).endswith("_error") for n in data.variables) or "operator" in data.attrs


def _first(data: xr.Dataset, variable: str) -> Hashable:
    return variable if variable in data.data_vars else next(iter(data.data_vars))
