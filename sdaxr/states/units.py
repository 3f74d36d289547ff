"""Units of powers and quotients, in the spelling of the CF conventions: ``m s-1``.

Other spellings of UDUNITS are read: ``m/s``, ``m.s-1``, ``m s**-1`` and ``m s^-1``. Symbols are not converted: km and m
stay two units. What cannot be read is kept in brackets. Units that are ``""`` are unknown, and so is what follows from
them; those of a number are ``"1"``.
"""

from __future__ import annotations

import re

# A slash, or what stands between slashes, spaces and those full stops that are not in a number.
_SEPARATORS = re.compile(r"(/)|\s+|(?<!\d)\.|\.(?!\d)")
_FACTOR = re.compile(r"((?:[^\W\d]|[%°])+)(?:(?:\*\*|\^)?([+-]?\d+))?")


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
