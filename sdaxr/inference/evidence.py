r"""Which observations are evidence: in their place, of good quality, and plausible under the prior.

A value y with the error e is implausible if it is further from the prior than

.. math:: |y - m| > 50 \sqrt{s^2 + e^2},

with the natural mean m and the natural scale s of the observed quantity. For any distribution at all, the probability
of such a value is less than 1 / 2500 (Chebyshev); those of geophysical quantities, precipitation among them, end
before. Usual numbers for missing values, such as -9999, are implausible beyond 5 s: geopotentials and pressures are
so far from zero, in units of their variability, that 50 s contain these numbers.

States are in single precision, with a relative rounding error of 6e-8. An error below 1e-7 s asks for more digits than
a state has, and an error above 1e6 s leaves a value without weight. Either is a fill value or a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.inference.projection import Projection, local_moments, natural_moments
from sdaxr.observations.matching import match
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.screening import GROSS_ERROR, IMPLAUSIBLE, LAND, Screening
from sdaxr.operators import Operator, Template
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, others

FARTHEST = 50.0
"""Largest distance of a value from the natural mean, in natural scales and errors."""

_MARKER_DISTANCE = 5.0
_MARKERS = np.array([99, 99.9, 99.99, 999, 999.9, 999.99, 9999, 9999.9, 99999, 32766, 32767, 32768, 65535])
_ERRORS = (1e-7, 1e6)  # in natural scales


@dataclass(frozen=True)
class Evidence:
    """The observations of one network that are used.

    Attributes
    ----------
    points
        The observations, with the status of all that were given.
    seen
        The operator at these observations.
    scale
        Natural scale of each, shape (n,).
    """

    points: ObservedPoints
    seen: Projection
    scale: Tensor


def screen(
    data: xr.Dataset,
    operator: Operator,
    prior: Prior,
    times: xr.DataArray,
    device: torch.device,
    screening: Screening,
    *,
    strict: bool = True,
    background: xr.Dataset | None = None,
) -> Evidence:
    """The observations of one network that are evidence, for trajectories of ``prior`` on ``times``.

    Parameters
    ----------
    data, operator
        The observations, and their operator.
    prior, times
        The prior, and the times of the trajectory.
    device
        Device of the computation.
    screening
        Options, which say what is refused, and what is left out.
    strict
        Whether implausible values are an error. Otherwise they are left out, with this status.
    background
        The background of the first state, as a network of observations
        (`sdaxr.observations.window.background_network`), for the background check of observations of this state.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the operator does not turn trajectories into quantities on the grid and in the units of the observations; if
        an observation is implausible, or on land, or in another way not what ``screening`` expects.
    """
    bound = operator.bind(Template.from_dataset(prior.layout.template(times)))
    points = ObservedPoints.of(data, bound.template, screening, times)
    seen = Projection.of(operator, bound, prior, times, points.where, device)
    land = seen.on_land(times.size)
    if land.any() and screening.outside == "error":
        raise DataError(
            f"{points.describe(int(land.argmax()))}{others(int(land.sum()) - 1)} is on land of the prior; "
            'expected observations at sea; set them to NaN, or pass outside="drop" to leave them out'
        )
    points, seen = _without(points, seen, land, LAND)
    if not points.count:
        return Evidence(points, seen, torch.zeros(0, device=device))
    mean, scale = natural_moments(seen, times.size)
    implausible = _implausible(points, mean.cpu().numpy().astype(float), scale.cpu().numpy().astype(float), strict)
    points, seen = _without(points, seen, implausible, IMPLAUSIBLE)
    scale = scale[torch.as_tensor(~implausible, device=device)]
    failed = _gross_errors(points, seen, times, screening, background)
    points, seen = _without(points, seen, failed, GROSS_ERROR)
    return Evidence(points, seen, scale[torch.as_tensor(~failed, device=device)])


def _without(
    points: ObservedPoints, seen: Projection, bad: np.ndarray, reason: int
) -> tuple[ObservedPoints, Projection]:
    if not bad.any():
        return points, seen
    points = points.reject(bad, reason)
    return points, replace(seen, where=points.where)


def _implausible(points: ObservedPoints, mean: np.ndarray, scale: np.ndarray, strict: bool) -> np.ndarray:
    values, errors = points.values, points.errors
    distance = np.abs(values - mean) / np.hypot(scale, errors)
    marked = (np.isclose(np.abs(values)[:, None], _MARKERS, rtol=1e-6, atol=0).any(1)) & (distance > _MARKER_DISTANCE)
    far = (distance > FARTHEST) | marked
    ratio = errors / scale
    strange = (ratio < _ERRORS[0]) | (ratio > _ERRORS[1])
    if strict and far.any():
        at = int(far.argmax())
        hint = ", the usual number for a missing value" if marked[at] or abs(values[at]) > 1e19 else ""
        raise DataError(
            f"{points.describe(at)} is {distance[at]:.2g} standard deviations from the prior's mean of {mean[at]:.6g}"
            f"{hint}{others(int(far.sum()) - 1)}; expected at most {FARTHEST:g}; correct them, or set "
            "them to NaN to leave them out"
        )
    if strict and strange.any():
        at = int(strange.argmax())
        raise DataError(
            f"{points.describe(at)} has the error {errors[at]:.3g}, {ratio[at]:.2g} times the prior's standard "
            f"deviation of {scale[at]:.3g}{others(int(strange.sum()) - 1)}; expected {_ERRORS[0]:g} to "
            f"{_ERRORS[1]:g}; correct '{points.names[at]}_error', or set the values to NaN to leave them out"
        )
    return np.asarray(far | strange)


def _gross_errors(
    points: ObservedPoints,
    seen: Projection,
    times: xr.DataArray,
    screening: Screening,
    background: xr.Dataset | None,
) -> np.ndarray:
    if screening.gross_error is None or not points.count:
        return np.zeros(points.count, bool)
    sizes = [len(i) for i in points.where.values()]
    factors = [screening.gross_error_of(name) or np.inf for name in points.where]
    first = None if background is None else _first_state(background, seen.prior, times, seen.device)
    mean, variance = (a.cpu().numpy() for a in local_moments(seen, times.size, first=first))
    allowed = np.repeat(factors, sizes) * np.sqrt(variance + points.errors**2)
    return np.asarray(np.abs(points.values - mean) > allowed)


def _first_state(
    background: xr.Dataset, prior: Prior, times: xr.DataArray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the first normalised state, (channel, *space); NaN where nothing is known."""
    layout = prior.layout
    matched = match(background, Template.from_dataset(layout.template(times)))
    found = []
    mean, std = (np.broadcast_to(a, (1, layout.channels, *layout.shape))[0] for a in layout.moments(times[:1]))
    for part, offset in ((0, mean), (1, 0.0)):
        channels = []
        for name in layout.variables:
            shape = (layout.depth(name), *layout.shape)
            channels.append(matched[name][part][0].reshape(shape) if name in matched else np.full(shape, np.nan))
        found.append(torch.as_tensor((np.concatenate(channels) - offset) / std, dtype=torch.float32).to(device))
    return found[0], found[1]
