r"""Superobservations: averages of the observations in a cell of a grid, at a step of its time.

With values :math:`y_i` and errors :math:`\sigma_i`, which are independent,

.. math:: y = \frac{\sum y_i / \sigma_i^2}{\sum 1 / \sigma_i^2}, \qquad
          \sigma^2 = \frac{1}{\sum 1 / \sigma_i^2} + \sigma_r^2,

with the error of representativeness :math:`\sigma_r`, which does not decrease with the number of observations (Purser,
Parrish and Masutani 2000, NCEP Office Note 430).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.observations.correlation import ATTRIBUTE
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.noise import DISTRIBUTION
from sdaxr.observations.places import OBS
from sdaxr.observations.positions import good_points
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.coordinates import Coordinate, coordinate_of, nearest_points
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis, check_kind, elapsed, nearest_times, time_axis, time_kind


def superob(
    observations: xr.Dataset, grid: Any, *, representativeness: float | Mapping[str, float] = 0.0, good: Any = None
) -> xr.Dataset:
    """Observations averaged within the cells and the steps of a grid.

    A cell is what is nearest to a grid point in space and time. Sources are averaged each by itself. Observations
    beyond half a cell around the grid stay as they are: `sdaxr.assimilate` refuses or drops them.

    Parameters
    ----------
    observations
        Point form. Values that their quality flags call bad are left out first.
    grid
        A prior, or fields on (time, ...). Steps of a prior are multiples of its time step since 1970-01-01 00:00, or
        since 0 where time is a number or a duration.
    representativeness
        Error of representativeness, in the units of the variable: a number, or one for each variable.
    good
        Quality flags of values that are good (`sdaxr.observations.screening.Screening`).

    Returns
    -------
    xarray.Dataset
        Point form, with a row for each cell: ``time`` is the step, positions are the mean of those in the cell.
        ``<variable>_count`` is the number of values. Of other coordinates, ``source`` stays. The attribute
        ``averaged_from`` is the number of observations, ``observations_flagged`` that of values whose flags are bad.

    Raises
    ------
    DataError
        If the observations do not have the point form, or have no errors, or errors that are not independent and
        Gaussian; if their times are of another kind or calendar; if it is not known whether a flag is good.
    OptionError
        If an error of representativeness is negative, or of an unknown variable.
    """
    import pandas as pd

    number = observations.sizes.get(OBS, 0)
    observations = good_points(observations, "superob", good)
    names = observed_variables(observations)
    _check_errors(observations, names)
    extra = _errors(representativeness, names)
    cell, middle, step = _cells(observations, *_grid_of(grid))
    frame = pd.DataFrame({f"_{i}": each for i, each in enumerate(cell)})
    if "source" in observations.coords:
        frame["source"] = observations["source"].values
    group = np.asarray(frame.groupby(list(frame.columns), sort=False, dropna=False).ngroup())
    first = np.unique(group, return_index=True)[1]
    rows = np.bincount(group)
    out = xr.Dataset(coords={TIME: (OBS, step[first], observations[TIME].attrs)}, attrs=observations.attrs)
    for dim, centre in middle.items():
        offset = np.bincount(group, _offset(observations[dim], centre)) / rows
        out = out.assign_coords({dim: (OBS, centre[first] + offset, observations[dim].attrs)})
    if "source" in observations.coords:
        out = out.assign_coords(source=(OBS, observations["source"].values[first]))
    for name in names:
        out = out.assign(_averaged(observations, name, group, first.size, extra[name]))
    return out.assign_attrs(averaged_from=int(number))


def _averaged(observations: xr.Dataset, name: str, group: np.ndarray, cells: int, extra: float) -> dict[str, Any]:
    value, error = observations[name], observations[name + ERROR]
    values, errors = value.values.astype(float), error.broadcast_like(value).values.astype(float)
    there = np.isfinite(values)
    weights = np.where(there, 1 / errors**2, 0.0)
    total = np.bincount(group, weights, cells)
    count = np.bincount(group, there, cells).astype(np.int32)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, weights * np.where(there, values, 0.0), cells) / total
        spread = np.where(count > 0, np.sqrt(1 / total + extra**2), np.nan)
    counted, title = f"{name}_count", value.attrs.get("standard_name")
    about = {"long_name": f"number of values of {name}", "units": "1"}
    about |= {"standard_name": f"{title} number_of_observations"} if title else {}
    attrs = value.attrs | {"ancillary_variables": f"{name}{ERROR} {counted}"}
    return {
        name: (OBS, mean, attrs),
        name + ERROR: (OBS, spread, error.attrs),
        counted: (OBS, count, about),
    }


def _check_errors(observations: xr.Dataset, names: list[str]) -> None:
    for name in names:
        for attribute in (ATTRIBUTE, DISTRIBUTION):
            if attribute in observations[name + ERROR].attrs:
                raise DataError(
                    f"'{name}{ERROR}' has the attribute '{attribute}', expected independent Gaussian errors; thin the "
                    "observations instead"
                )


def _errors(given: float | Mapping[str, float], names: list[str]) -> dict[str, float]:
    each = given if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, number in each.items():
        if name not in names:
            raise OptionError(f"representativeness= names {nearest(str(name), names)}")
        if number != 0:
            schema.check_positive(f"representativeness[{name!r}]", number)
    return {name: float(each.get(name, 0.0)) for name in names}


# Cells


def _grid_of(grid: Any) -> tuple[dict[str, Coordinate], TimeAxis, xr.DataArray | None]:
    """Coordinates by dimension, time step, and times where the grid has some."""
    layout = grid if isinstance(grid, StateLayout) else getattr(grid, "layout", None)
    if isinstance(layout, StateLayout):
        return dict(layout.coords), layout.time, None
    if not isinstance(grid, xr.Dataset):
        raise OptionError(f"grid is {type(grid).__name__}, expected a prior (sdaxr.open_prior) or a Dataset")
    dims = [str(d) for d in grid.dims if d != TIME and d in grid.coords and grid[d].dtype.kind in "fiu"]
    return {d: coordinate_of(grid[d]) for d in dims}, time_axis(grid), grid[TIME]


def _cells(
    observations: xr.Dataset, coords: Mapping[str, Coordinate], axis: TimeAxis, times: xr.DataArray | None
) -> tuple[list[np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Numbers of the cell along each dimension, its middle by dimension, and its time; shape (n,) each."""
    check_kind(observations[TIME], axis.kind, of="the observations", like="the grid", calendar=axis.calendar)
    step, index, far = _steps(observations[TIME], axis, times)
    cell, middle = [index], {}
    for dim, coordinate in coords.items():
        if dim not in observations.coords or observations[dim].dims != (OBS,):
            continue
        place, distance = nearest_points(observations[dim].values.astype(float), coordinate.values, coordinate.turn)
        far |= np.abs(distance) > _half(coordinate.values)[place]
        cell.append(place)
        middle[dim] = coordinate.values[place].astype(float)
    if not middle:
        raise DataError(
            f"found the coordinates {list(map(str, observations.coords))}, expected some of {list(coords)}, the "
            "dimensions of the grid; rename them"
        )
    # Every observation that is far from the grid is a cell of its own, at its own place and time.
    alone = np.where(far, np.arange(far.size), -1)
    middle = {dim: np.where(far, observations[dim].values, centre) for dim, centre in middle.items()}
    step = np.where(far, observations[TIME].values, step)
    return [*(np.where(far, -1, each) for each in cell), alone], middle, step


