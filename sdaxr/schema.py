"""Names of dimensions, and exceptions.

Input and output of sdaxr are plain xarray objects. This module holds the names of their dimensions, and the exceptions
that are raised on bad input. A message says what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from numbers import Integral, Real

VERSION = "0.1.0"

TRAJECTORY = "trajectory"
MEMBER = "member"
TIME = "time"
LEAD_TIME = "lead_time"
INIT_TIME = "init_time"
VALID_TIME = "valid_time"
WINDOW_BOUND = "bound"

_OBSERVED, _CONVERT = "the observations", ', or pass units="convert"'

# Whole numbers are written, and computed with, in 64 bits.
_BITS = 1 << 64
# Characters of a value in a message.
_LONGEST = 160

SPLITS = ("train", "valid", "test")


class SdaxrError(Exception):
    """Base of the errors that sdaxr raises on bad input. On the command line the exit code is 2."""


class DataError(SdaxrError, ValueError):
    """A Dataset does not have the variables, dimensions, values or times that are needed."""


class UnitsError(DataError):
    """Two quantities that are compared or combined have different units."""


class GridError(DataError):
    """Two objects are on different grids."""


class OptionError(SdaxrError, ValueError):
    """An option is unknown or impossible. The message offers the nearest name."""


class OperatorError(SdaxrError, ValueError):
    """An observation operator cannot be applied, composed, read or saved."""


class ArchiveError(SdaxrError, OSError):
    """An archive is unfinished, not of sdaxr or of another configuration, or cannot be written."""


class ClusterError(SdaxrError, ConnectionError):
    """A Dask cluster has lost its scheduler, or workers die again and again at the same unit of work."""


class PriorError(SdaxrError, ValueError):
    """A prior file is truncated or not of sdaxr, or does not fit the data."""


class DivergenceError(SdaxrError, ArithmeticError):
    """A sampler, or a system, produced values that are not finite, or diverged."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Text for an error message: ``name``, the allowed choices, and the nearest of them."""
    options = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name)[:_LONGEST], options, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{shown(name)}; expected one of {', '.join(options)}.{hint}"


def shown(value: object) -> str:
    """Text for an error message: how ``value`` is written, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # such as a number of more digits than Python writes
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"


def others(count: int) -> str:
    """Text for an error message after the first fault: the number of further faults, if there are any."""
    return f" (and {count} others)" if count > 1 else " (and another one)" if count else ""


def check_least(name: str, value: object, least: int) -> None:
    """Raise `OptionError` unless the option ``name`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) < _BITS:
        raise OptionError(f"found {name}={shown(value)}, expected a whole number of at least {least}")


def check_positive(name: str, value: object, unit: str = "") -> None:
    """Raise `OptionError` unless the option ``name`` is a finite number above 0; ``unit`` ends the message."""
    # The largest float, not infinity: a whole number can be larger, and has no float.
    positive = isinstance(value, Real) and bool(0 < value <= sys.float_info.max)  # type: ignore[operator]
    if isinstance(value, bool) or not positive:
        raise OptionError(f"found {name}={shown(value)}, expected a positive number{unit}")


def check_units(name: str, found: object, expected: object, where: str = _OBSERVED) -> None:
    """Raise `UnitsError` unless ``found`` are the units ``expected``; nothing is checked where none are expected.

    Missing units are refused: a number without units may be in any. `sdaxr.states.units` converts units.
    """
    if not expected or str(found) == str(expected):
        return
    if not found:
        raise UnitsError(
            f"'{name}' has no units in {where}, expected {expected!r}; if its values are in these units, set "
            f"ds['{name}'].attrs['units'] = {str(expected)!r}"
        )
    raise UnitsError(
        f"'{name}' has units {found!r} in {where}, expected {expected!r}; convert it, and set "
        f"ds['{name}'].attrs['units'] = {str(expected)!r}{_CONVERT if where == _OBSERVED else ''}"
    )
