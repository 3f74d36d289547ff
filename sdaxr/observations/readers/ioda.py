"""IODA: observations of JEDI, in the groups ``MetaData``, ``ObsValue``, ``ObsError`` and ``PreQC``, as a DataTree.

Where JEDI has processed the file, the groups ``EffectiveError<n>`` and ``EffectiveQC<n>`` of the last outer loop n take
the place of ``ObsError`` and ``PreQC``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.matching import ERROR
from sdaxr.observations.places import OBS
from sdaxr.observations.readers.roles import QUALITY
from sdaxr.schema import TIME, DataError

_NAMES = {"latitude": "lat", "longitude": "lon", "dateTime": TIME, "stationIdentification": "station"}
_MISSING = 1e30  # JEDI and netCDF mark what is missing with numbers beyond it.
# Flags of UFO, the observation operators of JEDI (ufo/filters/QCflags.h).
_REJECTED = {
    **{10: "missing", 11: "preqc", 12: "bounds", 13: "domain", 14: "exclude", 15: "hfailed", 16: "thinned"},
    **{17: "diffref", 18: "clw", 19: "fguess", 20: "seaice", 21: "track", 22: "buddy", 23: "derivative"},
    **{24: "profile", 25: "onedvar"},
}
_FLAGS = {0: "pass", 1: "not_assimilated_passive"} | {n: f"rejected_{word}" for n, word in _REJECTED.items()}


def is_ioda(data: Any) -> bool:
    """Whether a DataTree has the groups of IODA."""
    return isinstance(data, xr.DataTree) and {"MetaData", "ObsValue"} <= set(data.children)


def read_ioda(tree: xr.DataTree) -> xr.Dataset:
    """The locations (and channels) of IODA as rows of a table, on (obs).

    Raises
    ------
    DataError
        If the group ``ObsValue`` is empty.
    """
    # Units such as "seconds since" that the caller's way of opening has not decoded are decoded here.
    groups = {name: xr.decode_cf(tree[name].to_dataset().compute()) for name in tree.children}
    values, meta = groups["ObsValue"], groups["MetaData"]
    if not values.data_vars:
        raise DataError("the group 'ObsValue' is empty, expected at least one variable")
    errors = _last(groups, "EffectiveError")
    flags, processed = _last(groups, "EffectiveQC"), True
    if flags is None:
        flags, processed = groups.get("PreQC"), False
    dims = max((v.dims for v in values.data_vars.values()), key=len)
    sizes = {d: values.sizes[d] for d in dims}
    columns: dict[str, Any] = {}

    def add(name: str, variable: xr.DataArray, attrs: dict[Any, Any] | None = None) -> None:
        if set(variable.dims) <= set(dims):
            whole = _present(variable.variable).set_dims(sizes).transpose(*dims)
            columns[name] = (OBS, whole.values.reshape(-1), variable.attrs if attrs is None else attrs)

    for name in map(str, values.data_vars):
        add(name, values[name])
        error = _filled(errors, groups.get("ObsError"), name)
        if error is not None:
            add(name + ERROR, error)
        if flags is not None and name in flags:
            add(name + QUALITY, flags[name], _flag_attrs() if processed else None)
    measured = list(columns)
    for name in map(str, meta.variables):
        add(_NAMES.get(name, name), meta[name])
    root = tree.to_dataset(inherit=False)
    if "Channel" in dims and "Channel" in root.variables:
        add("Channel", root["Channel"])
    table = xr.Dataset(columns)
    return table.set_coords([n for n in table.variables if n not in measured]).assign_attrs(tree.attrs)


def _last(groups: dict[str, xr.Dataset], name: str) -> xr.Dataset | None:
    """The group ``name<n>`` of the largest n, or ``name``."""
    found = [(int(m[1] or -1), g) for g in groups if (m := re.fullmatch(rf"{name}(\d*)", g))]
    return groups[max(found)[1]] if found else None


def _filled(first: xr.Dataset | None, second: xr.Dataset | None, name: str) -> xr.DataArray | None:
    # Rejected values have no effective error.
    groups = [group for group in (first, second) if group is not None and name in group]
    found = [group[name].copy(data=_present(group[name].variable).values) for group in groups]
    return None if not found else found[0] if len(found) == 1 else found[0].fillna(found[1])


def _present(variable: xr.Variable) -> xr.Variable:
    return variable.where(abs(variable) < _MISSING) if variable.dtype.kind == "f" else variable


def _flag_attrs() -> dict[str, Any]:
    numbers, meanings = np.array(list(_FLAGS), np.int32), " ".join(_FLAGS.values())
    return {"flag_values": numbers, "flag_meanings": meanings, "standard_name": "status_flag"}
