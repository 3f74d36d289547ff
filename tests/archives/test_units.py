"""What a unit has to be before it is written."""

from __future__ import annotations

import numpy as np
import pytest
from toy_archive import CONFIG, template, values

from sdaxr.archives.archive import Archive
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
    archive = Archive.create(tmp_path / "a.zarr", template(), "member", CONFIG)
    with pytest.raises(error, match=message):
        archive.write(index, values(0) | change)
    assert archive.pending() == [0, 1, 2, 3]


def test_masked_data_may_hold_nan_but_no_infinity(tmp_path):
    archive = Archive.create(tmp_path / "a.zarr", template(), "member", CONFIG, finite=False)
    archive.write(0, values(0) | {"total": np.array(np.nan)})
    with pytest.raises(DivergenceError):
        archive.write(1, values(1) | {"total": np.array(np.inf)})