def _half(grid: np.ndarray) -> np.ndarray:
    """Half the widest distance of each point to a neighbour, in the smallest spacing of the grid."""
    if grid.size < 2:
        return np.full(1, np.inf)
    order = np.argsort(grid)
    gaps = np.diff(grid[order].astype(float))
    around = np.maximum(np.r_[gaps[0], gaps], np.r_[gaps, gaps[-1]])
    out = np.empty(grid.size)
    out[order] = around / 2 / gaps.min() * (1 + 1e-6)
    return out


def _offset(coordinate: xr.DataArray, centre: np.ndarray) -> np.ndarray:
    """How far each observation lies from the middle of its cell, the shorter way round a circle."""
    turn, apart = coordinate_of(coordinate).turn, np.asarray(coordinate.values - centre)
    return apart if turn is None else np.asarray((apart + turn / 2) % turn - turn / 2)


def _steps(
    observed: xr.DataArray, axis: TimeAxis, times: xr.DataArray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest step of each time, its number, and whether the time is more than half a step beyond the last."""
    if times is not None:
        index, distance = nearest_times(observed.values, times.values)
        return times.values[index], index, np.abs(distance) > 0.5
    origin = _origin(observed)
    index = np.round(elapsed(observed, origin) / axis.step).astype(int)
    if time_kind(observed) == "float":
        return origin + index * axis.step, index, np.zeros(index.shape, bool)
    seconds = np.round(index * axis.step * 1e9).astype("m8[ns]")
    shift = seconds if time_kind(observed) != "cftime" else seconds.astype("m8[us]").astype(object)
    return origin + shift, index, np.zeros(index.shape, bool)


def _origin(times: xr.DataArray) -> Any:
    kind = time_kind(times)
    if kind == "cftime":
        return type(times.values[0])(1970, 1, 1)
    return {"float": 0.0, "timedelta": np.timedelta64(0, "ns"), "datetime": np.datetime64(0, "ns")}[kind]
