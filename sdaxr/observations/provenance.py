"""What a posterior records of its observations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import ATTRIBUTE
from sdaxr.observations.noise import DISTRIBUTION
from sdaxr.observations.screening import REJECTIONS, USED, counts
from sdaxr.observations.shared import ATTRIBUTES
from sdaxr.observations.window import Operators

COUNTS = ("observations_used", "observations_dropped", *(f"observations_{name}" for name in REJECTIONS.values()))
"""Attributes that count observations, one number for each network."""


def describe_networks(networks: Mapping[str, xr.Dataset], operator: Operators) -> dict[str, Any]:
    """Provenance of networks of observations: their names, operators and a hash of their values."""
    return {
        "networks": list(networks),
        "operators": [_operator_text(name, data, operator) for name, data in networks.items()],
        "observations_sha256": fingerprint(networks.values()),
    }


def count_observations(statuses: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[int]]:
    """Numbers of values that are used, dropped, and dropped for each reason, one number for each network.

    Parameters
    ----------
    statuses
        For each network, the status of the values of each variable (`sdaxr.observations.screening`).
    """
    used = [sum(int((s == USED).sum()) for s in status.values()) for status in statuses]
    reasons = [counts(status) for status in statuses]
    return {
        "observations_used": used,
        "observations_dropped": [sum(found.values()) for found in reasons],
        **{f"observations_{name}": [found[name] for found in reasons] for name in REJECTIONS.values()},
    }


def sum_counts(networks: Sequence[str], posteriors: Sequence[Mapping[Any, Any]]) -> dict[str, list[int]]:
    """The sums of `count_observations` over several posteriors, from their attributes, for the networks named."""
    sums: dict[str, list[int]] = {}
    for attrs in posteriors:
        names = list(np.atleast_1d(attrs["networks"]))
        for key in [k for k in attrs if k in COUNTS]:
            found = dict(zip(names, np.atleast_1d(attrs[key]), strict=True))
            before = sums.get(key, [0] * len(networks))
            sums[key] = [n + int(found.get(name, 0)) for n, name in zip(before, networks, strict=True)]
    return sums


def fingerprint(datasets: Iterable[xr.Dataset]) -> str:
    """SHA-256, in hexadecimal, of the names and values of all variables and of the attributes that describe errors."""
    digest = hashlib.sha256()
    for data in datasets:
        for name in sorted(map(str, data.variables)):
            values = np.ascontiguousarray(data[name].values)
            values = values if values.dtype.kind in "biufmM" else values.astype(str)
            digest.update(name.encode() + values.tobytes())
            for attribute in (ATTRIBUTE, DISTRIBUTION, *ATTRIBUTES):
                digest.update(str(data[name].attrs.get(attribute, "")).encode())
    return digest.hexdigest()


def _operator_text(name: str, data: xr.Dataset, operator: Operators) -> str:
    given = operator.get(name) if isinstance(operator, Mapping) else operator
    if given is None:
        return str(data.attrs.get("operator", ""))
    return given.to_json() if given.saveable else repr(given)
