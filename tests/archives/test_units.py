"""What a unit has to be before it is written."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy_archive import CONFIG, filled, template, values

from sdaxr.archives.creation import create_archive
from sdaxr.archives.units import shortfall
from sdaxr.schema import DataError, DivergenceError


@pytest.mark.parametrize(
    ("index", "change", "error", "message"),
    [
        (4, {}, DataError, "found the unit 4, expected 0 to 3"),
        (0, {"v": np.zeros(3)}, DataError, r"has the variables \['total', 'u', 'v'\], expected"),
        (0, {"u": np.zeros((3, 4), np.float32)}, DataError, r"float32 \(3, 4\), expected float32 \(3, 5\)"),
        (0, {"u": np.zeros((3, 5))}, DataError, "is float64 .* expected float32 .* nothing is cast"),
        (0, {"total": np.array(np.nan)}, DivergenceError, "1 values that are not finite"),
        (0, {"u": np.full((3, 5), np.inf, np.float32)}, DivergenceError, r"15 values .* first at \(0, 0\)"),
    ],
)
def test_units_are_checked_before_they_are_written(tmp_path, index, change, error, message):
    archive = create_archive(tmp_path / "a.zarr", template(), "member", CONFIG)
    with pytest.raises(error, match=message):
        archive.write(index, values(0) | change)
    assert archive.pending() == [0, 1, 2, 3]


def test_masked_data_may_hold_nan_but_no_infinity(tmp_path):
    archive = create_archive(tmp_path / "a.zarr", template(), "member", CONFIG, finite=False)
    archive.write(0, values(0) | {"total": np.array(np.nan)})
    with pytest.raises(DivergenceError):
        archive.write(1, values(1) | {"total": np.array(np.inf)})


def test_what_is_missing_is_told_in_one_look_at_each_chunk_of_the_complete_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "a.zarr", skip=(1, 3))
    (tmp_path / "a.zarr.partial" / "u" / "c" / "2" / "0" / "0").unlink()
    looks: Counter[str] = Counter()
    exists = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: looks.update([os.fspath(path)]) or exists(path))
    found = shortfall(tmp_path / "a.zarr.partial")
    assert "1 of 4 units (member) are complete. 1, 3 are pending. 1 chunks are missing" in found
    assert "the first is (2, 0, 0) of 'u'" in found
    chunks = {path: count for path, count in looks.items() if "/u/c/" in path or "/total/c/" in path}
    files = {f"{name}/c/{unit}{rest}" for name, rest in (("u", "/0/0"), ("total", "")) for unit in (0, 2)}
    assert chunks == {str(tmp_path / "a.zarr.partial" / file): 1 for file in files}
