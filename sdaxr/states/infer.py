"""Layout and statistics of the states of a Dataset."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.schema import TIME, DataError
from sdaxr.states.axes import ensemble_dimension, layer_dimension, space_dimensions
from sdaxr.states.climatology import Climatology
from sdaxr.states.coordinates import coordinate_of, plain_attrs
from sdaxr.states.fields import StateLayout
from sdaxr.states.harmonics import Harmonics, resolved_harmonics
from sdaxr.states.months import ANYWHERE
from sdaxr.states.names import auxiliary
from sdaxr.states.parameters import parameter_names
from sdaxr.states.pieces import AT_ONCE, HELD, climatology_bytes, in_pieces, moments_bytes
from sdaxr.states.places import places_of
from sdaxr.states.seasonal import estimate
from sdaxr.states.time import CYCLES, TimeAxis, time_stretches
from sdaxr.states.units import check_given, check_values

_log = logging.getLogger(__name__)

# Over what the mean and the standard deviation of a state are taken.
NORMALISATIONS = ("channel", "point", "climatology")
# What is done with values that are missing at some times only.
MISSING = ("error", "masked")


def infer_layout(
    data: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    context: Sequence[str] | str = (),
    cycles: Sequence[str] | None = None,
    normalise: str = "channel",
    missing: str = "error",
) -> StateLayout:
    """Layout and statistics of the states of ``data``.

    Parameters
    ----------
    data
        The training split. Points that are NaN at all times are masked.
    variables
        Names of the state variables; by default all with a ``time`` dimension. A variable with the dimension of the
        trajectories alone is a parameter (`sdaxr.states.parameters`).
    context
        Names of static fields, variables or coordinates on the horizontal dimensions, that the network sees; ``"auto"``
        for every variable that has these dimensions and no others.
    cycles
        Cyclic time context; by default ``hour_of_day`` and ``day_of_year`` where time is a calendar and the data
        resolve and cover them.
    normalise
        ``"channel"``: one mean and standard deviation a channel; ``"point"``: one a channel and grid point;
        ``"climatology"``: a channel and grid point, by time of day and year (`sdaxr.states.seasonal`). ``"auto"``:
        ``"climatology"`` for fields on a grid whose times resolve and cover a day or a year, else ``"channel"``.
    missing
        ``"error"`` refuses points that are NaN at some times only; ``"masked"`` takes them.

    Raises
    ------
    DataError
        If dimensions do not fit together, values are packed or missing at some times only, a variable is constant, or
        the times resolve and cover neither a day nor a year for a climatology.
    UnitsError
        If a variable has no units.
    OptionError
        If ``normalise`` is unknown.
    """
    if normalise not in (*NORMALISATIONS, "auto"):
        raise schema.OptionError(f"normalise={schema.nearest(normalise, (*NORMALISATIONS, 'auto'))}")
    if missing not in MISSING:
        raise schema.OptionError(f"missing={schema.nearest(missing, MISSING)}")
    names = state_variables(data, variables)
    for name in names:
        check_values(name, data[name], "the training data")
        check_given(name, data[name].attrs, "the training data")
    parameters = parameter_names(data, names)
    fields = [name for name in names if name not in parameters]
    space = tuple(map(str, space_dimensions(data[fields[0]])))
    layers = {v: layer_dimension(data[v]) for v in names}
    layer_names = sorted({str(d) for d in layers.values() if d is not None})
    for name in fields:
        found = tuple(map(str, space_dimensions(data[name])))
        if set(found) != set(space):
            raise DataError(
                f"'{name}' has the horizontal dimensions {found}, '{fields[0]}' has {space}; expected the same for "
                "every state variable: interpolate them to one grid or choose with variables=[...]"
            )
    if len(space) > 2 or len(layer_names) > 1:
        raise DataError(
            f"found the dimensions {space + tuple(layer_names)}, expected at most two horizontal ones and one layer "
            "dimension ('layer' or 'level', or a coordinate with axis='Z'); select or rename"
        )
    layer = layer_names[0] if layer_names else None
    layered = tuple(v for v in names if layers[v] is not None)
    axes = [d for d in (layer, *space) if d is not None]
    time, _ = time_stretches(data)
    if time.anchor == ANYWHERE:
        _log.warning("the times lie at different places in their months: each is taken as its month, at mid-month")
    harmonics = resolved_harmonics(data[TIME], time) if normalise in ("auto", "climatology") else Harmonics(())
    if normalise == "climatology" and not harmonics.terms:
        raise DataError(
            f"normalise='climatology': {data.sizes[TIME]} times with the step {time} neither resolve and cover days (5 "
            "or more, in steps of at most 12 hours) nor a year of a calendar; take normalise='channel' or 'point'"
        )
    mean, std, mask, gappy = _statistics(data[names], layered, layer, space, normalise, missing)
    climatology = None
    if normalise == "climatology" or (normalise == "auto" and space and harmonics.terms):
        climatology = climatology_of(data[names], layered, layer, space, time, harmonics)
        mean, std = climatology.mean, climatology.std
        _log.info("states are anomalies from their climatology; %s", climatology)
    return StateLayout(
        variables=tuple(names),
        attrs={v: plain_attrs(data[v].attrs) for v in names},
        layered=layered,
        layer=layer,
        space=space,
        coords={d: coordinate_of(data[d]) for d in axes if d in data.coords},
        sizes={d: data.sizes[d] for d in axes},
        time=time,
        mean=mean,
        std=std,
        mask=mask,
        context={
            c: normalised_context(data, c, space, context_moments(data, c, space))
            for c in _context_names(data, context, space)
        },
        cycles=_default_cycles(data[TIME], time) if cycles is None else tuple(cycles),
        places=places_of(data, space),
        gappy=gappy,
        climatology=climatology,
        parameters=parameters,
    )


def statistics_bytes(data: xr.Dataset, variables: Sequence[str], normalise: str) -> float:
    """Bytes that the statistics of `infer_layout` take beside data that are in memory already."""
    data = data[list(variables)]
    moments = moments_bytes(data)
    if normalise not in ("auto", "climatology") or not space_dimensions(data[variables[0]]):
        return moments
    resolved = resolved_harmonics(data[TIME], time_stretches(data)[0])
    return max(moments, climatology_bytes(data)) if resolved.terms else moments


def climatology_of(
    data: xr.Dataset,
    layered: tuple[str, ...],
    layer: str | None,
    space: tuple[str, ...],
    axis: TimeAxis,
    harmonics: Harmonics,
) -> Climatology:
    """The climatology of the variables of ``data``, one channel each or one each layer (`sdaxr.states.seasonal`)."""
    ensemble = ensemble_dimension(data)
    head = ((str(ensemble),) if ensemble is not None else ()) + (TIME,)
    data = data.compute() if sum(v.size for v in data.values()) <= HELD else data

    def read(part: slice) -> np.ndarray:
        parts = []
        for name in map(str, data.data_vars):
            dims = (*head, *((layer,) if layer and name in layered else ()), *space)
            missing = {d: data.sizes[d] for d in dims if d not in data[name].dims}
            values = data[name].expand_dims(missing).isel({TIME: part}).transpose(*dims).values
            parts.append(values if layer and name in layered else np.expand_dims(values, len(head)))
        together = np.concatenate(parts, axis=len(head))
        return together if ensemble is not None else together[None]

    state = sum(v.size for v in data.values() if TIME in v.dims) // data.sizes[TIME]
    return estimate(read, data[TIME], axis, harmonics, block=max(1, AT_ONCE // state))


def state_variables(data: xr.Dataset, variables: Sequence[str] | None = None) -> list[str]:
    """Names of the state variables: ``variables``, else every variable with a ``time`` dimension.

    Variables that only describe others, such as ``time_bnds``, are no states (`sdaxr.states.names.auxiliary`).

    Raises
    ------
    DataError
        If a name is unknown or stands twice, or there is no such variable.
    """
    aside = auxiliary(data)
    moving = [str(v) for v in data.data_vars if TIME in data[v].dims and v not in aside]
    names = list(variables) if variables else moving
    for name in names:
        if name not in data.data_vars:
            raise DataError(f"variable {schema.nearest(name, map(str, data.data_vars))}")
    if len(set(names)) < len(names):
        raise DataError(f"found the variables {names}, expected none of them twice")
    if not names:
        raise DataError(f"found no variable with a 'time' dimension among {list(data.data_vars)}; rename it to 'time'")
    return names


def _default_cycles(times: xr.DataArray, axis: TimeAxis) -> tuple[str, ...]:
    # A cycle that the data do not go through once would only tell the network which day it is.
    if axis.kind not in ("datetime", "cftime"):
        return ()
    length = axis.step * times.size
    day = axis.step <= 86400 / 2 and length >= 86400
    year = length >= 0.9 * 365 * 86400
    return tuple(c for c, wanted in zip(CYCLES, (day, year), strict=True) if wanted)


def _statistics(
    data: xr.Dataset, layered: tuple[str, ...], layer: str | None, space: tuple[str, ...], normalise: str, missing: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
    """Mean and standard deviation (channel, *space or ones), mask (channel, *space), and whether there are gaps."""
    from dask.base import compute

    lazy, depths = [], []
    with warnings.catch_warnings():
        # Land is divided by zero; the count of its values tells it.
        warnings.simplefilter("ignore", RuntimeWarning)
        for name in map(str, data.data_vars):
            head = (layer,) if name in layered else ()
            rest = [d for d in data[name].dims if d not in (*head, *space)]
            x = in_pieces(data[name]).astype("float64")
            over = rest if normalise == "point" else [d for d in x.dims if d not in head]
            count = x.notnull().sum(rest)
            # A parameter is the same at all points.
            points = {d: data.sizes[d] for d in space if d not in x.dims}
            count = count.expand_dims(points)
            whole = xr.full_like(count, int(np.prod([x.sizes[d] for d in rest])))
            order = (*head, *space)
            moments = [x.mean(over), x.std(over)]
            moments = [a.expand_dims(points) for a in moments] if normalise == "point" else moments
            found = (*moments, count, whole)
            lazy.append([a.transpose(*[d for d in order if d in a.dims]) for a in found])
            depths.append(data.sizes[layer] if name in layered else 1)
        computed = compute(*lazy)  # type: ignore[no-untyped-call]
    means, stds, masks, gappy = [], [], [], False
    for name, depth, (mean, std, count, full) in zip(map(str, data.data_vars), depths, computed, strict=True):
        partly = ((count > 0) & (count < full)).values
        gappy |= bool(partly.any())
        if (partly.any() and missing == "error") or not (count > 0).values.any():
            raise DataError(
                f"'{name}' is NaN at some times only, at {int(partly.sum())} points (or everywhere); expected either "
                "complete series or points that are NaN at all times (land); fill the gaps (ds.interpolate_na), or "
                'train with statistics={"missing": "masked"}'
            )
        masks.append((count > 0).values.reshape(depth, *[data.sizes[d] for d in space]))
        shape = (depth, *([data.sizes[d] for d in space] if normalise == "point" else [1] * len(space)))
        means.append(np.nan_to_num(mean.values).reshape(shape))
        deviation = np.nan_to_num(std.values, nan=1.0).reshape(shape)
        if (deviation <= 1e-12 * (1 + np.abs(means[-1]))).any():
            raise DataError(f"'{name}' does not vary at some point or layer; leave it out with variables=[...]")
        stds.append(deviation)
    mask = np.concatenate(masks)
    constant = np.repeat([TIME not in v.dims for v in data.values()], depths)
    mask[constant] = mask[~constant].any(axis=0)
    return np.concatenate(means), np.concatenate(stds), None if mask.all() else mask, gappy


def _context_names(data: xr.Dataset, context: Sequence[str] | str, space: tuple[str, ...]) -> list[str]:
    names = [context] if isinstance(context, str) else list(context)
    if names != ["auto"]:
        return names
    aside = auxiliary(data)
    numbers = [str(n) for n, v in data.data_vars.items() if v.dtype.kind in "fiub" and n not in aside]
    found = [n for n in numbers if space and set(map(str, data[n].dims)) == set(space)]
    _log.info("static fields in the context of the network: %s", ", ".join(found) or "none")
    return found


def context_moments(data: xr.Dataset, name: str, space: tuple[str, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a static field, 1 where it is constant; by these it is normalised.

    Raises
    ------
    DataError
        If there is no such field, or its dimensions or values are not those of one.
    """
    values = _context_values(data, name, space)
    return float(np.nanmean(values)), float(np.nanstd(values)) or 1.0


def normalised_context(data: xr.Dataset, name: str, space: tuple[str, ...], moments: tuple[float, float]) -> np.ndarray:
    """A static field with zeros where it is NaN, (*space), float32; raises as `context_moments` does."""
    mean, deviation = moments
    return np.asarray(np.nan_to_num((_context_values(data, name, space) - mean) / deviation), np.float32)


def _context_values(data: xr.Dataset, name: str, space: tuple[str, ...]) -> np.ndarray:
    if name not in data.variables:
        raise DataError(f"context field {schema.nearest(name, map(str, data.variables))}")
    found = data[name]
    if set(map(str, found.dims)) != set(space):
        raise DataError(f"context field '{name}' has dimensions {found.dims}, expected {space}")
    if found.dtype.kind not in "fiub":
        raise DataError(f"context field '{name}' has values of type {found.dtype}, expected numbers or truth values")
    return np.asarray(found.transpose(*space).values, float)
