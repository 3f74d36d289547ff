"""The units of an archive: what one has to look like, which of them are there, which failed and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdaxr.archives.chunks import chunk_counts, missing_chunks
from sdaxr.archives.finished import is_unfinished
from sdaxr.archives.format import (
    COMPLETE,
    FAILED,
    FAILURES,
    PENDING,
    STATUS,
    UNIT,
    VARIABLES,
    own_attrs,
    read_metadata,
    status_of,
)
from sdaxr.archives.members import listed
from sdaxr.schema import ArchiveError, DataError, DivergenceError

# Names and indices of chunks that are not there.
Lost = list[tuple[str, tuple[int, ...]]]

# As many failures are listed in a message.
_LISTED = 5
# Characters of a list of units in a message.
_LONGEST = 120


def unit_count(path: Path) -> int:
    """How many units the archive at ``path`` is made of."""
    return int(read_metadata(path / STATUS)["shape"][0])


def complete_units(path: Path, status: np.ndarray) -> list[int]:
    """Units of the archive at ``path`` that are marked complete in ``status`` and have all of their chunks."""
    return without(_lost_chunks(path, status), status)


def failures(path: Path, status: np.ndarray) -> dict[int, str]:
    """Why units failed, by index."""
    messages = {int(file.name): file.read_text() for file in (path / FAILURES).glob("*")}
    failed = np.flatnonzero(status == FAILED).tolist()
    return {index: messages.get(index, "") for index in failed}


def shortfall(path: Path) -> str:
    """What is missing in the archive at ``path``, and what to do about it."""
    unfinished, status = is_unfinished(path), status_of(path)
    name = path.with_suffix("") if unfinished else path
    unit = (own_attrs(path) or {})[UNIT]
    return shortfall_of(name, unit, status, _lost_chunks(path, status), failures(path, status), finished=not unfinished)


def shortfall_of(
    name: object, unit: str, status: np.ndarray, lost: Lost, failed: Mapping[int, str], *, finished: bool
) -> str:
    """What is missing in an archive, and what to do about it.

    Parameters
    ----------
    name
        The archive's name.
    unit
        Dimension that counts the units.
    status
        Status of every unit.
    lost
        Chunks of units that are marked complete, but are not there.
    failed
        Why units failed, by index.
    finished
        Whether the archive says that it is finished.
    """
    count = len(without(lost, status))
    text = f"'{name}' is not {'complete' if finished else 'finished'}: {count} of {status.size} units "
    text += f"({unit}) are complete."
    pending = [index for index in np.flatnonzero(status == PENDING).tolist() if index not in failed]
    if pending:
        text += f" {_cut(listed(pending))} {'is' if len(pending) == 1 else 'are'} pending."
    if failed:
        reasons = "; ".join(f"{index}: {message}" for index, message in list(failed.items())[:_LISTED])
        text += f" {len(failed)} failed ({reasons}{'; ...' if len(failed) > _LISTED else ''})."
    if lost:
        variable, index = lost[0]
        text += f" {len(lost)} chunks are missing, the first is {index} of '{variable}'."
    remedy = "to do the others anew, or overwrite it (overwrite, --overwrite)" if finished else "to resume it"
    return f"{text} Run the same job again {remedy}"


def check_unit(group: Any, unit: str, index: int, arrays: Mapping[str, np.ndarray], *, finite: bool) -> None:
    """Check one unit before it is written.

    Parameters
    ----------
    group
        The Zarr group of the archive.
    unit, index
        Dimension that counts the units, and which of them this is.
    arrays
        Its variables, without that dimension.
    finite
        Refuse NaN; infinity is refused in any case.

    Raises
    ------
    DataError
        If there is no such unit, a variable is missing or unknown, or has another shape or dtype.
    DivergenceError
        If a value is not finite.
    """
    units = group[STATUS].shape[0]
    if not 0 <= index < units:
        raise DataError(f"found the unit {index}, expected 0 to {units - 1} ({unit})")
    expected = group.attrs[VARIABLES]
    if set(arrays) != set(expected):
        raise DataError(f"{unit} {index} has the variables {sorted(arrays)}, expected {sorted(expected)}")
    for name, array in arrays.items():
        target = group[name]
        if array.shape != target.shape[1:] or array.dtype != target.dtype:
            raise DataError(
                f"'{name}' of {unit} {index} is {array.dtype} {array.shape}, expected {target.dtype} "
                f"{target.shape[1:]}; nothing is cast or broadcast silently"
            )
        bad = (~np.isfinite(array) if finite else np.isinf(array)) if array.dtype.kind in "fc" else np.zeros(1, bool)
        if bad.any():
            raise DivergenceError(
                f"'{name}' of {unit} {index} has {int(bad.sum())} values that are not finite, the "
                f"first at {tuple(map(int, np.argwhere(bad)[0]))}; use a smaller step or other options"
            )


def check_round(name: object, there: int, here: int) -> None:
    """Raise `ArchiveError` if all units of an archive were begun anew since a process has looked."""
    if there != here:
        raise ArchiveError(
            f"the units of '{name}' were begun anew by another process, which does all of them; run the job again when "
            "that has ended"
        )


def without(lost: Lost, status: np.ndarray) -> list[int]:
    """Units that are marked complete and have lost no chunk."""
    incomplete = {index for _, (index, *_) in lost}
    return [index for index in np.flatnonzero(status == COMPLETE).tolist() if index not in incomplete]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _lost_chunks(path: Path, status: np.ndarray) -> Lost:
    """Chunks of units that are marked complete, but are not there."""
    counts, variables = chunk_counts(path), (own_attrs(path) or {})[VARIABLES]
    marked = np.flatnonzero(status == COMPLETE).tolist()
    return list(missing_chunks(path, {name: counts[name] for name in variables}, marked))
