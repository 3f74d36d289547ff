"""What an archive of sdaxr looks like on disk: names of attributes and folders, status of its units."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr.archives.configuration import CONFIG, HASH
from sdaxr.schema import ArchiveError

if TYPE_CHECKING:
    from sdaxr.archives.remote import Remote

PENDING, COMPLETE, FAILED = 0, 1, 2
STATUS_NAMES = {PENDING: "pending", COMPLETE: "complete", FAILED: "failed"}

STATUS = "status"
UNIT = "sdaxr_unit"
VARIABLES = "sdaxr_variables"
STORED = "sdaxr_chunks"
# Units that are computed at once, on which their rounding depends.
BATCH = "sdaxr_batch"
# How often all units were begun anew; a process that does not know of it yet writes none of its own.
ROUND = "sdaxr_round"
# What makes a file an archive; a Dataset that is made of one does not inherit it.
BOOKKEEPING = frozenset({CONFIG, HASH, UNIT, VARIABLES, STORED, BATCH, ROUND})
FAILURES = "failures"

_REMEDIES = {
    errno.ENOSPC: "free some space and run the same job again",
    errno.EDQUOT: "free some of your quota and run the same job again",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose another file system",
    errno.EACCES: "choose another path, or change the permissions",
    errno.EPERM: "choose another path, or change the permissions",
    errno.EEXIST: "a folder of this path is a file, or a link to nothing; choose another path",
    errno.ENOTDIR: "a folder of this path is a file, or a link to nothing; choose another path",
    errno.EROFS: "the file system is read-only, choose another path",
}


def open_group(path: Path, mode: str = "r") -> Any:
    """The Zarr group at ``path``, its metadata read anew."""
    import zarr

    return zarr.open_group(str(path), mode=mode, use_consolidated=False)  # type: ignore[arg-type]


def status_of(path: Path) -> np.ndarray:
    """Status of every unit, int8 ``(unit,)``."""
    try:
        if path.is_file():
            with xr.open_dataset(path, decode_cf=False) as data:
                return np.asarray(data[STATUS].values)
        return np.asarray(open_group(path)[STATUS][:])
    except (KeyError, ValueError, TypeError) as error:  # of chunks that do not have their checksum, or no array
        reason = " ".join(str(error).split())
        raise ArchiveError(f"the status of the units in {str(path)!r} is damaged ({reason}); copy it again") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a Zarr group or array of format 3, empty for anything else."""
    try:
        found = json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError):
        return {}
    known = isinstance(found, dict) and isinstance(found.get("attributes", {}), dict)
    return found if known else {}


def is_netcdf(path: Path | Remote) -> bool:
    """Whether a file of this name is NetCDF."""
    return path.suffix == ".nc"


def shapes_attr(data: xr.Dataset) -> dict[str, str]:
    """The attribute `STORED` of a NetCDF file that holds all of ``data``: the shape of each variable."""
    return {STORED: json.dumps({str(name): list(v.shape) for name, v in data.variables.items()}, sort_keys=True)}


def whole_netcdf_attrs(path: Path) -> dict[str, Any]:
    """Attributes of a NetCDF file that says what it holds, and holds it; empty for anything else."""
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_cf=False) as data:
            return dict(data.attrs) if data.attrs.get(STORED) == shapes_attr(data)[STORED] else {}
    except (OSError, ValueError):
        return {}


def own_attrs(path: Path) -> dict[str, Any] | None:
    """Attributes of an archive in units of work, finished or not; None for anything else."""
    attrs = whole_netcdf_attrs(path) if path.is_file() else dict(read_metadata(path).get("attributes", {}))
    return attrs if {CONFIG, HASH, UNIT, VARIABLES} <= set(attrs) else None


def is_consolidated(path: Path) -> bool:
    """Whether the metadata of the Zarr group at ``path`` (format 2 or 3) are consolidated."""
    if (path / "zarr.json").exists():
        return bool(read_metadata(path).get("consolidated_metadata"))
    return (path / ".zmetadata").exists()


@contextlib.contextmanager
def storage_errors(action: str, path: str) -> Iterator[None]:
    """Turn what the file system raises into `ArchiveError`, with the remedy."""
    try:
        yield
    except ArchiveError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "choose another path, or check its permissions and free space")
        raise ArchiveError(f"cannot {action} {path!r}: {reason}; {remedy}") from error
