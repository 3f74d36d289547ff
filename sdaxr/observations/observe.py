"""Observations: drawn from a truth, or measured.

Observations are a Dataset. In the *grid form* its dimensions are those of the operator's output, NaN means not
observed, and the attribute ``operator`` holds the operator as JSON; without it, the state itself is observed. In the
*point form* there is one dimension ``obs``, and each measurement has its own ``time`` and place as coordinates. In both
forms, ``<variable>_error`` is one standard deviation of the error, in the units of the variable. Its attribute
``correlation_scales`` holds the distances over which errors are correlated (`sdaxr.observations.correlation`), its
attribute ``distribution`` names a family of errors that are not Gaussian (`sdaxr.observations.noise`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr import schema
from sdaxr.archives.provenance import CONVENTIONS
from sdaxr.observations import masks
from sdaxr.observations.correlation import ATTRIBUTE, check_scales, correlate
from sdaxr.observations.matching import ERROR, observed_variables
from sdaxr.observations.noise import DISTRIBUTION, GAUSSIAN, noise_of
from sdaxr.observations.places import OBS, labels_of
from sdaxr.observations.quality import good_values
from sdaxr.observations.screening import Screening
from sdaxr.operators import Operator, Template, from_json, identity
from sdaxr.operators.base import steps_of
from sdaxr.operators.measurements import Measurements
from sdaxr.operators.pointwise import Select
from sdaxr.schema import TIME, WINDOW_BOUND, DataError, OptionError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.coordinates import coordinate_of, onto_grid
from sdaxr.states.inputs import as_dataset
from sdaxr.states.isolation import isolated
from sdaxr.states.names import auxiliary, named_time
from sdaxr.states.time import onto_times
from sdaxr.states.validation import options_checked

WINDOW = "window"


@options_checked
@isolated()
def observe(
    truth: xr.Dataset,
    operator: Operator,
    *,
    every: int = 1,
    start: int = 0,
    error: float | Mapping[str, float | xr.DataArray] | xr.DataArray,
    noise: str = "gaussian",
    correlation: Mapping[str, float] | None = None,
    seed: int = 0,
    missing: float = 0.0,
    where: xr.DataArray | Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Synthetic observations of a truth: y = H(x) + error, independent or correlated.

    Parameters
    ----------
    truth
        One trajectory, dims (time, ...); NaN only where there are no data at any time (land). Variables without time,
        such as parameters of the system, are observed where the operator selects them:
        ``sdaxr.operators.select("forcing")``.
    operator
        H, from `sdaxr.operators`.
    every, start
        Observe the times ``start, start + every, ...`` of the operator's output, counted from 0.
    error
        One standard deviation of the error, in the units of the operator's output: a number, a DataArray that
        broadcasts against it, or one of them for each variable.
    noise
        Family of the errors: ``"gaussian"``, ``"laplace"``, ``"uniform"`` or ``"lognormal"``
        (`sdaxr.observations.noise`), each with mean zero and standard deviation ``error``. The attribute
        ``distribution`` of the errors records a family that is not Gaussian; `sdaxr.assimilate` reads it.
    correlation
        Distances over which the correlation of Gaussian errors falls to 1 / e, by coordinate of the operator's output
        and in its units (seconds where time is a calendar), such as ``{"time": 0.1}``. The correlation is
        exp(-sum |difference| / distance). Along other dimensions, and between variables, errors are independent.
    seed
        Seed of the noise, the missing values and random places.
    missing
        Fraction of the values that are missing, each at random and independently, in [0, 1).
    where
        Where and when there are observations: a boolean DataArray on some dimensions of the operator's output (it may
        have more times than are observed), or the parameters of a mask:
        ``{"coverage": 0.01, "fixed": True}`` of `sdaxr.random_mask`, ``{"stride": 4, "shift": 1}`` of
        `sdaxr.strided_mask`.

    Returns
    -------
    xr.Dataset
        Observations in the grid form (NaN = not observed), ``<variable>_error``, and ``window``, the first and the
        last time of the truth. The attribute ``correlation_scales`` of the errors records ``correlation``;
        `sdaxr.assimilate` reads it. With ``where``, the attribute ``coverage`` is the fraction of the mask that is
        True, and ``where`` holds its parameters.

    Raises
    ------
    DataError
        If the truth has several trajectories, no time, or NaN at some times only; if the error is not positive, or
        correlated along a coordinate that is not there; if ``where`` is not boolean, or nothing is observed.
    GridError
        If ``error`` or ``where`` is on another grid.
    OptionError
        If ``every``, ``start``, ``seed``, ``noise``, ``missing`` or ``where`` is impossible.
    OperatorError
        If the operator cannot be applied to the truth.
    """
    for key, number, least in (("every", every, 1), ("start", start, 0), ("seed", seed, 0)):
        schema.check_least(key, number, least)
    if not 0 <= missing < 1:
        raise OptionError(f"missing is {missing}, expected a fraction from 0 to less than 1")
    transform = noise_of(noise)
    if correlation is not None and noise != GAUSSIAN:
        raise OptionError(f"found correlation= beside noise={noise!r}, expected {GAUSSIAN!r}; leave one of them out")
    truth = _one_trajectory(named_time(as_dataset(truth, "the truth")), operator)
    _check_gaps(truth)
    clean = operator.apply(truth)
    if TIME in clean.dims:
        if start >= clean.sizes[TIME]:
            raise OptionError(f"start={start} is beyond the {clean.sizes[TIME]} times, expected 0 or more, and less")
        clean = clean.isel({TIME: slice(start, None, every)})
    elif every != 1 or start != 0:
        raise OptionError(
            f"found every={every} and start={start}, but the output of {operator} has no 'time'; leave them out"
        )
    errors = _errors(error, clean)
    scales = None if correlation is None else check_scales(correlation, "correlation=")
    mask = masks.mask_of(where, clean, seed)
    model = {} if scales is None else {ATTRIBUTE: json.dumps(scales)}
    model |= {} if noise == GAUSSIAN else {DISTRIBUTION: noise}
    template = Template.from_dataset(clean)
    draw, gaps = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    attrs = _provenance(clean, operator, every, start, seed, missing, noise, scales) | masks.describe(where, mask)
    out = xr.Dataset(coords=clean.coords, attrs=attrs)
    for name, value in clean.data_vars.items():
        unit = value.copy(data=transform(draw.standard_normal(value.shape)))
        added = (unit if scales is None else correlate(unit, template, scales)) * errors[str(name)]
        keep = gaps.random(value.shape) >= missing
        out[name] = (value + added).where(keep).where(mask).transpose(*value.dims).astype(value.dtype)
        out[name].attrs = {**value.attrs, "ancillary_variables": f"{name}{ERROR}"}
        out[f"{name}{ERROR}"] = errors[str(name)].astype(value.dtype)
        out[f"{name}{ERROR}"].attrs = _error_attrs(value) | model
    bounds = truth[TIME].values[[0, -1]]
    attrs = {**truth[TIME].attrs, "long_name": "first and last time of the observed window"}
    return out.assign_coords(
        {WINDOW: (WINDOW_BOUND, bounds, {k: attrs[k] for k in ("units", "long_name") if k in attrs})}
    )


