"""Observation sequences of DART, in ASCII (``obs_seq.out``, ``obs_seq.final``).

Each observation has a type, a place, a time, an error variance, and a value in each copy; the copy that is read is the
observation. Times on the sphere are days since 1601-01-01 (DART's Gregorian calendar), those of models in one dimension
are durations. Angles are radians, and become degrees. The file has no units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.places import OBS
from sdaxr.observations.readers.roles import VALUE, VARIABLE
from sdaxr.schema import TIME, ArchiveError, DataError

_MISSING = -888888.0
# Data quality control of DART, from 0 on.
_DART_FLAGS = (
    *(
        "good",
        "not_assimilated_evaluated_only",
        "failed_posterior_forward_operator",
        "not_assimilated_failed_posterior",
    ),
    *("failed_prior_forward_operator", "not_used_by_namelist", "rejected_incoming_flag", "rejected_outlier_threshold"),
    "failed_vertical_conversion",
)
# Names, attributes and numbers (which_vert) of the vertical coordinates; -2 and -1 are without one, and at the surface.
_VERTICAL = {
    1: ("model_level", {"units": "1"}),
    2: ("level", {"units": "Pa", "standard_name": "air_pressure", "positive": "down"}),
    3: ("height", {"units": "m", "standard_name": "height", "positive": "up"}),
    4: ("scale_height", {"units": "1"}),
}
_CALENDAR = np.datetime64("1601-01-01", "s")


@dataclass(frozen=True)
class _Header:
    count: int
    types: dict[int, str]
    copies: list[str]
    flags: list[str]


def is_obs_seq(source: Any) -> bool:
    """Whether a file is an observation sequence in ASCII, by its first line."""
    if not isinstance(source, Path) or not source.is_file():
        return False
    with source.open("rb") as file:
        return file.readline(64).strip() == b"obs_sequence"


def read_obs_seq(path: Path) -> xr.Dataset:
    """The observations of a sequence as a long table, on (obs), with one standard deviation of each error.

    Raises
    ------
    DataError
        If there is no value, or an observation is of an element of a state vector, or at a place of an unknown kind.
    ArchiveError
        If the file is cut short.
    """
    with path.open(encoding="latin-1") as file:
        lines = (line.strip() for line in file)
        try:
            header = _header(lines)
            rows = list(_observations(lines, header))
        except DataError:
            raise
        except (StopIteration, ValueError, IndexError, KeyError) as error:
            raise ArchiveError(f"'{path}' is no whole observation sequence: {error or 'it is cut short'}") from error
    if len(rows) < header.count:
        raise ArchiveError(f"'{path}' holds {len(rows)} observations, its header says {header.count}; it is cut short")
    if not rows:
        raise DataError(f"'{path}' holds no observation, expected at least one")
    return _table(rows, header)


def _header(lines: Iterator[str]) -> _Header:
    next(line for line in lines if line in ("obs_type_definitions", "obs_kind_definitions"))
    pairs = [next(lines).split() for _ in range(int(next(lines)))]
    counts = next(lines).split()
    copies, flags = int(counts[1]), int(counts[3])
    number = int(next(lines).split()[1])
    names = [next(lines) for _ in range(copies + flags)]
    if not next(lines).startswith("first:"):
        raise ValueError("the header does not end with 'first:' and 'last:'")
    if not copies:
        raise DataError("the sequence has no copy with values (obs_seq.in), expected obs_seq.out or obs_seq.final")
    return _Header(number, {int(key): name for key, name in pairs}, names[:copies], names[copies:])


def _observations(lines: Iterator[str], header: _Header) -> Iterator[tuple[Any, ...]]:
    """Value, flag, type, place, seconds, days and variance of each observation."""
    count = len(header.copies)
    value_at = 1 + _copy_of_observations(header.copies)
    flag_at = 1 + count + _copy_of_flags(header.flags) if header.flags else None
    for block in _blocks(lines):
        kind_at = block.index("kind")
        kind = int(block[kind_at + 1])
        if kind < 0:
            raise DataError(
                f"observation {block[0].split()[1]} is of element {-kind} of a state vector (an identity observation), "
                "expected a type with a place; leave such observations out"
            )
        at = next((i for i in range(kind_at) if block[i] in ("loc3d", "loc1d")), None)
        if at is None:
            raise DataError(
                f"observation {block[0].split()[1]} has no place of the kinds loc3d and loc1d, expected one"
            )
        where = tuple(map(float, block[at + 1].split()))
        # What a type says of itself stands between its number and the last two lines.
        seconds, days = map(int, block[-2].split())
        flag = np.nan if flag_at is None else float(block[flag_at])
        yield float(block[value_at]), flag, header.types[kind], where, seconds, days, float(block[-1])


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """The lines of each observation."""
    block: list[str] = []
    for line in lines:
        if line.startswith("OBS") and block:
            yield block
            block = []
        if line:
            block.append(line)
    if block:
        yield block


def _copy_of_observations(names: list[str]) -> int:
    return next((i for i, name in enumerate(names) if "observation" in name.lower()), 0)


def _copy_of_flags(names: list[str]) -> int:
    return next((i for i, name in enumerate(names) if name.lower() == "dart quality control"), 0)


def _table(rows: list[tuple[Any, ...]], header: _Header) -> xr.Dataset:
    values, flags, types, where, seconds, days, variances = zip(*rows, strict=True)
    value = np.array(values)
    kinds = np.array(types, object)
    columns: dict[str, Any] = {
        VALUE: (OBS, np.where(value == _MISSING, np.nan, value)),
        VARIABLE: (OBS, kinds),
        "error": (OBS, np.sqrt(np.array(variances))),
        "source": (OBS, kinds),
    }
    if header.flags:
        name = header.flags[_copy_of_flags(header.flags)]
        columns["qc"] = (OBS, np.array(flags), _flag_attrs(name))
    columns |= _places(where)
    # In seconds: four centuries are too long for nanoseconds.
    elapsed = np.array(days, "m8[D]") + np.array(seconds, "m8[s]")
    on_sphere = len(where[0]) > 1
    columns[TIME] = (OBS, (_CALENDAR + elapsed).astype("M8[ns]") if on_sphere else elapsed.astype("m8[ns]"))
    return xr.Dataset(columns)


def _places(where: tuple[tuple[float, ...], ...]) -> dict[str, Any]:
    place = np.array(where)
    if place.shape[1] == 1:
        return {"x": (OBS, place[:, 0])}
    which = place[:, 3].astype(int)
    found = {
        name: (OBS, np.where(which == number, place[:, 2], np.nan), attrs)
        for number, (name, attrs) in _VERTICAL.items()
        if (which == number).any()
    }
    return {"lat": (OBS, np.rad2deg(place[:, 1])), "lon": (OBS, np.rad2deg(place[:, 0])), **found}


def _flag_attrs(name: str) -> dict[str, Any]:
    attrs: dict[str, Any] = {"long_name": name}
    if name.lower() == "dart quality control":
        meanings = " ".join(_DART_FLAGS)
        attrs |= {"flag_values": np.arange(len(_DART_FLAGS), dtype=np.int32), "flag_meanings": meanings}
    return attrs
