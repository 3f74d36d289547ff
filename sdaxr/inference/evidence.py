r"""Which observations are evidence: in their place, of good quality, and plausible under the prior.

`sdaxr.observations.plausibility` says what is implausible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sdaxr.inference.projection import Projection, local_moments, natural_moments
from sdaxr.observations.matching import match
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.plausibility import implausible_values
from sdaxr.observations.repeats import without_repeats
from sdaxr.observations.screening import GROSS_ERROR, IMPLAUSIBLE, LAND, Screening
from sdaxr.operators import Operator, Template
from sdaxr.prior.files import Prior
from sdaxr.schema import DataError, others


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
    earlier: Mapping[str, ObservedPoints] | None = None,
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
    earlier
        Observations of other networks that are used, by network, of which none is used again
        (`sdaxr.observations.repeats`).

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError
        If the operator does not turn trajectories into quantities on the grid and in the units of the observations; if
        an observation is implausible, on land, there twice, or in another way not what ``screening`` expects.
    """
    bound = operator.bind(Template.from_dataset(prior.layout.template(times)))
    points = without_repeats(ObservedPoints.of(data, bound.template, screening, times), earlier, screening)
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
    moments = (a.cpu().numpy().astype(float) for a in (mean, scale))
    implausible = implausible_values(points, *moments, whose="the prior's", strict=strict)
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
            if name not in matched:
                channels.append(np.full(shape, np.nan))
            elif name in layout.parameters:
                channels.append(np.full(shape, matched[name][part]))
            else:
                channels.append(matched[name][part][0].reshape(shape))
        found.append(torch.as_tensor((np.concatenate(channels) - offset) / std, dtype=torch.float32).to(device))
    return found[0], found[1]
