"""NetCDF files that cannot be written: the reason of the file system, which the library does not tell."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.creation import create_archive
from sdaxr.archives.netcdf import to_netcdf
from sdaxr.archives.stores import save
from sdaxr.schema import ArchiveError

DATA = xr.Dataset({"a": (("unit", "x"), np.random.default_rng(0).normal(size=(4, 8192)))})


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def finished_archive(path: Path) -> None:
    archive = create_archive(path, DATA, "unit", {})
    for index in range(4):
        archive.write(index, {"a": DATA.a.values[index]})
    archive.finalise()


@pytest.mark.parametrize("write", [lambda path: save(DATA, path), finished_archive], ids=["whole", "units"])
def test_a_file_that_is_too_large_is_one_line_and_leaves_nothing_that_opens(tmp_path: Path, write) -> None:
    store = tmp_path / "a.nc"
    with (
        largest_file(100_000),
        pytest.raises(ArchiveError, match="a.nc': File too large; raise the limit .*ulimit"),
    ):
        write(store)
    assert not store.exists()
    write(store)
    with xr.open_dataset(store) as found:
        np.testing.assert_array_equal(found.a, DATA.a)


@pytest.mark.parametrize("name", ["a.nc", "a.zarr"])
def test_a_disk_that_is_full_is_one_line_and_what_is_there_stays(small_disk: Path, name: str) -> None:
    store = small_disk / name
    save(DATA.isel(x=slice(64)), store)
    with pytest.raises(ArchiveError, match="No space left on device; free some space and run the same job again"):
        save(DATA, store, overwrite=True)
    opened = xr.open_dataset(store) if name == "a.nc" else xr.open_zarr(store)
    with opened as found:
        np.testing.assert_array_equal(found.a, DATA.a[:, :64])
    assert [path.name for path in small_disk.iterdir()] == [name]


def test_an_error_of_the_library_alone_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="NetCDF: HDF error in the NetCDF library") as found:
        to_netcdf(DATA, tmp_path / "a.nc")
    assert found.value.errno == errno.EIO
