"""Other people's names in the place of those that are expected, and variables that only describe others."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from sdaxr.schema import TIME, VALID_TIME, DataError
from sdaxr.states.axes import is_latitude, is_longitude, is_vertical
from sdaxr.states.units import same_quantity

_log = logging.getLogger(__name__)

# Attributes that name other variables (CF 1.11, appendix A); xarray moves some of them to the encoding.
_NAMING = (
    *("bounds", "climatology", "grid_mapping", "ancillary_variables", "cell_measures", "coordinates"),
    *("formula_terms",),
)
# Variables that no attribute names: of the Climate Data Store, of rioxarray, and bounds.
_DESCRIBING = {"expver", "spatial_ref", "crs"}
_BOUNDS = ("_bnds", "_bounds")
_ROLES = (is_latitude, is_longitude, is_vertical)


def auxiliary(data: xr.Dataset) -> set[str]:
    """Names of the variables of ``data`` that describe others: bounds, grid mappings, flags, cell areas."""
    named: set[str] = set()
    for variable in data.variables.values():
        for attribute in _NAMING:
            text = f"{variable.attrs.get(attribute, '')} {variable.encoding.get(attribute, '')}"
            named |= {word for word in text.split() if not word.endswith(":")}
    for name in map(str, data.data_vars):
        if name in _DESCRIBING or name.endswith(_BOUNDS) or "grid_mapping_name" in data[name].attrs:
            named.add(name)
    return named & set(map(str, data.variables))


def named_time(data: xr.Dataset) -> xr.Dataset:
    """``data`` with its times named ``time``.

    Times are what is named ``valid_time`` (files of the Climate Data Store and of cfgrib), or what the attributes
    ``standard_name`` or ``axis`` call time, where that is the coordinate of its own dimension or lies along ``obs``.
    A scalar ``time`` beside it is the time of a forecast's initial state and becomes ``forecast_reference_time``.

    Raises
    ------
    DataError
        If several coordinates may be meant.
    """
    if TIME in data.dims or (TIME in data.coords and data[TIME].ndim):
        return data
    found = [n for n, c in data.coords.items() if c.dims in ((n,), ("obs",)) and _is_time(n, c.attrs)]
    if len(found) > 1:
        raise DataError(f"found the times {found}, expected one of them to be named 'time'; rename it, ds.rename(...)")
    if not found:
        return data
    _log.info("'%s' holds the times, and is taken as 'time'", found[0])
    return data.rename({TIME: "forecast_reference_time"} if TIME in data.coords else {}).rename({found[0]: TIME})


def recognised(data: xr.Dataset, like: Mapping[Hashable, Mapping[Any, Any]]) -> xr.Dataset:
    """``data`` with the names of the coordinates ``like``: a ``latitude`` is renamed where ``lat`` is expected.

    Parameters
    ----------
    data
        Fields or observations.
    like
        Attributes of the expected coordinates, by name. A coordinate that ``data`` has by name stays. Another one is
        found by what it is: a latitude, a longitude, or a vertical coordinate in units of the same quantity.

    Returns
    -------
    The renamed Dataset, whose times are named as in `named_time`.
    """
    data = named_time(data)
    renamed = {}
    for name, attrs in like.items():
        if name in data.coords or name in data.dims:
            continue
        for role in (r for r in _ROLES if r(name, attrs)):
            found = [n for n, c in data.coords.items() if n not in like and role(n, c.attrs)]
            if role is is_vertical:  # A depth in m is no level in hPa.
                found = [n for n in found if same_quantity(data[n].attrs.get("units"), attrs.get("units"))]
            if len(found) == 1:
                renamed[found[0]] = name
                _log.info("'%s' is taken as '%s'", found[0], name)
    return data.rename(renamed) if renamed else data


def _is_time(name: Hashable, attrs: Mapping[Any, Any]) -> bool:
    return name == VALID_TIME or attrs.get("standard_name") == TIME or attrs.get("axis") == "T"
