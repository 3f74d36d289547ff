"""What an archive of sdaxr looks like on disk: names, template, configuration; `archive` says how it is used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import ArchiveError, DataError

PENDING, COMPLETE, FAILED = 0, 1, 2

STATUS = "status"
CONFIG = "sdaxr_config"
HASH = "sdaxr_config_sha256"
UNIT = "sdaxr_unit"
VARIABLES = "sdaxr_variables"
BOOKKEEPING = frozenset({CONFIG, HASH, UNIT, VARIABLES})
FAILURES = "failures"
_CHUNK_BYTES = 2**26

_REMEDIES = {
    errno.ENOSPC: "free some space and run the same job again: it resumes",
    errno.EDQUOT: "free some of your quota and run the same job again: it resumes",
    errno.EACCES: "choose another path, or change the permissions",
    errno.EPERM: "choose another path, or change the permissions",
    errno.EROFS: "the file system is read-only, choose another path",
}


def partial_of(final: Path) -> Path:
    """Where an archive lies while it is unfinished."""
    return final.with_name(final.name + ".partial")


def open_group(path: Path, mode: str = "r") -> Any:
    """The Zarr group at ``path``, its metadata read anew."""
    import zarr

    return zarr.open_group(str(path), mode=mode, use_consolidated=False)  # type: ignore[arg-type]


def status_of(path: Path) -> np.ndarray:
    """Status of every unit, int8 ``(unit,)``."""
    return np.asarray(open_group(path)[STATUS][:])


def own_attrs(path: Path) -> dict[str, Any] | None:
    """Attributes of an archive of ours, None for anything else."""
    try:
        attrs = dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError):
        return None
    return attrs if {CONFIG, HASH} <= set(attrs) else None


def is_consolidated(path: Path) -> bool:
    """Whether the metadata of the Zarr group at ``path`` (format 2 or 3) are consolidated."""
    try:
        return bool(json.loads((path / "zarr.json").read_text()).get("consolidated_metadata"))
    except (OSError, ValueError):
        return (path / ".zmetadata").exists()


def identity(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as canonical JSON, and its hash."""
    text = json.dumps(dict(config), sort_keys=True)
    return {CONFIG: text, HASH: hashlib.sha256(text.encode()).hexdigest()}


def difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str:
    """What differs between two configurations, for an error message."""
    parts = []
    for key in sorted(set(there) | set(here)):
        old, new = there.get(key, "nothing"), here.get(key, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            parts.append(difference(old, new, f"{prefix}{key}."))
        elif old != new:
            parts.append(f"{prefix}{key} is {old!r} there and {new!r} in this run")
    return "; ".join(part for part in parts if part)


def check_template(template: xr.Dataset, unit: str) -> None:
    """Raise `DataError` unless the unit is the first dimension of every variable."""
    for name, variable in template.data_vars.items():
        if variable.dims[:1] != (unit,):
            raise DataError(f"'{name}' has the dimensions {variable.dims}, expected {unit!r} to be the first one")


def write_template(path: Path, template: xr.Dataset, unit: str, attrs: dict[str, Any]) -> None:
    """Write coordinates, attributes and the metadata of the variables; no values of variables."""
    import dask.array

    units = template.sizes[unit]
    status_attrs = {
        "long_name": f"status of the {unit}",
        "flag_values": [PENDING, COMPLETE, FAILED],
        "flag_meanings": "pending complete failed",
    }
    template = template.assign_coords({STATUS: (unit, np.zeros(units, np.int8), status_attrs)})
    template = template.assign_attrs(attrs).drop_encoding()
    encoding: dict[Any, dict[str, Any]] = {STATUS: {"chunks": (1,)}}
    for name, variable in template.data_vars.items():
        chunks = _chunks(variable.shape, variable.dtype.itemsize)
        encoding[name] = {"chunks": chunks}
        # Lazy whatever it was, so that only metadata is written.
        template[name] = variable.copy(data=dask.array.zeros(variable.shape, dtype=variable.dtype, chunks=chunks))
    template.to_zarr(path, mode="w", compute=False, consolidated=False, zarr_format=3, encoding=encoding)


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """One unit to a chunk; long units are split along their first dimension."""
    if len(shape) == 1:
        return (1,)
    slice_bytes = itemsize * int(np.prod(shape[2:]))
    return (1, max(1, min(shape[1], _CHUNK_BYTES // slice_bytes)), *shape[2:])


@contextlib.contextmanager
def storage_errors(action: str, path: str) -> Iterator[None]:
    """Turn what the file system raises into `ArchiveError`, with the remedy."""
    try:
        yield
    except ArchiveError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "choose another path")
        raise ArchiveError(f"cannot {action} the archive {path!r}: {reason}; {remedy}") from error
