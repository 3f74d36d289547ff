"""Labels of forecasts (lead time, valid time, time of the initial state), and checks of the times of an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.provenance import provenance_attrs
from sdaxr.schema import INIT_TIME, LEAD_TIME, MEMBER, TIME, VALID_TIME, DataError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.names import named_time
from sdaxr.states.time import TimeAxis, check_kind, elapsed, time_axis, time_kind


def with_time(ensemble: xr.Dataset) -> xr.Dataset:
    """The ensemble with the dimensions member and time.

    Raises
    ------
    DataError
        If there is no time.
    """
    ensemble = named_time(ensemble)
    if TIME not in ensemble.coords:
        raise DataError(
            f"found the coordinates {list(map(str, ensemble.coords))}, expected 'time', the time from which the "
            "forecast starts; set it with ds.assign_coords(time=...)"
        )
    data = ensemble if TIME in ensemble.dims else ensemble.expand_dims(TIME)
    if data.sizes[TIME] == 0:
        raise DataError("'time' is empty, expected at least one state")
    dim = ensemble_dimension(data)
    if dim is None:
        return data.drop_vars(MEMBER, errors="ignore").expand_dims({MEMBER: [0]})
    if dim != MEMBER:
        data = data.rename({dim: MEMBER})
    return data if MEMBER in data.coords else data.assign_coords({MEMBER: np.arange(data.sizes[MEMBER])})


def check_times(data: xr.Dataset, time: TimeAxis, model: str) -> None:
    """Raise `DataError` unless the time of the ensemble has the kind, the calendar and the step of ``time``."""
    check_kind(data[TIME], time.kind, of="the ensemble", like=model, calendar=time.calendar)
    if data.sizes[TIME] < 2:
        return
    axis = time_axis(data)
    if not time.fits(data[TIME]):
        raise DataError(
            f"the ensemble has the step {axis}, {model} has {time}; pass "
            f"step={axis.step:g} where the model is a system, take a model with this step, or "
            "select one time: ds.isel(time=[-1])"
        )


def labels(
    state: xr.Dataset, data: xr.Dataset, time: TimeAxis, steps: int, *, constants: Collection[str] = ()
) -> xr.Dataset:
    """The forecast without its values, from the labels of one state; the variables ``constants`` have no lead time.

    The values are views of a single zero, so that no memory of the size of the forecast is used.
    """
    times, start = data[TIME], data[TIME].values[-1]
    kind = time_kind(times)
    units = {"units": times.attrs.get("units", "1")} if kind == "float" else {}
    valid = time.after(start, steps + 1)[1:]
    offsets = elapsed(xr.DataArray(valid, dims=TIME, name=TIME), start)
    lead = np.arange(1, steps + 1) * time.step if kind == "float" else (offsets * 1e9).round().astype("timedelta64[ns]")
    reference = {"standard_name": "forecast_reference_time", "long_name": "time of the initial state"}
    # CF knows periods in units of time only, and model time may have none.
    period = {} if units.get("units") == "1" else {"standard_name": "forecast_period"}
    known = {} if kind == "float" else {"standard_name": "time"}
    coords = {
        MEMBER: (MEMBER, data[MEMBER].values),
        LEAD_TIME: (LEAD_TIME, lead, {**period, "long_name": "lead time", **units}),
        VALID_TIME: (LEAD_TIME, valid, {**known, "long_name": "time that is forecast", **units}),
        INIT_TIME: ((), np.array(start), {**reference, **units}),
    }
    zero, head = np.zeros((), np.float32), {MEMBER: data.sizes[MEMBER], LEAD_TIME: steps}
    variables = {}
    for name, variable in state.data_vars.items():
        sizes = {d: n for d, n in head.items() if d == MEMBER or name not in constants} | dict(variable.sizes)
        variables[name] = (tuple(sizes), np.broadcast_to(zero, tuple(sizes.values())), variable.attrs)
    return xr.Dataset(variables, dict(state.drop_vars(TIME, errors="ignore").coords) | coords)


def provenance(about: dict[str, Any], method: str, states: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Attributes of a forecast by ``method`` from the initial ``states`` {variable: values}."""
    digest = hashlib.sha256()
    for name in sorted(states):
        digest.update(name.encode() + np.ascontiguousarray(states[name]).tobytes())
    return provenance_attrs(
        f"forecast by {method}", method, **about, seed=seed, initial_states_sha256=digest.hexdigest()
    )
