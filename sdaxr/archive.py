"""Resumable Zarr archives that many processes fill in units of work and that cannot pretend to be complete.

One process creates the template, the coordinates and the configuration under ``<name>.partial``. Each unit (a
trajectory, a member) is checked, written into its own chunks, and only then marked in ``status``, whose chunks
hold one unit each, so that concurrent writers lose nothing. When all units are complete the archive is
consolidated and renamed to ``<name>``. Running the same job again resumes it: only units that are not complete
are done, and a different configuration is refused.

The directory itself is the lock (`flock`): writers share it, and whoever finishes the archive holds it alone, so
the rename never pulls the directory away under a writer. The lock dies with its process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .schema import ArchiveError, DataError, DivergenceError

__all__ = ["COMPLETE", "FAILED", "PENDING", "Archive", "open_archive"]

PENDING, COMPLETE, FAILED = 0, 1, 2

_STATUS = "status"
_CONFIG = "sdaxr_config"
_HASH = "sdaxr_config_sha256"
_UNIT = "sdaxr_unit"
_VARIABLES = "sdaxr_variables"
_FAILURES = "failures"
_CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Archive:
    """A Zarr archive in units of work; small enough to travel to the workers.

    Use `Archive.create`; the object holds names only, no open files.

    Attributes
    ----------
    path
        Where the finished archive will be.
    unit
        Dimension that counts the units; the first one of every data variable.
    finite
        Whether every value has to be finite (otherwise NaN may mark land, but infinity is still refused).
    """

    path: str
    unit: str
    finite: bool = True

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        template: xr.Dataset,
        unit: str,
        config: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
        finite: bool = True,
    ) -> Archive:
        """Create an archive, or resume one that was created with the same configuration.

        Parameters
        ----------
        path
            Directory of the finished archive.
        template
            The whole archive: dimensions, coordinates, attributes, dtypes. The values of its data variables are
            not looked at, so they should be lazy (``dask.array.zeros``).
        unit
            Dimension that counts the units, the first one of every data variable.
        config
            What determines the values; has to survive JSON. Its hash decides whether a run resumes.
        attrs
            Further attributes of the archive, such as its provenance.
        overwrite
            Remove an archive of sdaxr that is there, finished or not.
        finite
            Refuse NaN in what is written; pass False where data are masked.

        Raises
        ------
        ArchiveError
            If there is something else at ``path``, an archive with another configuration, no permission to
            write, or no space.
        """
        archive = cls(os.path.abspath(path), unit, finite)
        _check_template(template, unit)
        with archive._storage_errors("create"):
            if overwrite:
                for there in (archive._final, archive._partial):
                    archive._remove(there)
            if not (archive._final.exists() or archive._partial.exists()):
                archive._build(template, config, dict(attrs or {}))
        archive._check_config(config)
        return archive

    @property
    def complete(self) -> bool:
        """Whether the archive is finished: all units are there and it has its final name."""
        return self._final.exists()

    def status(self) -> np.ndarray:
        """Status of each unit, int8: `PENDING`, `COMPLETE` or `FAILED`."""
        with self._locked(fcntl.LOCK_SH) as there:
            return _status_of(self._partial if there else self._final)

    def pending(self) -> list[int]:
        """Units that are not complete; a failed unit is tried again."""
        return [] if self.complete else np.flatnonzero(self.status() != COMPLETE).tolist()

    def failures(self) -> dict[int, str]:
        """Why units failed, by index."""
        if self.complete:
            return {}
        messages = {int(file.name): file.read_text() for file in (self._partial / _FAILURES).glob("*")}
        failed = np.flatnonzero(_status_of(self._partial) == FAILED).tolist()
        return {index: messages.get(index, "") for index in failed}

    def write(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Check one unit, write it and mark it complete.

        Parameters
        ----------
        index
            Which unit.
        arrays
            Every variable that has the unit's dimension, without that dimension, in the archive's dtype.

        Raises
        ------
        DataError
            If a variable is missing or unknown, or has another shape or dtype.
        DivergenceError
            If a value is not finite.
        ArchiveError
            If the archive cannot be written.
        """
        with self._storage_errors("write"), self._shared() as writable:
            if not writable:
                return
            group = _group(self._partial, mode="r+")
            self._check(index, arrays, group)
            for name, array in arrays.items():
                group[name][index] = array
            (self._partial / _FAILURES / str(index)).unlink(missing_ok=True)
            group[_STATUS][index] = COMPLETE

    def is_complete(self, index: int) -> bool:
        """Whether one unit is done, by this process or another one."""
        with self._shared() as writable:
            return not writable or int(_group(self._partial)[_STATUS][index]) == COMPLETE

    def fail(self, index: int, message: str) -> None:
        """Mark a unit as failed, with the reason; the next run tries it again."""
        with self._storage_errors("write"), self._shared() as writable:
            if not writable:
                return
            status = _group(self._partial, mode="r+")[_STATUS]
            if int(status[index]) == COMPLETE:
                return
            folder = self._partial / _FAILURES
            folder.mkdir(exist_ok=True)
            (folder / str(index)).write_text(message)
            status[index] = FAILED

    def finalise(self, attrs: Mapping[str, Any] | None = None) -> Path:
        """Consolidate the archive and give it its name; does nothing if that has happened already.

        Parameters
        ----------
        attrs
            Attributes to add, such as statistics.

        Raises
        ------
        ArchiveError
            If units are missing or have failed (they are listed), or the archive cannot be written.
        """
        import zarr

        with self._storage_errors("finish"), self._locked(fcntl.LOCK_EX) as there:
            if not there:
                return self._final
            if (_status_of(self._partial) != COMPLETE).any():
                raise ArchiveError(self._unfinished())
            shutil.rmtree(self._partial / _FAILURES, ignore_errors=True)
            # What a killed writer left of a chunk that was then written again.
            for leftover in self._partial.rglob("*.partial"):
                leftover.unlink()
            _group(self._partial, mode="r+").attrs.update(dict(attrs or {}))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata")
                zarr.consolidate_metadata(str(self._partial))
            os.rename(self._partial, self._final)
        return self._final

    @property
    def _final(self) -> Path:
        return Path(self.path)

    @property
    def _partial(self) -> Path:
        return _partial_of(self._final)

    @property
    def _where(self) -> Path:
        return self._final if self.complete else self._partial

    def _build(self, template: xr.Dataset, config: Mapping[str, Any], attrs: dict[str, Any]) -> None:
        # Built aside and renamed, so that nobody resumes half a template and only one creator wins.
        self._final.parent.mkdir(parents=True, exist_ok=True)
        aside = self._final.with_name(f".{self._final.name}.{uuid.uuid4().hex}")
        try:
            own = {**_identity(config), _UNIT: self.unit, _VARIABLES: list(map(str, template.data_vars))}
            _write_template(aside, template, self.unit, attrs | own)
            with contextlib.suppress(OSError):
                os.rename(aside, self._partial)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if not (self._partial.exists() or self._final.exists()):
            raise ArchiveError(f"cannot rename the new archive to {str(self._partial)!r}")

    def _check_config(self, config: Mapping[str, Any]) -> None:
        attrs = _own_attrs(self._where)
        if attrs is None:
            raise ArchiveError(
                f"{str(self._where)!r} exists and is no archive of sdaxr; choose another path, or move it away"
            )
        if attrs[_HASH] != _identity(config)[_HASH]:
            difference = _difference(json.loads(attrs[_CONFIG]), json.loads(_identity(config)[_CONFIG]))
            raise ArchiveError(
                f"{str(self._where)!r} was made with another configuration: {difference}. Use the same "
                "configuration to resume or reuse it, choose another path, or pass overwrite=True"
            )

    def _remove(self, there: Path) -> None:
        if not there.exists():
            return
        if _own_attrs(there) is None:
            raise ArchiveError(f"{str(there)!r} is no archive of sdaxr, so it is not overwritten; move it away")
        shutil.rmtree(there)

    def _check(self, index: int, arrays: Mapping[str, np.ndarray], group: Any) -> None:
        units = group[_STATUS].shape[0]
        if not 0 <= index < units:
            raise DataError(f"found the unit {index}, expected 0 to {units - 1} ({self.unit})")
        expected = group.attrs[_VARIABLES]
        if set(arrays) != set(expected):
            raise DataError(f"{self.unit} {index} has the variables {sorted(arrays)}, expected {sorted(expected)}")
        for name, array in arrays.items():
            target = group[name]
            if array.shape != target.shape[1:] or array.dtype != target.dtype:
                raise DataError(
                    f"'{name}' of {self.unit} {index} is {array.dtype} {array.shape}, expected {target.dtype} "
                    f"{target.shape[1:]}; nothing is cast or broadcast silently"
                )
            if array.dtype.kind in "fc":
                bad = ~np.isfinite(array) if self.finite else np.isinf(array)
                if bad.any():
                    raise DivergenceError(
                        f"'{name}' of {self.unit} {index} has {int(bad.sum())} values that are not finite, the "
                        f"first at {tuple(map(int, np.argwhere(bad)[0]))}; use a smaller step or other options"
                    )

    def _unfinished(self) -> str:
        status = _status_of(self._where)
        done, units = int((status == COMPLETE).sum()), status.size
        failures = self.failures()
        listed = "; ".join(f"{index}: {message}" for index, message in list(failures.items())[:5])
        failed = f" {len(failures)} failed ({listed}{'; ...' if len(failures) > 5 else ''})." if failures else ""
        return (
            f"{self.path!r} is not finished: {done} of {units} units ({self.unit}) are complete.{failed} Run the "
            "same job again to resume it"
        )

    @contextlib.contextmanager
    def _shared(self) -> Iterator[bool]:
        with self._locked(fcntl.LOCK_SH) as there:
            if not there and not self.complete:
                raise ArchiveError(f"{str(self._partial)!r} is gone; run the job again to start anew")
            yield there

    @contextlib.contextmanager
    def _locked(self, operation: int) -> Iterator[bool]:
        """Hold the lock; False if the archive has meanwhile been finished (or removed)."""
        try:
            descriptor = os.open(self._partial, os.O_RDONLY)
        except FileNotFoundError:
            yield False
            return
        try:
            # Some network file systems cannot lock a directory: there, one process per archive.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, operation)
            yield self._partial.exists() and os.path.samestat(os.fstat(descriptor), os.stat(self._partial))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _storage_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except ArchiveError:
            raise
        except OSError as error:
            remedy = {
                errno.ENOSPC: "free some space and run the same job again: it resumes",
                errno.EDQUOT: "free some of your quota and run the same job again: it resumes",
                errno.EACCES: "choose another path, or change the permissions",
                errno.EPERM: "choose another path, or change the permissions",
                errno.EROFS: "the file system is read-only, choose another path",
            }.get(error.errno or 0, "see the error above")
            reason = error.strerror or str(error)
            raise ArchiveError(f"cannot {action} the archive {self.path!r}: {reason}; {remedy}") from error


