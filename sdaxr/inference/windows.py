"""The windows of a cycle: which observations belong to each, and how they become one Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.finished import remove
from sdaxr.archives.format import BOOKKEEPING, STATUS
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import save
from sdaxr.inference.place import Place
from sdaxr.observations.matching import observed_variables
from sdaxr.observations.places import OBS
from sdaxr.observations.provenance import describe_networks, fingerprint, sum_counts
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import Operators
from sdaxr.schema import TIME, OptionError
from sdaxr.states.coordinates import TOLERANCE
from sdaxr.states.time import elapsed
from sdaxr.systems.base import System


def settings_of(
    networks: Mapping[str, xr.Dataset],
    axis: xr.DataArray,
    operators: Operators,
    background: xr.Dataset | None,
    **numbers: Any,
) -> dict[str, Any]:
    """What tells one cycle from another, as attributes: its observations, states and operators, and further settings.

    Parameters
    ----------
    networks, axis, operators
        The observations, the times of the states, and the operators that replace those of the observations.
    background
        The estimate of the first state, if there is one.
    **numbers
        Further settings by name; the name of the attribute begins with ``cycle_``.
    """
    return {
        "observations_sha256": fingerprint(networks.values()),
        "cycle_times": f"{axis.values[0]} to {axis.values[-1]}",
        "cycle_background": "none" if background is None else fingerprint([background]),
        "cycle_operators": json.dumps(describe_networks(networks, operators)["operators"]),
        **{f"cycle_{name}": value for name, value in numbers.items()},
    }


def named(model: System) -> str:
    """Name and options of a system, as one text."""
    return f"{model.name} {json.dumps(model.options(), sort_keys=True)}"


# Attributes of one assimilation, which differ between the windows.
OF_A_DRAW = {"mode_test", "mixing_sampler", "mixing_sampler_options", "mixing_failed", "effective_members"}


def joined(
    analyses: Sequence[xr.Dataset],
    networks: Sequence[str],
    attrs: Mapping[str, Any],
    place: Place,
) -> xr.Dataset:
    """The windows as one Dataset, in memory or in the store; then the folder of the windows is removed.

    Raises
    ------
    Overtaken
        If another process has done it.
    """
    found = xr.concat(analyses, TIME, data_vars="minimal", coords="minimal", compat="override", join="override")
    found = found.drop_vars(STATUS, errors="ignore")
    found.attrs = {k: v for k, v in analyses[0].attrs.items() if k not in BOOKKEEPING | OF_A_DRAW} | dict(attrs)
    if any("mode_test" in analysis.attrs for analysis in analyses):
        found.attrs["windows_mixed"] = sum(
            "mixing_sampler" in analysis.attrs and "mixing_failed" not in analysis.attrs for analysis in analyses
        )
        found.attrs["evaluations_per_member"] = np.mean([a.attrs["evaluations_per_member"] for a in analyses]).item()
    found.attrs |= sum_counts(list(networks), [analysis.attrs for analysis in analyses])
    if place.store is None or place.folder is None:
        return found.load()
    with place.in_use(alone=True):
        save(found, place.store, overwrite=place.overwrite)
        remove(place.folder)
    return open_archive(place.store)


def within(
    name: str,
    data: xr.Dataset,
    axis: xr.DataArray,
    part: tuple[int, int],
    screening: Screening,
    *,
    timeless: bool = False,
) -> tuple[xr.Dataset | None, int]:
    """The observations of a network that belong to a window, the states ``part[0]`` to ``part[1] - 1`` of ``axis``.

    Measurements between the last state of a window and the next state belong to the window, which then has this state,
    too. The first and the last window have all observations that lie before and after ``axis``. Observations of
    parameters, which have no time (``timeless``), belong to the first window; the ensemble carries on what they tell.

    Returns
    -------
    data, end
        The observations, None if there is none; and the number of the first state that the window does not need.
    """
    if timeless:
        return (data.drop_vars("window", errors="ignore") if part[0] == 0 else None), part[1]
    dim = OBS if OBS in data.dims else TIME
    if TIME not in data.coords or data[TIME].dims != (dim,):
        raise OptionError(
            f"the network '{name}' has no times of its own (dimensions {tuple(map(str, data.dims))}), expected the "
            "time of each observation, by which the network is split into windows; assimilate this network as a whole"
        )
    first, end = part
    place = places(data[TIME], axis)
    between = dim == OBS and screening.time == "linear"
    number = np.floor(place + TOLERANCE) if between else np.round(place)
    chosen = ((number >= first) | (first == 0)) & ((number < end) | (end == axis.size))
    found = data.isel({dim: np.flatnonzero(chosen)})
    if not any(bool(np.isfinite(found[v]).any()) for v in observed_variables(found)):
        return None, end
    beyond = between and end < axis.size and bool((place[chosen] > end - 1 + TOLERANCE).any())
    return found.drop_vars("window", errors="ignore"), end + beyond


def places(times: xr.DataArray, axis: xr.DataArray) -> np.ndarray:
    """Numbers of the steps of ``axis`` at ``times``, not whole between two steps; below 0 before the first one."""
    apart, steps = elapsed(times, axis.values[0]), elapsed(axis, axis.values[0])
    mean = steps[-1] / (steps.size - 1) if steps.size > 1 else 1.0
    place = np.interp(apart, steps, np.arange(steps.size))
    return np.asarray(place + np.where(apart < 0, apart, (apart - steps[-1]).clip(min=0.0)) / mean)
