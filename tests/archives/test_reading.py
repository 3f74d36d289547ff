"""What opens as finished, and what does not."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import save
from sdaxr.schema import ArchiveError

DATA = xr.Dataset({"a": ("x", [1.0, 2.0])})


def killed_save(folder: Path, suffix: str) -> Path:
    """What a writer has written when it is killed; its workspace stays."""
    left = folder / f".a{suffix}.{'0' * 32}.partial"
    save(DATA, left / f"a{suffix}")
    return left / f"a{suffix}"


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
@pytest.mark.parametrize("allow_incomplete", [False, True])
def test_a_save_that_was_killed_does_not_open(tmp_path: Path, suffix: str, allow_incomplete: bool) -> None:
    left = killed_save(tmp_path, suffix)
    with pytest.raises(ArchiveError, match="there is nothing at"):
        open_archive(tmp_path / f"a{suffix}", allow_incomplete=allow_incomplete)
    with pytest.raises(ArchiveError, match="is not finished: its writer is still at work, or was killed"):
        open_archive(left, allow_incomplete=allow_incomplete)


def zarr_directory(path: Path) -> None:
    DATA.to_zarr(path, consolidated=False)


def netcdf_file(path: Path) -> None:
    DATA.to_netcdf(path)


@pytest.mark.parametrize("make", [zarr_directory, netcdf_file])
def test_a_name_that_ends_in_partial_never_opens_as_finished(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.zarr.partial")
    with pytest.raises(ArchiveError, match="there is nothing at"):
        open_archive(tmp_path / "a.zarr")
    for allow_incomplete in (False, True):
        with pytest.raises(ArchiveError, match="is not finished.*does not end in .partial"):
            open_archive(tmp_path / "a.zarr.partial", allow_incomplete=allow_incomplete)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "a.zarr.zip",
            lambda path: zipfile.ZipFile(path, "w").close(),
            "there is nothing at 'zip::file://",
        ),
        ("a.nc", lambda path: DATA.to_netcdf(path, group="m"), r"groups \['m'\], .*open_dataset\(path, group='m'\)"),
        ("a.zarr", lambda path: DATA.to_zarr(path, group="m", consolidated=False), r"in the groups \['m'\], expected"),
        ("m*.nc", lambda path: None, "there is nothing at .*; a pattern is not expanded"),
    ],
)
def test_files_of_which_there_is_nothing_to_open(tmp_path: Path, name: str, make: Callable, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(ArchiveError, match=message):
        open_archive(tmp_path / name)


def test_the_windows_of_a_cycle_are_no_cycle(tmp_path: Path) -> None:
    save(DATA, tmp_path / "c.zarr.windows" / "00000.zarr")
    with pytest.raises(ArchiveError, match="is not finished: 'c.zarr.windows' holds what is done"):
        open_archive(tmp_path / "c.zarr")


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
@pytest.mark.parametrize("target", ["zarr", "netcdf"])
def test_what_a_file_returns_can_be_rechunked_and_written_again(tmp_path: Path, suffix: str, target: str) -> None:
    time = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    data = xr.Dataset({"a": (("member", "time"), np.arange(24.0).reshape(4, 6))}, {"time": time})
    save(data.chunk(member=1), tmp_path / f"a{suffix}")
    again = open_archive(tmp_path / f"a{suffix}").chunk(member=3, time=4)
    if target == "zarr":
        again.to_zarr(tmp_path / "b.zarr", consolidated=False)
        found = xr.open_zarr(tmp_path / "b.zarr", consolidated=False)
    else:
        again.to_netcdf(tmp_path / "b.nc")
        found = xr.open_dataset(tmp_path / "b.nc")
    with found:
        xr.testing.assert_equal(found.load(), data)