def open_archive(path: str | os.PathLike[str], *, allow_incomplete: bool = False) -> xr.Dataset:
    """Open a Zarr archive or a NetCDF file lazily.

    Parameters
    ----------
    path
        A Zarr directory, or a NetCDF file. It need not be sdaxr's own.
    allow_incomplete
        Open an archive that is still being written, too: the units that are complete, no others.

    Returns
    -------
    xarray.Dataset
        With Dask arrays, one chunk per chunk on disk.

    Raises
    ------
    ArchiveError
        If there is nothing at ``path``, it is neither Zarr nor NetCDF, or it is unfinished.
    """
    final = Path(path)
    if final.is_file():
        return _opened(final, lambda: xr.open_dataset(final, chunks={}), "a NetCDF file")
    if final.suffix == ".partial" and final.is_dir():
        final = final.with_suffix("")
    partial = _partial_of(final)
    if not final.exists() and not partial.exists():
        raise ArchiveError(f"there is nothing at {str(final)!r}; expected a Zarr directory or a NetCDF file")
    finished = final.exists()
    where = final if finished else partial
    if not (where / "zarr.json").exists() and not (where / ".zgroup").exists():
        raise ArchiveError(f"{str(where)!r} is a directory without Zarr metadata; expected a Zarr archive")
    with warnings.catch_warnings():
        if not finished:  # the reasons of failed units lie beside the arrays
            warnings.filterwarnings("ignore", message=".*not recognized as a component")
        consolidated = None if finished else False
        data = _opened(where, lambda: xr.open_zarr(where, chunks={}, consolidated=consolidated), "a Zarr archive")
    unit = data.attrs.get(_UNIT)
    if unit is None or _STATUS not in data.coords:
        return data
    done = np.flatnonzero(data[_STATUS].values == COMPLETE)
    if finished and done.size == data.sizes[unit]:
        return data
    if not allow_incomplete:
        raise ArchiveError(f"{Archive(str(final), unit)._unfinished()}, or pass allow_incomplete=True")
    return data.isel({unit: done})


