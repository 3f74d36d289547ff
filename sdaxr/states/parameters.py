r"""Parameters: unknown constants of a system, such as a forcing or a Reynolds number, beside its states.

A parameter :math:`\theta` has one value for each trajectory. A prior holds it as a channel that is the same at all
times and points, so that its samples are draws of the trajectory and of the parameter together,

.. math:: x, \theta \sim p(x, \theta) = p(\theta)\, p(x | \theta), \qquad
          p(x, \theta | y) \propto p(y | x, \theta)\, p(x, \theta),

where :math:`p(\theta)` is the distribution of the training trajectories: a posterior cannot leave their range. This is
the augmentation of the state in ensemble filters (Anderson 2001,
doi:10.1175/1520-0493(2001)129<2884:AEAKFF>2.0.CO;2), for whole trajectories.

In a Dataset a parameter is a variable without time and space, ``(trajectory,)`` or ``(member,)``. Of a sample it is the
mean over its channel. A denoiser that knows the joint distribution makes the channel constant; what varies within it is
a residual that says how far the denoiser is from that. A warning tells where it is large.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr.schema import TIME, DataError, GridError
from sdaxr.states.axes import ensemble_dimension

if TYPE_CHECKING:
    from sdaxr.states.fields import StateLayout

_log = logging.getLogger(__name__)

# Residual, in standard deviations of the parameter, that is still a constant for what a posterior tells of it.
_CONSTANT = 0.1


def parameter_names(data: xr.Dataset, names: list[str]) -> tuple[str, ...]:
    """Those of the variables ``names`` that are parameters: without time.

    Raises
    ------
    DataError
        If such a variable has other dimensions than that of the trajectories, or all variables are parameters.
    """
    ensemble = ensemble_dimension(data)
    found = [name for name in names if TIME not in data[name].dims]
    for name in found:
        if ensemble is None or data[name].dims != (ensemble,):
            raise DataError(
                f"'{name}' has the dimensions {tuple(map(str, data[name].dims))}, expected either 'time', or that of "
                "the trajectories alone for a constant of each; leave it out with variables=[...], or pass a static "
                "field as context=[...]"
            )
    if len(found) == len(names):
        raise DataError(f"found the parameters {found} alone, expected a variable with a 'time' dimension beside them")
    return tuple(found)


def check_parameter(name: str, values: xr.DataArray) -> None:
    """Raise `GridError` if a parameter has other dimensions than those of members and times."""
    space = [str(d) for d in values.dims if d not in (TIME, ensemble_dimension(values))]
    if space:
        raise GridError(
            f"'{name}' has the dimensions {tuple(map(str, values.dims))}, expected a parameter without {space}; "
            f"take ds.assign({name}=ds['{name}'].isel({', '.join(f'{d}=0' for d in space)}, drop=True))"
        )


def constant_channel(values: xr.DataArray, head: Mapping[Any, int], shape: tuple[int, ...]) -> np.ndarray:
    """The channel of a parameter, shape (*head, 1, *shape); ``head`` are the sizes of ensemble and time."""
    known = [d for d in head if d in values.dims]
    sizes = [size if d in known else 1 for d, size in head.items()]
    array = values.transpose(*known).values.reshape(*sizes, *[1] * (1 + len(shape)))
    return np.broadcast_to(array, (*head.values(), 1, *shape))


def channel_mean(values: Any, time: int, present: np.ndarray | None) -> Any:
    """Mean over times and points, tensor or array (..., time, *space) to (...).

    Parameters
    ----------
    values
        The channel of a parameter.
    time
        Number of the axis of time.
    present
        Where there are data, shape (*space); None where there are everywhere.
    """
    flat = values.mean(time)
    flat = flat.reshape(*flat.shape[:time], -1)
    return flat.mean(-1) if present is None else flat[..., np.flatnonzero(present)].mean(-1)


def channel_residuals(layout: StateLayout, states: np.ndarray) -> dict[str, float]:
    """How far each parameter is from a constant, in units of its standard deviation.

    Parameters
    ----------
    layout
        Layout of the states.
    states
        Normalised trajectories, (..., time, channel, *space).

    Returns
    -------
    {name: the root of the mean square over trajectories of the standard deviation within a channel}.
    """
    axis, found = states.ndim - len(layout.space) - 1, {}
    present = None if layout.mask is None else np.asarray(layout.mask.any(axis=0))
    for name, channel in layout.parameter_channels.items():
        values = np.take(states, channel, axis).astype(float)
        mean, square = (channel_mean(v, axis - 1, present) for v in (values, values**2))
        found[name] = float(np.sqrt(np.mean(square - mean**2).clip(min=0)))
    return found


def warn_of_residuals(layout: StateLayout, states: np.ndarray) -> None:
    """Log how far the parameters of normalised trajectories (..., time, channel, *space) are from constants."""
    for name, residual in channel_residuals(layout, states).items():
        message = "'%s' varies by %.2g of its standard deviation within a sample, of which it is the mean%s"
        if residual > _CONSTANT:
            _log.warning(message, name, residual, "; train the prior longer, or with a network that reaches further")
        else:
            _log.info(message, name, residual, "")
