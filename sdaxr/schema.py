"""Names, exceptions and checks that the rest of sdaxr shares.

Everything a person sees is a plain xarray object. This module says what the dimensions are called, and which exception
is raised when something is off. Every message says what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

VERSION = "0.1.0"

TRAJECTORY = "trajectory"
MEMBER = "member"
TIME = "time"
LEAD_TIME = "lead_time"
INIT_TIME = "init_time"
VALID_TIME = "valid_time"
WINDOW_BOUND = "bound"

SPLITS = ("train", "valid", "test")


class SdaxrError(Exception):
    """Base of every error that sdaxr raises on bad input; the command line turns it into exit code 2."""


class DataError(SdaxrError, ValueError):
    """A Dataset that does not have the variables, dimensions, values or times it needs."""


class UnitsError(DataError):
    """Two quantities that should be comparable have different units."""


class GridError(DataError):
    """Two objects live on different grids."""


class OptionError(SdaxrError, ValueError):
    """An unknown or impossible option; the message offers the nearest right name."""


class OperatorError(SdaxrError, ValueError):
    """An observation operator that cannot be applied, composed, read or saved."""


class ArchiveError(SdaxrError, OSError):
    """An archive that is unfinished, foreign, differently configured, or cannot be written."""


class PriorError(SdaxrError, ValueError):
    """A prior file that is truncated, foreign or does not fit the data."""


class DivergenceError(SdaxrError, ArithmeticError):
    """A sampler produced values that are not finite."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``name`` beside the allowed choices, with the nearest one offered, for error messages."""
    options = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), options, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r}; expected one of {', '.join(options)}.{hint}"


def check_units(name: str, found: object, expected: object, where: str = "the observation") -> None:
    """Raise `UnitsError` if both units are given and differ; nothing is converted silently."""
    if found is None or expected is None or str(found) == str(expected):
        return
    raise UnitsError(
        f"'{name}' has units {found!r} in {where}, expected {expected!r}; convert it and set "
        f"ds['{name}'].attrs['units'] = {str(expected)!r}"
    )
