"""The assimilation window: networks of observations, and the times of the trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.observe import operator_for
from sdaxr.operators import Operator, identity
from sdaxr.schema import TIME, DataError, OptionError, nearest
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.coordinates import TOLERANCE
from sdaxr.states.fields import StateLayout
from sdaxr.states.inputs import as_dataset
from sdaxr.states.time import check_kind, elapsed, nearest_times, same_step, time_axis, time_kind

Observations = xr.Dataset | Mapping[str, xr.Dataset] | xr.DataTree
Operators = Operator | Mapping[str, Operator] | None
BACKGROUND = "background"


def as_networks(observations: Observations) -> dict[str, xr.Dataset]:
    """Observations as a mapping from the name of a network to its Dataset."""
    if isinstance(observations, xr.DataTree):
        nodes = [node for node in observations.subtree if node.data_vars] or [observations]
        observations = {node.path.strip("/") or "observations": node.to_dataset() for node in nodes}
    if isinstance(observations, xr.Dataset) or not isinstance(observations, Mapping):
        return {"observations": as_dataset(observations, "the observations")}
    if not observations:
        raise DataError("found no network of observations, expected at least one Dataset")
    return {str(name): as_dataset(data, f"the network '{name}'") for name, data in observations.items()}


def operator_of(name: str, data: xr.Dataset, operator: Operators, outside: str) -> Operator:
    """The operator of one network: from ``operator``, or the one that its observations carry where that is None."""
    if operator is None:
        return operator_for(data, outside=outside)
    if isinstance(operator, Mapping):
        if name not in operator:
            raise OptionError(f"operator= has none for the network {nearest(name, operator)}")
        return operator[name]
    return operator


def window_times(
    networks: Mapping[str, xr.Dataset], layout: StateLayout, times: Any = None, model: str = "the prior"
) -> xr.DataArray:
    """Times of the trajectory, shape (time,), at the step of ``layout``.

    Parameters
    ----------
    networks
        Observations, whose first and last time are the ends of the window where ``times`` is None. A coordinate
        ``window`` replaces a network's times.
    layout
        Layout of the states.
    times
        Times wanted, at the step of the layout.
    model
        Whose layout it is, for errors.

    Raises
    ------
    DataError
        If times are of another kind or step.
    """
    if times is not None:
        axis = times if isinstance(times, xr.DataArray) else xr.DataArray(np.asarray(times), dims=TIME, name=TIME)
        axis = axis.rename(TIME).drop_vars([c for c in axis.coords if c != TIME])
        if axis.size == 1 and time_kind(axis) == layout.time.kind:
            return layout.times(axis.values[0], 1)
        found = time_axis(xr.Dataset(coords={TIME: (TIME, axis.values, axis.attrs)}))
        if found.kind != layout.time.kind or not same_step(found.step, layout.time.step):
            raise DataError(
                f"times= has the step {found.step:g} ({found.kind}), expected {model}'s {layout.time.step:g} "
                f"{layout.time.units} ({layout.time.kind})"
            )
        return layout.times(axis.values[0], axis.size)
    ends = [_ends(name, data, layout, model) for name, data in networks.items()]
    first, last = min(e[0] for e in ends), max(e[1] for e in ends)
    length = float(elapsed(xr.DataArray(np.array([last]), name=TIME), first)[0]) / layout.time.step
    if not np.isfinite(length) or abs(length - round(length)) > TOLERANCE:
        raise DataError(
            f"the observations span {length:g} steps of {model} ({layout.time.step:g} {layout.time.units}), "
            "expected a whole number; move them to the nearest step, or pass times="
        )
    return layout.times(first, round(length) + 1)


def background_network(background: xr.Dataset, times: xr.DataArray) -> xr.Dataset:
    """A background of the first state as one more network of observations, whose operator is the identity.

    Parameters
    ----------
    background
        Some state variables at the first time: with a dimension ``time`` of size 1, a scalar coordinate ``time``, or
        without time. ``<variable>_error`` is one standard deviation of the error; errors may be correlated
        (`sdaxr.observations.correlation`).
    times
        Times of the trajectory.

    Returns
    -------
    The background in the grid form of observations.

    Raises
    ------
    DataError
        If there is more than one time or state, or the time is not the first of the window.
    """
    background = as_dataset(background, "the background")
    ensemble = ensemble_dimension(background)
    if ensemble is not None:
        raise DataError(
            f"the background has {background.sizes[ensemble]} states along '{ensemble}', expected one and its error; "
            f"take ds.mean('{ensemble}') with ds.std('{ensemble}') as '<variable>_error'"
        )
    if background.sizes.get(TIME, 1) != 1:
        raise DataError(f"the background has {background.sizes[TIME]} times, expected one; select ds.isel(time=[0])")
    if TIME in background.coords:
        found = np.atleast_1d(background[TIME].values)[0]
        check_kind(background[TIME], time_kind(times), of="the background", like="the window")
        index, distance = nearest_times(np.atleast_1d(found), times.values)
        if index[0] != 0 or abs(distance[0]) > TOLERANCE:
            raise DataError(
                f"the background is at {found}, expected the first time of the window, {times.values[0]}; pass times= "
                "to begin the window there, or the background of that time"
            )
    names = [n for v in observed_variables(background) for n in (v, f"{v}{ERROR}") if n in background]
    data = background[names].drop_attrs(deep=False)
    data = data if TIME in data.dims else data.drop_vars(TIME, errors="ignore").expand_dims(TIME)
    return data.assign_coords({TIME: times[:1]}).assign_attrs(operator=identity().to_json())


def _ends(name: str, data: xr.Dataset, layout: StateLayout, model: str) -> tuple[Any, Any]:
    key = "window" if "window" in data.coords else TIME
    if key not in data.coords or data[key].size == 0:
        raise DataError(f"'{name}' has neither a 'time' nor a 'window' coordinate; pass times= to assimilate it")
    check_kind(data[key], layout.time.kind, of=f"the network '{name}' ('{key}')", like=model)
    return data[key].values.min(), data[key].values.max()
