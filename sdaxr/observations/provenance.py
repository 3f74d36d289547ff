"""What a posterior records of its observations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import ATTRIBUTE
from sdaxr.observations.matching import observed_variables
from sdaxr.observations.noise import DISTRIBUTION
from sdaxr.observations.window import Operators


def describe_networks(networks: Mapping[str, xr.Dataset], operator: Operators) -> dict[str, Any]:
    """Provenance of networks of observations: their names, operators and a hash of their values."""
    return {
        "networks": list(networks),
        "operators": [_operator_text(name, data, operator) for name, data in networks.items()],
        "observations_sha256": fingerprint(networks.values()),
    }


def count_observations(networks: Mapping[str, xr.Dataset], used: Sequence[int]) -> dict[str, list[int]]:
    """Numbers of values of each network that are used, and that are dropped because they lie outside the window."""
    given = [sum(int(d[v].notnull().sum()) for v in observed_variables(d)) for d in networks.values()]
    dropped = [g - u for g, u in zip(given, used, strict=True)]
    return {"observations_used": list(used), "observations_dropped": dropped}


def fingerprint(datasets: Iterable[xr.Dataset]) -> str:
    """SHA-256, in hexadecimal, of the names and values of all variables and of the attributes that describe errors."""
    digest = hashlib.sha256()
    for data in datasets:
        for name in sorted(map(str, data.variables)):
            values = np.ascontiguousarray(data[name].values)
            values = values if values.dtype.kind in "biufmM" else values.astype(str)
            digest.update(name.encode() + values.tobytes())
            for attribute in (ATTRIBUTE, DISTRIBUTION):
                digest.update(str(data[name].attrs.get(attribute, "")).encode())
    return digest.hexdigest()


def _operator_text(name: str, data: xr.Dataset, operator: Operators) -> str:
    given = operator.get(name) if isinstance(operator, Mapping) else operator
    if given is None:
        return str(data.attrs.get("operator", ""))
    return given.to_json() if given.saveable else repr(given)
