"""Observations with the names of coordinates that are expected, in the attributes of their errors, too."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from sdaxr.observations.correlation import ATTRIBUTE
from sdaxr.observations.shared import BY, PREDICTORS
from sdaxr.schema import TIME
from sdaxr.states.names import recognised
from sdaxr.states.time import in_months_of


def recognised_observations(observations: xr.Dataset, like: Mapping[Hashable, Mapping[Any, Any]]) -> xr.Dataset:
    """Observations with the names of the coordinates ``like`` (`sdaxr.states.names.recognised`).

    Attributes of the errors that name coordinates follow: scales of correlations, sources and predictors of biases.
    """
    found = recognised(observations, like)
    # Renaming keeps the order of the variables.
    names = {str(a): str(b) for a, b in zip(observations.variables, found.variables, strict=True) if a != b}
    changed = {n: v.attrs | _renamed(v.attrs, names) for n, v in found.data_vars.items() if _renamed(v.attrs, names)}
    return found.assign({n: found[n].assign_attrs(attrs) for n, attrs in changed.items()}) if changed else found


def named_as(observations: xr.Dataset, states: xr.Dataset) -> xr.Dataset:
    """Observations with the names of the coordinates of states, see `recognised_observations`, and their months."""
    named = recognised_observations(observations, {n: c.attrs for n, c in states.coords.items()})
    return in_months_of(named, states[TIME]) if TIME in states.coords else named


def _renamed(attrs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that name coordinates with other names."""
    out: dict[str, Any] = {BY: names[attrs[BY]]} if attrs.get(BY) in names else {}
    for key in (PREDICTORS, ATTRIBUTE):
        try:
            named = json.loads(attrs.get(key, ""))
        except (TypeError, json.JSONDecodeError):
            continue  # What reads the attribute says what is wrong with it.
        if isinstance(named, dict) and set(named) & set(names):
            out[key] = json.dumps({names.get(name, name): value for name, value in named.items()})
    return out