def _opened(path: Path, opener: Any, kind: str) -> xr.Dataset:
    try:
        return opener()
    except Exception as error:  # the libraries below raise whatever they like on a broken file
        raise ArchiveError(f"{str(path)!r} cannot be read as {kind}: {error}") from error


def _partial_of(final: Path) -> Path:
    return final.with_name(final.name + ".partial")


def _group(path: Path, mode: str = "r") -> Any:
    import zarr

    return zarr.open_group(str(path), mode=mode, use_consolidated=False)  # type: ignore[arg-type]


def _status_of(path: Path) -> np.ndarray:
    return np.asarray(_group(path)[_STATUS][:])


def _own_attrs(path: Path) -> dict[str, Any] | None:
    """Attributes of an archive of ours, None for anything else."""
    try:
        attrs = dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError):
        return None
    return attrs if {_CONFIG, _HASH} <= set(attrs) else None


def _identity(config: Mapping[str, Any]) -> dict[str, str]:
    text = json.dumps(dict(config), sort_keys=True)
    return {_CONFIG: text, _HASH: hashlib.sha256(text.encode()).hexdigest()}


def _difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str:
    parts = []
    for key in sorted(set(there) | set(here)):
        old, new = there.get(key, "nothing"), here.get(key, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            parts.append(_difference(old, new, f"{prefix}{key}."))
        elif old != new:
            parts.append(f"{prefix}{key} is {old!r} there and {new!r} in this run")
    return "; ".join(part for part in parts if part)


def _check_template(template: xr.Dataset, unit: str) -> None:
    for name, variable in template.data_vars.items():
        if variable.dims[:1] != (unit,):
            raise DataError(f"'{name}' has the dimensions {variable.dims}, expected {unit!r} to be the first one")


def _write_template(path: Path, template: xr.Dataset, unit: str, attrs: dict[str, Any]) -> None:
    import dask.array

    units = template.sizes[unit]
    status_attrs = {
        "long_name": f"status of the {unit}",
        "flag_values": [PENDING, COMPLETE, FAILED],
        "flag_meanings": "pending complete failed",
    }
    template = template.assign_coords({_STATUS: (unit, np.zeros(units, np.int8), status_attrs)})
    template = template.assign_attrs(attrs).drop_encoding()
    encoding: dict[Any, dict[str, Any]] = {_STATUS: {"chunks": (1,)}}
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
