"""Chunks of sdaxr's files: none is left out, none is missing or damaged unnoticed."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.chunks import chunk_counts, holds_every_chunk
from sdaxr.archives.reading import open_archive
from sdaxr.archives.stores import save
from sdaxr.schema import ArchiveError


def data(time: int = 4) -> xr.Dataset:
    """Values that equal the fill value (NaN, 0, empty text) in whole chunks, or everywhere."""
    fields = {
        "wind": (("time", "x"), np.where(np.arange(time)[:, None] == 1, np.nan, np.ones((time, 3)))),
        "land": (("time", "x"), np.full((time, 3), np.nan)),
        "count": ("time", np.zeros(time, int)),
        "nothing": (("time", "none"), np.zeros((time, 0))),
    }
    lazy = xr.Dataset(fields, {"time": np.arange(float(time))}).chunk(time=1)
    return lazy.assign_coords(station=("time", np.array([""] * time)), height=((), 0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(data(), tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_every_chunk_is_stored_with_a_checksum(path: Path) -> None:
    expected = {"wind": (4, 1), "land": (4, 1), "count": (4,), "nothing": (1, 0), "time": (1,)}
    assert chunk_counts(path) == expected | {"station": (1,), "height": ()}
    found = open_archive(path)
    xr.testing.assert_identical(found.load(), data().load().assign_coords(station=data().station.astype(object)))
    for name in found.variables:
        assert json.loads((path / name / "zarr.json").read_text())["codecs"][-1]["name"] == "crc32c"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("wind/c/2/0", r"the chunk (2, 0) of 'wind'"),
        ("land/c/1/0", r"the chunk (1, 0) of 'land'"),
        ("count/c/0", r"the chunk (0) of 'count'"),
        ("time/c/0", r"the chunk (0) of 'time'"),
        ("height/c", r"the chunk () of 'height'"),
    ],
)
def test_a_chunk_that_is_missing_or_damaged_is_named(path: Path, file: str, message: str) -> None:
    opened, content = open_archive(path), bytearray((path / file).read_bytes())
    content[0] ^= 1
    for damaged in (content, b""):
        (path / file).write_bytes(damaged)
        with pytest.raises(ArchiveError, match=rf"{re.escape(message)} is damaged .*make the file anew \(overwrite"):
            open_archive(path).load()
    (path / file).unlink()
    with pytest.raises(ArchiveError, match=f"{re.escape(message)} is missing"):
        open_archive(path)
    if opened[file.split("/")[0]].chunks:  # opened while the chunk was there, as another process may find it
        with pytest.raises(ArchiveError, match=f"{re.escape(message)} is missing"):
            opened.load()


def test_what_other_software_makes_of_it_is_not_held_to_it(path: Path) -> None:
    part = xr.open_zarr(path).isel(time=slice(1, 3))
    part.to_zarr(path.with_name("part.zarr"), consolidated=False)
    assert not holds_every_chunk(path.with_name("part.zarr"))
    assert not (path.with_name("part.zarr") / "land" / "c").exists()
    assert open_archive(path.with_name("part.zarr")).land.isnull().all()


def test_an_open_file_travels_to_other_processes(path: Path) -> None:
    opened = pickle.loads(pickle.dumps(open_archive(path)))
    (path / "wind" / "c" / "0" / "0").unlink()
    with pytest.raises(ArchiveError, match="is missing"):
        opened.wind.load()