def operator_for(observations: xr.Dataset, screening: Screening | None = None) -> Operator:
    """The operator that observations say they were made with.

    Grid form: the one in the attribute ``operator``, or the identity if there is none. Point form: that operator, and
    then the state at the time and place of each measurement. ``screening`` says how measurements between two steps are
    observed, and what happens to those outside the grid or the window.

    Raises
    ------
    OperatorError
        If the attribute cannot be read, or holds a Python function.
    DataError
        If measurements in point form have no time.
    """
    text = observations.attrs.get("operator")
    operator = from_json(text) if text is not None else identity()
    if not is_point_form(observations) or _looks_at_points(operator):
        return operator
    how = Screening() if screening is None else screening
    points = Measurements(
        _point_coordinates(observations),
        OBS,
        labels_of(observations, OBS),
        how.outside,
        how.time,
        how.tolerance or 0.0,
        used_rows(observations, how),
    )
    return operator >> points if text is not None else points


def is_point_form(observations: xr.Dataset) -> bool:
    """Whether the observations are single measurements along the dimension ``obs``."""
    return OBS in observations.dims


# Drawing observations


def _one_trajectory(truth: xr.Dataset, operator: Operator) -> xr.Dataset:
    ensemble = ensemble_dimension(truth)
    if ensemble is not None:
        if truth.sizes[ensemble] != 1:
            raise DataError(
                f"the truth has {truth.sizes[ensemble]} along '{ensemble}', expected one; select it, "
                f"truth.isel({ensemble}=0)"
            )
        truth = truth.isel({ensemble: 0})
    if TIME not in truth.dims or TIME not in truth.coords:
        raise DataError(
            f"the truth has the dimensions {list(truth.sizes)}, expected 'time' with a coordinate; name it with "
            "ds.rename(...) or ds.assign_coords(time=...)"
        )
    aside = auxiliary(truth)
    moving = [n for n, v in truth.data_vars.items() if TIME in v.dims and v.dtype.kind in "fiu" and n not in aside]
    if not moving:
        raise DataError(f"the truth has the variables {list(truth.data_vars)}, expected numbers along 'time'")
    selected = {name for step in steps_of(operator) if isinstance(step, Select) for name in step.names}
    constants = [n for n, v in truth.data_vars.items() if not v.dims and n in selected]
    return truth[moving + constants].load()


