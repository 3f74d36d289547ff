"""The status of every single observation, as `sdaxr.assimilate` decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import xarray as xr

from sdaxr.archives.paths import Location
from sdaxr.archives.provenance import CONVENTIONS
from sdaxr.inference.evidence import Evidence, screen
from sdaxr.observations.conversion import in_units, places_in_units
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.provenance import count_observations
from sdaxr.observations.screening import Screening, flag_attrs
from sdaxr.observations.window import (
    Observations,
    Operators,
    as_networks,
    background_ensemble,
    background_network,
    mean_and_spread,
    operator_of,
    window_times,
)
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.states.validation import options_checked


@options_checked
def report(
    observations: Observations,
    prior: str | Location | Prior,
    *,
    operator: Operators = None,
    times: Any = None,
    background: xr.Dataset | None = None,
    units: str = "error",
    screening: Screening | Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset | xr.DataTree:
    """The status of every single observation: used, or why it is not.

    Nothing is refused that can be told by a status: observations outside, off the steps, on land, or implausible are
    errors of `sdaxr.assimilate`, and a status here. Duplicates after the first have a status.

    Parameters
    ----------
    observations, prior, operator, times, units
        As of `sdaxr.assimilate`.
    background
        As of `sdaxr.assimilate`: an earlier estimate of the first state, with which the background check of this state
        compares (``gross_error`` of ``screening``). The background itself is no part of the report.
    screening
        Options that say which observations are used (`sdaxr.observations.screening.Screening`).
    storage_options
        Options of the file system of the prior's URL (fsspec).

    Returns
    -------
    xarray.Dataset
        For each observed variable its values, with all coordinates, and ``<variable>_status``, a CF flag variable:
        used, missing, outside, off_step, land, flagged, duplicate, failed_background_check or implausible. The
        attributes count them, as in `sdaxr.assimilate`. A DataTree for several networks.

    Raises
    ------
    DataError, GridError, UnitsError, OperatorError, PriorError
        If observations and prior do not fit together in another way.
    """
    opened, given = open_prior(prior, storage_options=storage_options), Screening.of(screening)
    how = replace(given, outside="drop", duplicates="keep" if given.duplicates == "keep" else "drop")
    networks = as_networks(observations, opened.layout)
    networks, _ = places_in_units(networks, opened.layout.coordinate_attrs, units)
    axis = window_times(networks, opened.layout, times, screening=how)
    operators = {name: operator_of(name, data, operator, how) for name, data in networks.items()}
    networks, _ = in_units(networks, operators, opened.layout.template(axis), units)
    first = None if background is None else _first_guess(background, axis, opened.layout.parameters)
    found: dict[str, xr.Dataset] = {}
    earlier: dict[str, ObservedPoints] = {}
    for name, data in networks.items():
        evidence = screen(
            data, operators[name], opened, axis, torch.device("cpu"), how,
            strict=False, background=first, earlier=earlier,
        )  # fmt: skip
        earlier[name] = evidence.points
        found[name] = _labelled(data, evidence, opened)
    if isinstance(observations, xr.Dataset | xr.DataArray):
        return next(iter(found.values()))
    return xr.DataTree.from_dict({f"/{name}": data for name, data in found.items()})


def _first_guess(background: xr.Dataset, times: xr.DataArray, parameters: tuple[str, ...]) -> xr.Dataset:
    """The background of the first state as one state and its error."""
    members = background_ensemble(background, times, parameters)
    return background_network(background, times, parameters) if members is None else mean_and_spread(members)


def _labelled(data: xr.Dataset, evidence: Evidence, prior: Prior) -> xr.Dataset:
    points, statuses = evidence.points, {}
    for name, status in points.status.items():
        label = f"{name}_status"
        dims = points.template.variables[name].dims
        statuses[name] = data[name].assign_attrs(ancillary_variables=label)
        statuses[label] = xr.DataArray(status, dims=dims, attrs=flag_attrs(name)).transpose(*data[name].dims)
    out = xr.Dataset(statuses).assign_coords(data.coords)
    about = {"Conventions": CONVENTIONS, "title": f"status of observations for the prior {prior.name!r}"}
    numbers = {key: value[0] for key, value in count_observations([points.status]).items()}
    return out.drop_vars("window", errors="ignore").assign_attrs(about | numbers)
