"""Units: which are given, how one is converted to another, and those of powers and quotients.

Powers and quotients have the spelling of the CF conventions: ``m s-1``. Other spellings of UDUNITS are read: ``m/s``,
``m.s-1``, ``m s**-1`` and ``m s^-1``. Their symbols stay: km and m are two units there. What cannot be read
is kept in brackets. Units that are ``""`` are unknown, and so is what follows from them; those of a number are ``"1"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import DataError, UnitsError

# Attributes that say how a variable is stored; opening a file with decoding removes them.
_STORAGE = ("scale_factor", "add_offset", "_FillValue", "missing_value")
# A slash, or what stands between slashes, spaces and those full stops that are not in a number.
_SEPARATORS = re.compile(r"(/)|\s+|(?<!\d)\.|\.(?!\d)")
_FACTOR = re.compile(r"((?:[^\W\d]|[%°])+)(?:(?:\*\*|\^)?([+-]?\d+))?")


def check_given(name: str, attrs: Mapping[Any, Any], where: str) -> None:
    """Raise `UnitsError` unless ``attrs``, those of the variable ``name``, have units."""
    if not attrs.get("units"):
        raise UnitsError(
            f"'{name}' has no units in {where}, expected some, such as 'K', or '1' for a number without dimension; set "
            f"them, ds['{name}'].attrs['units'] = ..."
        )


def check_values(name: str, variable: xr.DataArray, where: str) -> None:
    """Raise `DataError` unless the values of ``variable``, of this name, are real numbers, and are not packed."""
    if variable.dtype.kind not in "fiu":
        raise DataError(
            f"'{name}' has values of type {variable.dtype} in {where}, expected real numbers; convert them, "
            f"ds['{name}'].astype(float), or leave the variable out"
        )
    packed = [key for key in _STORAGE if key in variable.attrs]
    if packed:
        raise DataError(
            f"'{name}' has the attribute '{packed[0]}' ({variable.attrs[packed[0]]}) in {where}, expected decoded "
            "values; open "
            "the file with decoding (mask_and_scale=True), use xr.decode_cf(ds), or remove the attribute from values "
            "that are decoded"
        )


def conversion(name: str, found: str, expected: str) -> tuple[float, float]:
    """Scale a and offset b with which a x + b is in the units ``expected`` where x is in ``found``.

    The registry of cf-xarray reads the units (pint, with the spellings of UDUNITS).

    Raises
    ------
    UnitsError
        If units cannot be read, are of different dimensions, or are not linear in each other. ``name`` is the variable.
    """
    if found == expected:
        return 1.0, 0.0
    import pint
    from cf_xarray.units import units as registry

    try:
        unit = registry.parse_units(found)
        values = registry.Quantity(np.arange(3.0), unit).to(registry.parse_units(expected)).magnitude
    except (pint.PintError, ValueError, TypeError, AssertionError) as error:
        raise UnitsError(
            f"'{name}' has units {found!r}, which cannot be converted to {expected!r} ({error}); convert its values, "
            f"and set ds['{name}'].attrs['units'] = {expected!r}"
        ) from error
    scale, offset = float(values[1] - values[0]), float(values[0])
    if not np.isclose(values[2], 2 * scale + offset, rtol=1e-9):
        raise UnitsError(
            f"'{name}' has units {found!r}, which are not linear in {expected!r}, so that errors cannot be converted; "
            "convert values and errors first"
        )
    return scale, offset


def same_quantity(found: object, expected: object) -> bool:
    """Whether two units are equal, or can be read and converted to each other: Pa and hPa, degrees_east and degree."""
    if str(found or "") == str(expected or ""):
        return True
    units = [_parsed(str(each)) for each in (found, expected) if each]
    return len(units) == 2 and None not in units and bool(units[0].dimensionality == units[1].dimensionality)


def is_readable(units: object) -> bool:
    """Whether the registry knows ``units``; that of model levels, for one, it does not."""
    return bool(units) and _parsed(str(units)) is not None


def _parsed(units: str) -> Any:
    import pint
    from cf_xarray.units import units as registry

    try:
        return registry.parse_units(units)
    except (pint.PintError, ValueError, TypeError, AssertionError):
        return None


def power(units: str, exponent: int) -> str:
    """Units of a quantity to a power: ``m s-1`` squared is ``m2 s-2``."""
    factors = _factors(units)
    if not units or factors is None:
        return f"({units}){exponent}" if units else ""
    return _text({symbol: exponent * p for symbol, p in factors.items()})


def quotient(numerator: str, denominator: str) -> str:
    """Units of a quotient: ``m s-1`` over ``m`` is ``s-1``."""
    if not numerator or not denominator:
        return ""
    top, bottom = _factors(numerator), _factors(denominator)
    if top is None or bottom is None:
        return f"({numerator}) ({denominator})-1"
    return _text({symbol: top.get(symbol, 0) - bottom.get(symbol, 0) for symbol in (*top, *bottom)})


def _factors(units: str) -> dict[str, int] | None:
    """Power of each symbol: {"m": 1, "s": -1} for "m s-1"; None where ``units`` cannot be read."""
    factors: dict[str, int] = {}
    sign = 1
    for token in filter(None, _SEPARATORS.split(units)):
        if token == "/":
            sign = -1
            continue
        match = _FACTOR.fullmatch(token)
        if match:
            factors[match[1]] = factors.get(match[1], 0) + sign * int(match[2] or 1)
        elif token != "1":
            return None
        sign = 1  # a slash divides by the next factor only: J/kg K is J kg-1 K
    return factors


def _text(factors: dict[str, int]) -> str:
    return " ".join(s if p == 1 else f"{s}{p}" for s, p in factors.items() if p) or "1"
