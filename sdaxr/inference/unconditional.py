"""Samples of a prior without observations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.posterior.samplers.base import Sampler
from sdaxr.posterior.samplers.noise import member_noise
from sdaxr.prior.files import Prior
from sdaxr.prior.hardware import choose_device
from sdaxr.states.isolation import isolated
from sdaxr.states.parameters import warn_of_residuals

# Where times are a calendar, the first state is at the last step until then: within every record of a reanalysis.
_DATE = "2000-01-01"


@isolated()
def draw_prior(
    prior: Prior, steps: int, *, sampler: Sampler, seed: int, device: str = "auto", precision: str = "auto"
) -> xr.Dataset:
    """One trajectory of a prior, x ~ p(x).

    Parameters
    ----------
    prior
        The prior.
    steps
        Number of states, from time 0, or from the first of January 2000 where times are dates.
    sampler
        The sampler. Its corrections are left out: without observations they cost evaluations and improve nothing.
    seed
        Seed of the noise.
    device, precision
        As in `sdaxr.assimilate`.

    Returns
    -------
    Dataset with the variables of the prior on (time, ...), in the units of the prior; its parameters are numbers.

    Raises
    ------
    DivergenceError
        If the sample is not finite.
    """
    target, layout = choose_device(device), prior.layout
    times = layout.times(_first(prior), steps)
    denoiser = prior.denoiser(times, target, stride=sampler.stride, precision=precision)
    algorithm = replace(sampler, corrections=0).build(**prior.noise_levels(steps))
    noise = member_noise(seed, [0], (steps, layout.channels, *layout.shape), target)
    state = algorithm(denoiser, noise)[0].cpu().numpy()
    warn_of_residuals(layout, state)
    template = layout.template(times)[prior.states]
    fields = prior.augmentation.without(layout.to_physical(state, times))
    return template.assign({n: (template[n].dims, fields[str(n)], template[n].attrs) for n in template.data_vars})


def _first(prior: Prior) -> Any:
    """The time of the first state."""
    axis = prior.layout.time
    if axis.kind == "float":
        return 0.0
    if axis.kind == "timedelta":
        return np.timedelta64(0, "ns")
    dated = xr.date_range(_DATE, periods=1, calendar=axis.calendar, use_cftime=axis.kind == "cftime").values[0]
    return axis.step_before(np.datetime64(dated, "ns") if axis.kind == "datetime" else dated)