def _check_gaps(truth: xr.Dataset) -> None:
    for name, variable in truth.data_vars.items():
        if TIME not in variable.dims:
            continue
        gap = variable.isnull()
        partial = gap & ~gap.all(TIME)
        if partial.any():
            first = truth[TIME].values[
                int(partial.transpose(TIME, ...).values.reshape(gap.sizes[TIME], -1).any(1).argmax())
            ]
            raise DataError(
                f"the truth '{name}' has {int(partial.sum())} NaN at points with data at other times, the first at "
                f"{first}; expected NaN at all times (land) or at none; fill them (ds.interpolate_na('time')) or "
                "leave these times or points out"
            )


def _errors(error: Any, clean: xr.Dataset) -> dict[str, xr.DataArray]:
    names = [str(n) for n in clean.data_vars]
    if not isinstance(error, Mapping):
        error = dict.fromkeys(names, error)
    for name in error:
        if name not in names:
            raise DataError(f"error= names {schema.nearest(str(name), names)}")
    for name in names:
        if name not in error:
            raise DataError(f"error= has no entry for '{name}', found {list(error)}; expected one for each of {names}")
    return {name: _error_of(name, error[name], clean[name]) for name in names}


def _error_of(name: str, error: Any, value: xr.DataArray) -> xr.DataArray:
    values = error.load() if isinstance(error, xr.DataArray) else np.asarray(error)
    if values.dtype.kind not in "fiu":
        raise DataError(f"the error of '{name}' is {schema.shown(error)}, expected a number")
    array = xr.DataArray(values).astype(float)
    units = value.attrs.get("units")
    schema.check_units(f"{name}{ERROR}", array.attrs.get("units") or units, units, "error=")
    strange = [d for d in array.dims if d not in value.dims]
    if strange:
        raise DataError(f"the error of '{name}' has the dimensions {strange}, expected some of {list(value.dims)}")
    labels = {"of": f"the error of '{name}'", "like": "the observations"}
    if TIME in array.indexes and TIME in value.indexes:
        array = onto_times(array, value[TIME], **labels)
    grid = {d: coordinate_of(value[d]) if d in value.coords else value.sizes[d] for d in array.dims if d != TIME}
    array = onto_grid(array, grid, **labels)
    bad = ~(np.isfinite(array.values) & (array.values > 0))
    if bad.any():
        raise DataError(
            f"the error of '{name}' is {array.values[bad].ravel()[0]}, expected a finite standard deviation above 0, "
            f"in {value.attrs.get('units', 'the units of the observation')}"
        )
    return array.drop_vars([c for c in array.coords if c not in array.dims])


def _error_attrs(value: xr.DataArray) -> dict[str, str]:
    title = value.attrs.get("long_name", value.attrs.get("standard_name", value.name))
    attrs = {"long_name": f"standard deviation of the error of {title}"}
    if "standard_name" in value.attrs:
        attrs["standard_name"] = f"{value.attrs['standard_name']} standard_error"
    return {**attrs, **({"units": value.attrs["units"]} if "units" in value.attrs else {})}


def _provenance(
    clean: xr.Dataset,
    operator: Operator,
    every: int,
    start: int,
    seed: int,
    missing: float,
    noise: str,
    scales: Mapping[str, float] | None,
) -> dict[str, Any]:
    return {
        "Conventions": CONVENTIONS,
        "title": "Synthetic observations",
        "operator": json.dumps(operator.to_dict()),
        "error_model": f"{'independent' if scales is None else 'correlated'} {noise.replace('gaussian', 'Gaussian')}",
        "every": int(every),
        "start": int(start),
        "seed": int(seed),
        "missing": float(missing),
        **clean.attrs,
    }


# The point form


def _looks_at_points(operator: Operator) -> bool:
    return any(step["op"] == "locations" for step in operator.to_dict().get("steps", [operator.to_dict()]))


def used_rows(observations: xr.Dataset, screening: Screening) -> np.ndarray:
    """Which measurements of the point form have a value of good quality, shape (obs,)."""
    used = np.zeros(observations.sizes[OBS], bool)
    for name in observed_variables(observations):
        present = observations[name].notnull()
        good = good_values(observations, name, screening.good_of(name))
        present = present if good is None else present & good
        used |= present.any([d for d in present.dims if d != OBS]).values
    return used


def _point_coordinates(observations: xr.Dataset) -> dict[str, xr.DataArray]:
    along = {str(n): c for n, c in observations.coords.items() if c.dims == (OBS,) and str(n) != OBS}
    if TIME not in along:
        raise DataError(
            f"found the coordinates {list(along)} along '{OBS}', expected 'time' and the position of each measurement; "
            f"add them with ds.assign_coords(time=('{OBS}', ...))"
        )
    return {n: c for n, c in along.items() if n == TIME or c.dtype.kind in "fiu"}
