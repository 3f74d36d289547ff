"""The assimilation window: networks of observations, and the times of the trajectory."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.naming import recognised_observations
from sdaxr.observations.observe import WINDOW, operator_for, used_rows
from sdaxr.observations.places import OBS
from sdaxr.observations.screening import Screening
from sdaxr.operators import Operator, identity
from sdaxr.schema import TIME, DataError, OptionError, nearest, others
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.coordinates import TOLERANCE
from sdaxr.states.fields import StateLayout
from sdaxr.states.inputs import as_dataset
from sdaxr.states.time import (
    TimeAxis,
    calendar_of,
    check_kind,
    elapsed,
    nearest_times,
    since_epoch,
    time_axis,
    time_kind,
)

Observations = xr.Dataset | Mapping[str, xr.Dataset] | xr.DataTree
Operators = Operator | Mapping[str, Operator] | None
BACKGROUND = "background"


def as_networks(observations: Observations, layout: StateLayout | None = None) -> dict[str, xr.Dataset]:
    """Observations as a mapping from the name of a network to its Dataset, with the coordinate names of ``layout``."""
    like = {} if layout is None else layout.coordinate_attrs
    networks = {name: recognised_observations(data, like) for name, data in _networks(observations).items()}
    return networks if layout is None else {name: _in_months(data, layout.time) for name, data in networks.items()}


def _in_months(data: xr.Dataset, axis: TimeAxis) -> xr.Dataset:
    """Fields with the labels of their months, where the steps of ``axis`` are months that are labelled anywhere."""
    if TIME not in data.dims or TIME not in data.coords or time_kind(data[TIME]) != axis.kind:
        return data
    return data.assign_coords({TIME: (TIME, axis.labelled(data[TIME].values), data[TIME].attrs)})


def _networks(observations: Observations) -> dict[str, xr.Dataset]:
    if isinstance(observations, xr.DataTree):
        nodes = [node for node in observations.subtree if node.data_vars] or [observations]
        observations = {node.path.strip("/") or "observations": node.to_dataset() for node in nodes}
    if isinstance(observations, xr.Dataset) or not isinstance(observations, Mapping):
        return {"observations": as_dataset(observations, "the observations")}
    if not observations:
        raise DataError("found no network of observations, expected at least one Dataset")
    return {str(name): as_dataset(data, f"the network '{name}'") for name, data in observations.items()}


def operator_of(name: str, data: xr.Dataset, operator: Operators, screening: Screening | None = None) -> Operator:
    """The operator of one network: from ``operator``, or the one that its observations carry where that is None."""
    if operator is None:
        return operator_for(data, screening)
    if isinstance(operator, Mapping):
        if name not in operator:
            raise OptionError(f"operator= has none for the network {nearest(name, operator)}")
        return operator[name]
    return operator


def window_times(
    networks: Mapping[str, xr.Dataset],
    layout: StateLayout,
    times: Any = None,
    model: str = "the prior",
    screening: Screening | None = None,
) -> xr.DataArray:
    """Times of the trajectory, shape (time,), at the steps of ``layout``.

    The steps of a calendar are those of the training data: 00, 06, 12 and 18 o'clock, say. Model time has no origin:
    its steps begin at the first observation in the grid form, or at the first measurement where there is none.
    Measurements between two steps are observations of both (``time="linear"``), or of the nearest one
    (``time="nearest"``).

    Parameters
    ----------
    networks
        Observations. The window covers those whose values are of good quality, where ``times`` is None. A coordinate
        ``window`` replaces a network's times. A network of parameters alone needs no times.
    layout
        Layout of the states.
    times
        Times wanted, at the step of the layout.
    model
        Whose layout it is, for errors.
    screening
        Options of the observations; by default, `Screening` with its defaults.

    Raises
    ------
    DataError
        If times are of another kind, calendar or step, or off the steps; if there is no observation.
    """
    if times is not None:
        return _times_given(times, layout, model)
    how = Screening() if screening is None else screening
    timed = {name: data for name, data in networks.items() if not of_parameters(data, layout)}
    if networks and not timed:
        raise DataError(f"found observations of {list(layout.parameters)} alone, which have no time; pass times=")
    spans = [_Span.of(name, data, layout, model, how) for name, data in timed.items()]
    spans = [span for span in spans if span.times.size]
    if not spans:
        raise DataError(f"found no observation in {', '.join(map(repr, networks))}, expected at least one finite value")
    origin = _origin(spans, layout)
    ends = [span.steps(origin, layout.time, how, model) for span in spans]
    reached = np.concatenate(ends)
    if not reached.size:
        raise DataError("found no observation on the steps of the window, expected at least one; interpolate them")
    first = int(reached.min())
    start = origin if first == 0 else layout.time.at(origin, np.array([first]))[0]
    return layout.times(start, int(reached.max()) - first + 1)


def of_parameters(data: xr.Dataset, layout: StateLayout) -> bool:
    """Whether a network has no times because it observes parameters alone."""
    timeless = TIME not in data.coords and WINDOW not in data.coords
    return timeless and bool(data.data_vars) and set(observed_variables(data)) <= set(layout.parameters)


@dataclass(frozen=True)
class _Span:
    """The observed times of one network; ``between`` says whether they may lie between two steps."""

    name: str
    times: xr.DataArray
    between: bool

    @classmethod
    def of(cls, name: str, data: xr.Dataset, layout: StateLayout, model: str, screening: Screening) -> _Span:
        key = WINDOW if WINDOW in data.coords else TIME
        if key not in data.coords:
            hint = f"ds.assign_coords({TIME}=...)"
            if key in data.data_vars:
                rows = [str(d) for d in data[key].dims if d != OBS]
                renamed = f".rename({rows[0]}={OBS!r})" if rows and rows[0] != key else ""
                hint = f"ds{renamed}.set_coords([{TIME!r}, ...]), with the names of the positions"
            raise DataError(
                f"'{name}' has neither a 'time' nor a 'window' coordinate, found the coordinates "
                f"{list(map(str, data.coords))}; set it with {hint}, or pass times= to assimilate it"
            )
        times = data[key]
        points = key == TIME and times.dims == (OBS,)
        if points:
            times = times.isel({OBS: used_rows(data, screening)})
        if times.size:
            of = f"the network '{name}' ('{key}')"
            check_times(times, of)
            times = xr.DataArray(times.values.reshape(-1), dims=TIME, name=key)
            check_kind(times, layout.time.kind, of=of, like=model, calendar=layout.time.calendar)
            if key == WINDOW and times.values[0] > times.values[-1]:
                raise DataError(
                    f"{of} begins at {times.values[0]} and ends at {times.values[-1]}, expected its first and last time"
                )
        return cls(name, times, points)

    def steps(self, origin: Any, axis: TimeAxis, screening: Screening, model: str) -> np.ndarray:
        """Numbers of the first and the last step that are needed, counted from ``origin``; none, or two of them."""
        place = axis.places(self.times, origin)
        if self.between and screening.time == "linear":
            return np.array([np.floor(place.min() + TOLERANCE), np.ceil(place.max() - TOLERANCE)])
        number = np.round(place)
        off = np.abs(place - number) > TOLERANCE
        if self.between and screening.tolerance is not None:
            steps = xr.DataArray(axis.at(origin, number), dims=TIME, name=TIME)
            off &= np.abs(elapsed(self.times, origin) - elapsed(steps, origin)) > screening.tolerance
        if off.any() and screening.outside == "error":
            first = int(off.argmax())
            raise DataError(
                f"the time {self.times.values[first]} of the network '{self.name}' is off the steps of "
                f"{model}{others(int(off.sum()) - 1)}; the nearest step is "
                f"{axis.at(origin, number[[first]])[0]}; move or interpolate them, "
                'or pass outside="drop" to leave them out'
            )
        number = number[~off]
        return np.array([number.min(), number.max()]) if number.size else number


def _origin(spans: Sequence[_Span], layout: StateLayout) -> Any:
    """A time that is a step: near the first observation."""
    if layout.time.kind in ("datetime", "cftime"):
        first = min(span.times.values.min() for span in spans)
        if layout.time.months:
            return layout.time.step_before(first)
        apart = (since_epoch(first) - layout.time.phase) % layout.time.step
        # The number of seconds since 1970 has an error of a microsecond.
        return first if min(apart, layout.time.step - apart) < 1e-5 else _later(first, -apart)
    exact = [span for span in spans if not span.between] or spans
    return min(span.times.values.min() for span in exact)


def _later(time: Any, by: float) -> Any:
    """``time`` and a distance in seconds, or in model time where time is a number."""
    if isinstance(time, np.datetime64 | np.timedelta64):
        return time + np.timedelta64(round(by * 1e6), "us")
    return time + by if isinstance(time, int | float | np.number) else time + datetime.timedelta(seconds=float(by))


def _times_given(times: Any, layout: StateLayout, model: str) -> xr.DataArray:
    axis = times if isinstance(times, xr.DataArray) else xr.DataArray(np.asarray(times), dims=TIME, name=TIME)
    axis = axis.rename(TIME).drop_vars([c for c in axis.coords if c != TIME])
    check_times(axis, "times=")
    check_kind(axis, layout.time.kind, of="times=", like=model, calendar=layout.time.calendar)
    if axis.size == 1:
        return layout.times(axis.values[0], 1)
    found = time_axis(xr.Dataset(coords={TIME: (TIME, axis.values, axis.attrs)}))
    if not layout.time.fits(axis):
        raise DataError(
            f"times= has the step {found} ({found.kind}), expected {model}'s {layout.time} ({layout.time.kind})"
        )
    return layout.times(axis.values[0], axis.size)


def check_times(times: xr.DataArray, of: str) -> None:
    """Raise `DataError` unless all times of ``of`` are there, and without a time zone."""
    # Reading the values of pandas' times with a zone would drop the zone.
    zone = getattr(times.dtype, "tz", None)
    if zone is None and times.dtype.kind == "O" and times.size:
        zone = getattr(times.values.ravel()[0], "tzinfo", None)
    if zone is not None:
        raise DataError(
            f"the times of {of} have the time zone {zone}, expected UTC without a zone; convert them with "
            "pandas.to_datetime(times, utc=True).tz_localize(None)"
        )
    absent = times.isnull().values.ravel()
    if absent.any():
        raise DataError(
            f"time {int(absent.argmax())} of {of} is missing "
            f"(NaT){others(int(absent.sum()) - 1)}; expected a time for each observation; leave these observations out"
        )
    if times.dtype.kind == "f" and not np.isfinite(times.values).all():
        raise DataError(f"found an infinite time of {of}, expected finite ones; leave these observations out")


def background_network(background: xr.Dataset, times: xr.DataArray, constants: Collection[str] = ()) -> xr.Dataset:
    """A background of the first state as one more network of observations, whose operator is the identity.

    Parameters
    ----------
    background
        Some state variables at the first time: with a dimension ``time`` of size 1, a scalar coordinate ``time``, or
        without time. ``<variable>_error`` is one standard deviation of the error; errors may be correlated
        (`sdaxr.observations.correlation`).
    times
        Times of the trajectory.
    constants
        Variables that have no time.

    Returns
    -------
    The background in the grid form of observations.

    Raises
    ------
    DataError
        If there is more than one time or state, or the time is not the first of the window.
    """
    background = _at_first_time(background, times, constants)
    ensemble = ensemble_dimension(background)
    if ensemble is not None:
        raise DataError(
            f"the background has {background.sizes[ensemble]} states along '{ensemble}', expected one and its error; "
            f"take ds.mean('{ensemble}') with ds.std('{ensemble}') as '<variable>_error'"
        )
    names = [n for v in observed_variables(background) for n in (v, f"{v}{ERROR}") if n in background]
    return background[names].drop_attrs(deep=False).assign_attrs(operator=identity().to_json())


def background_ensemble(
    background: xr.Dataset, times: xr.DataArray, constants: Collection[str] = ()
) -> xr.Dataset | None:
    """A background that is an ensemble of first states, on (member, time, ...); None if it is one state and its error.

    The variables ``constants`` have no time.

    Raises
    ------
    DataError
        If there is more than one time, the time is not the first of the window, an ensemble has an error beside it, or
        fewer than two members.
    """
    background = as_dataset(background, "the background")
    ensemble = ensemble_dimension(background)
    if ensemble is None:
        return None
    if errors := [str(v) for v in background.data_vars if str(v).endswith(ERROR)]:
        raise DataError(
            f"the background has members along '{ensemble}' and {errors}, expected members, whose spread is the error, "
            f"or one state with its error; leave out {errors[0]!r}, or take ds.mean({str(ensemble)!r})"
        )
    if background.sizes[ensemble] < 2:
        raise DataError(
            f"the background has one member along '{ensemble}', expected at least 2, or one state with its error; take "
            f"ds.isel({ensemble}=0, drop=True) and add '<variable>_error'"
        )
    return _at_first_time(background, times, constants)


def mean_and_spread(ensemble: xr.Dataset) -> xr.Dataset:
    """Mean and standard deviation of an ensemble of first states, in the form of `background_network`."""
    dim = str(ensemble_dimension(ensemble))
    spread = ensemble.std(dim, ddof=1).rename({v: f"{v}{ERROR}" for v in ensemble.data_vars})
    return ensemble.mean(dim).merge(spread).assign_attrs(operator=identity().to_json())


def _at_first_time(background: xr.Dataset, times: xr.DataArray, constants: Collection[str]) -> xr.Dataset:
    """The background with a dimension ``time``, the first of ``times``; an error if it has another time, or several.

    The variables ``constants`` and their errors are without.
    """
    background = as_dataset(background, "the background")
    if background.sizes.get(TIME, 1) != 1:
        raise DataError(f"the background has {background.sizes[TIME]} times, expected one; select ds.isel(time=[0])")
    if TIME in background.coords:
        found = np.atleast_1d(background[TIME].values)[0]
        check_kind(
            background[TIME], time_kind(times), of="the background", like="the window", calendar=calendar_of(times)
        )
        index, distance = nearest_times(np.atleast_1d(found), times.values)
        if index[0] != 0 or abs(distance[0]) > TOLERANCE:
            raise DataError(
                f"the background is at {found}, expected the first time of the window, {times.values[0]}; pass times= "
                "to begin the window there, or the background of that time"
            )
    if TIME not in background.dims:
        background = background.drop_vars(TIME, errors="ignore").expand_dims(TIME)
    still = [n for v in constants for n in (v, f"{v}{ERROR}") if n in background and TIME in background[n].dims]
    background = background.assign({n: background[n].isel({TIME: 0}, drop=True) for n in still})
    return background.assign_coords({TIME: times[:1]})
