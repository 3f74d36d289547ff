"""What a Dataset is, where it comes from, and what can be done with it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import CONFIG
from sdaxr.archives.format import BOOKKEEPING, STATUS, STATUS_NAMES
from sdaxr.schema import LEAD_TIME, MEMBER, TIME, TRAJECTORY, SdaxrError
from sdaxr.states.axes import ensemble_dimension, space_dimensions
from sdaxr.states.coordinates import period_along

_NEXT = {
    "trajectories": "train, observe (one of them: isel(trajectory=...)), plot, animate",
    "observations": "assimilate, plot",
    "posterior": "verify, innovations, forecast, plot, animate",
    "forecast": "verify, plot, animate",
    "fields": "observe, train, denoise, plot, animate",
    "innovations": "plot",
    "scores": "print, plot with xarray",
    "calibration": "plot",
}
_LONGEST = 100


def kind(data: xr.Dataset) -> str:
    """What ``data`` is: one of the kinds of `_NEXT`."""
    declared = str(data.attrs.get("sdaxr_kind", ""))
    if declared in _NEXT:
        return declared
    names = set(map(str, data.data_vars))
    if LEAD_TIME in data.dims:
        return "forecast"
    if any(name.endswith("_innovation") for name in names):
        return "innovations"
    if "operator" in data.attrs or any(f"{name}_error" in names for name in names):
        return "observations"
    if MEMBER in data.dims:
        return "posterior"
    if TRAJECTORY in data.dims:
        return "trajectories"
    return "fields"


def describe(data: xr.Dataset) -> dict[str, str]:
    """What a reader wants to know about ``data`` first, by topic, without computing anything large."""
    ensemble = ensemble_dimension(data)
    facts = {"kind": kind(data)}
    if ensemble is not None:
        facts[str(ensemble)] = f"{data.sizes[ensemble]}{_splits(data)}"
    if STATUS in data.coords:
        facts["status"] = _counts(STATUS_NAMES.get(int(s), str(s)) for s in data[STATUS].values.ravel())
    for name in (LEAD_TIME, TIME):
        if name in data.coords:
            facts[name] = _times(data[name])
    if data.data_vars:
        # Parameters, which have neither time nor space, may come first.
        first = max(data.data_vars.values(), key=lambda variable: variable.ndim)
        facts["space"] = (
            ", ".join(f"{d} {data.sizes[d]}{_periodic(data, d)}" for d in space_dimensions(first)) or "none"
        )
    facts["variables"] = ", ".join(_variable(data[name]) for name in data.data_vars) or "none"
    facts["next"] = _NEXT[facts["kind"]]
    return facts


def safe_describe(data: xr.Dataset) -> dict[str, str]:
    """`describe`, or what is wrong with ``data``: for representations, which must never raise."""
    try:
        return describe(data)
    except SdaxrError as error:
        return {"kind": "unclear", "problem": str(error)}


def provenance(data: xr.Dataset) -> dict[str, str]:
    """The attributes of ``data`` as short text, and what else is in the configuration of an archive in full."""
    facts = {str(name): short(value) for name, value in data.attrs.items() if name not in BOOKKEEPING}
    if CONFIG in data.attrs:
        settings = json.loads(data.attrs[CONFIG]).items()
        rest = [f"{k}: {v}" for k, v in settings if not {k, f"sdaxr_{k}"} & set(map(str, data.attrs))]
        facts["configuration"] = ", ".join(rest)
    return facts


def format_facts(facts: dict[str, str]) -> str:
    """``facts`` as lines of two aligned columns."""
    width = max(map(len, facts), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def _splits(data: xr.Dataset) -> str:
    return f" ({_counts(map(str, data['split'].values.ravel()))})" if "split" in data.coords else ""


def _counts(values: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(values).items())


def _times(times: xr.DataArray) -> str:
    values = times.values.ravel()
    if not values.size:
        return "0"
    units = f" {times.attrs['units']}" if times.attrs.get("units", "1") != "1" else ""
    first, last = (f"{v:g}" if isinstance(v, float) else str(v) for v in (values[0], values[-1]))
    return f"{values.size}, from {first} to {last}{units}"


def _periodic(data: xr.Dataset, dim: Any) -> str:
    return " (periodic)" if period_along(data, dim) is not None else ""


def _variable(variable: xr.DataArray) -> str:
    return f"{variable.name} [{variable.attrs.get('units', '?')}]"


def short(value: Any) -> str:
    """``value`` on one line, cut where it is long."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
