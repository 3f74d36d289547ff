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
import fcntl
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.format import (
    COMPLETE,
    CONFIG,
    FAILED,
    FAILURES,
    HASH,
    PENDING,
    STATUS,
    UNIT,
    VARIABLES,
    check_template,
    difference,
    identity,
    is_consolidated,
    open_group,
    own_attrs,
    partial_of,
    status_of,
    storage_errors,
    write_template,
)
from sdaxr.schema import ArchiveError, DataError, DivergenceError

__all__ = ["COMPLETE", "FAILED", "PENDING", "Archive", "open_archive"]


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
        check_template(template, unit)
        with storage_errors("create", archive.path):
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
            return status_of(self._partial if there else self._final)

    def pending(self) -> list[int]:
        """Units that are not complete; a failed unit is tried again."""
        return [] if self.complete else np.flatnonzero(self.status() != COMPLETE).tolist()

    def failures(self) -> dict[int, str]:
        """Why units failed, by index."""
        if self.complete:
            return {}
        messages = {int(file.name): file.read_text() for file in (self._partial / FAILURES).glob("*")}
        failed = np.flatnonzero(status_of(self._partial) == FAILED).tolist()
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
        with storage_errors("write", self.path), self._shared() as writable:
            if not writable:
                return
            group = open_group(self._partial, mode="r+")
            self._check(index, arrays, group)
            for name, array in arrays.items():
                group[name][index] = array
            (self._partial / FAILURES / str(index)).unlink(missing_ok=True)
            group[STATUS][index] = COMPLETE

    def is_complete(self, index: int) -> bool:
        """Whether one unit is done, by this process or another one."""
        with self._shared() as writable:
            return not writable or int(open_group(self._partial)[STATUS][index]) == COMPLETE

    def fail(self, index: int, message: str) -> None:
        """Mark a unit as failed, with the reason; the next run tries it again."""
        with storage_errors("write", self.path), self._shared() as writable:
            if not writable:
                return
            status = open_group(self._partial, mode="r+")[STATUS]
            if int(status[index]) == COMPLETE:
                return
            folder = self._partial / FAILURES
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

        with storage_errors("finish", self.path), self._locked(fcntl.LOCK_EX) as there:
            if not there:
                return self._final
            if (status_of(self._partial) != COMPLETE).any():
                raise ArchiveError(self._unfinished())
            shutil.rmtree(self._partial / FAILURES, ignore_errors=True)
            # What a killed writer left of a chunk that was then written again.
            for leftover in self._partial.rglob("*.partial"):
                leftover.unlink()
            open_group(self._partial, mode="r+").attrs.update(dict(attrs or {}))
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
        return partial_of(self._final)

    @property
    def _where(self) -> Path:
        return self._final if self.complete else self._partial

    def _build(self, template: xr.Dataset, config: Mapping[str, Any], attrs: dict[str, Any]) -> None:
        # Built aside and renamed, so that nobody resumes half a template and only one creator wins.
        self._final.parent.mkdir(parents=True, exist_ok=True)
        aside = self._final.with_name(f".{self._final.name}.{uuid.uuid4().hex}")
        try:
            own = {**identity(config), UNIT: self.unit, VARIABLES: list(map(str, template.data_vars))}
            write_template(aside, template, self.unit, attrs | own)
            with contextlib.suppress(OSError):
                os.rename(aside, self._partial)
            if self.complete:  # another process has done all of it in the meantime
                shutil.rmtree(self._partial, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if not (self._partial.exists() or self._final.exists()):
            raise ArchiveError(f"cannot rename the new archive to {str(self._partial)!r}")

    def _check_config(self, config: Mapping[str, Any]) -> None:
        # The partial one first: it may just now become the final one, never the other way round.
        attrs = own_attrs(self._partial) or own_attrs(self._final)
        if attrs is None:
            raise ArchiveError(
                f"{str(self._where)!r} exists and is no archive of sdaxr; choose another path, or move it away"
            )
        if attrs[HASH] != identity(config)[HASH]:
            changes = difference(json.loads(attrs[CONFIG]), json.loads(identity(config)[CONFIG]))
            raise ArchiveError(
                f"{str(self._where)!r} was made with another configuration: {changes}. Use the same "
                "configuration to resume or reuse it, choose another path, or pass overwrite=True"
            )

    def _remove(self, there: Path) -> None:
        if there.exists():
            if own_attrs(there) is None:
                raise ArchiveError(f"{str(there)!r} is no archive of sdaxr: not overwritten, move it away")
            shutil.rmtree(there)

    def _check(self, index: int, arrays: Mapping[str, np.ndarray], group: Any) -> None:
        units = group[STATUS].shape[0]
        if not 0 <= index < units:
            raise DataError(f"found the unit {index}, expected 0 to {units - 1} ({self.unit})")
        expected = group.attrs[VARIABLES]
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
        status = status_of(self._where)
        done, units = int((status == COMPLETE).sum()), status.size
        failures = self.failures()
        listed = "; ".join(f"{index}: {message}" for index, message in list(failures.items())[:5])
        more = "; ..." if len(failures) > 5 else ""
        failed = f" {len(failures)} failed ({listed}{more})." if failures else ""
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
        return _with_labels_loaded(_opened(final, _open_netcdf, "a NetCDF file"))
    if final.suffix == ".partial" and final.is_dir():
        final = final.with_suffix("")
    partial = partial_of(final)
    if not final.exists() and not partial.exists():
        raise ArchiveError(f"there is nothing at {str(final)!r}; expected a Zarr directory or a NetCDF file")
    finished = final.exists()
    where = final if finished else partial
    if not (where / "zarr.json").exists() and not (where / ".zgroup").exists():
        raise ArchiveError(f"{str(where)!r} is a directory without Zarr metadata; expected a Zarr archive")
    with warnings.catch_warnings():
        if not finished:  # the reasons of failed units lie beside the arrays
            warnings.filterwarnings("ignore", message=".*not recognized as a component")
        data = _opened(where, _open_zarr, "a Zarr archive")
    data = _with_labels_loaded(data)
    unit = data.attrs.get(UNIT)
    if unit is None or STATUS not in data.coords:
        return data
    done = np.flatnonzero(data[STATUS].values == COMPLETE)
    if finished and done.size == data.sizes[unit]:
        return data
    if not allow_incomplete:
        raise ArchiveError(f"{Archive(str(final), unit)._unfinished()}, or pass allow_incomplete=True")
    return data.isel({unit: done})


def _with_labels_loaded(data: xr.Dataset) -> xr.Dataset:
    """Small coordinates in memory, texts as objects: zarr's own string type is not known everywhere yet."""
    labels = {name: c.variable for name, c in data.coords.items() if c.ndim <= 1 and name not in data.xindexes}
    loaded = {}
    for name, variable in labels.items():
        values = variable.values
        loaded[name] = variable.copy(data=values.astype(object) if values.dtype.kind in "TU" else values)
    return data.assign_coords(loaded)


def _open_netcdf(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, chunks={})


def _open_zarr(path: Path) -> xr.Dataset:
    # Asked for rather than tried, because xarray warns where there is none.
    return xr.open_zarr(path, chunks={}, consolidated=is_consolidated(path))


def _opened(path: Path, opener: Callable[[Path], xr.Dataset], kind: str) -> xr.Dataset:
    try:
        return opener(path)
    except Exception as error:  # the libraries below raise whatever they like on a broken file
        raise ArchiveError(f"{str(path)!r} cannot be read as {kind}: {error}") from error
