"""Files that are saved whole: one writer's or another's, never a mixture, never half."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import ExitStack, nullcontext
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem

from sdaxr.archives.paths import located
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import check_free, save, written_whole
from sdaxr.schema import ArchiveError, OptionError


def data(value: float) -> xr.Dataset:
    return xr.Dataset({"a": ("x", np.full(3, value))})


def value(path: Path) -> float:
    with open_archive(path) as found:
        return float(found.a[0])


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_writers_one_is_there_and_the_other_knows(tmp_path: Path, suffix: str, overwrite: bool) -> None:
    path = tmp_path / f"a{suffix}"
    first, second = ExitStack(), ExitStack()
    places = [stack.enter_context(written_whole(path, overwrite=overwrite)) for stack in (first, second)]
    assert places[0] != places[1]
    for number, place in enumerate(places):
        save(data(number), place)
    first.close()
    assert value(path) == 0
    if overwrite:
        second.close()
    else:
        with pytest.raises(ArchiveError, match="written by another process in the meantime, and stays"):
            second.close()
    assert value(path) == (1 if overwrite else 0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("before", [".zarr", ".nc"])
@pytest.mark.parametrize("after", [".zarr", ".nc"])
def test_a_file_may_replace_a_directory_and_the_reverse(tmp_path: Path, before: str, after: str) -> None:
    old, new = tmp_path / f"old{before}", tmp_path / f"new{after}"
    save(data(0), old)
    save(data(1), new)
    with written_whole(old, overwrite=True) as place:
        new.rename(place)
    assert value(old) == 1 and [p.name for p in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_after_an_error_the_old_file_is_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(data(0), path)

    def write(error: Exception) -> None:
        with written_whole(path, overwrite=True) as place:
            save(data(1), place)
            raise error

    with pytest.raises(ArchiveError, match="cannot write .*No space left on device; free some space"):
        write(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(KeyError):
        write(KeyError("a"))
    assert value(path) == 0 and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_file_that_is_there_is_replaced_when_asked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save(data(0), path)
    with pytest.raises(ArchiveError, match="exists; give another store"):
        check_free(path, overwrite=False)
    with pytest.raises(ArchiveError, match="stays; choose another store"):
        save(data(1), path)
    check_free(path, overwrite=True)
    save(data(1), path, overwrite=True)
    assert value(path) == 1


def test_stores_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="ends in .zarr or .nc"):
        check_free(tmp_path / "a.csv", overwrite=True)
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(ArchiveError, match="no Zarr archive, so it is not overwritten"):
        check_free(tmp_path / "mine.zarr", overwrite=True)


def test_joined_windows_of_unequal_length_are_saved(tmp_path: Path) -> None:
    whole = xr.Dataset({"a": ("time", np.arange(18.0))})
    parts = [whole.isel(time=slice(*ends)).chunk() for ends in ((0, 5), (5, 10), (10, 18))]
    save(xr.concat(parts, "time"), tmp_path / "a.zarr")
    xr.testing.assert_equal(open_archive(tmp_path / "a.zarr").load(), whole)


@pytest.mark.parametrize("name", ["a.nc", "a.zarr"])
def test_a_link_to_nothing_is_not_followed_and_replaced_when_asked(tmp_path: Path, name: str) -> None:
    store = tmp_path / name
    store.symlink_to("nowhere")
    with pytest.raises(ArchiveError, match="exists; give another store, or overwrite it"):
        check_free(store, overwrite=False)
    save(xr.Dataset({"a": ("x", [1.0])}), store, overwrite=True)
    assert not store.is_symlink() and [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_a_link_to_nothing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to("nowhere")
    with pytest.raises(ArchiveError, match="cannot write .*a folder of this path is a file, or a link to nothing"):
        save(xr.Dataset({"a": ("x", [1.0])}), tmp_path / "folder" / "a.nc")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("change", ["removed", "replaced"])
@pytest.mark.parametrize("times", [2, 3])
def test_what_another_writer_of_a_url_takes_away_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, times: int
) -> None:
    place, calls, real = located(f"memory:/{tmp_path}/a.bin"), [], MemoryFileSystem.put_file

    def put_file(fs: MemoryFileSystem, source: str, path: str, **options: object) -> None:
        real(fs, source, path, **options)
        calls.append(path)
        if len(calls) <= times:
            fs.rm(path)
            if change == "replaced":
                fs.pipe_file(path, b"another")

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    ends = pytest.raises(ArchiveError, match=r"a.bin': \[Errno 5\] the store has not kept what was written")
    with nullcontext() if times == 2 else ends, written_whole(place, overwrite=True) as unfinished:
        unfinished.write_bytes(b"own")
    assert times == 3 or place.read_bytes() == b"own"


@pytest.mark.parametrize("name", ["a.zarr", "a.nc", "a.bin"])
def test_a_limit_on_the_size_of_files_is_told_with_the_remedy(tmp_path: Path, name: str) -> None:
    """A real one: Python ignores the signal (SIGXFSZ), so that the write fails, as it does beyond a quota."""
    noise = xr.Dataset({"a": ("x", np.random.default_rng(0).standard_normal(20_000))})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ends = pytest.raises(
        ArchiveError,
        match=rf"cannot write '.*{name}': File too large; raise the limit on the size of a file .ulimit -f",
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with ends:
            if name == "a.bin":
                with written_whole(tmp_path / name, overwrite=False) as unfinished:
                    unfinished.write_bytes(noise.a.values.tobytes())
            else:
                save(noise, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
