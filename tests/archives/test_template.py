"""The empty archive: its dimensions and its chunks."""

from __future__ import annotations

import pytest
from toy_archive import CONFIG, filled, template

from sdaxr.archives.creation import create_archive
from sdaxr.archives.reading import open_archive
from sdaxr.schema import DataError


def test_the_unit_comes_first(tmp_path):
    with pytest.raises(DataError, match=r"'u' has the dimensions .* expected 'member' to be the first"):
        create_archive(tmp_path / "a.zarr", template().transpose("x", ...), "member", CONFIG)


def test_the_zero_unit_is_stored_and_long_units_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr("sdaxr.archives.template._CHUNK_BYTES", 40)
    archive = filled(tmp_path / "a.zarr")
    archive.finalise()
    data = open_archive(tmp_path / "a.zarr")
    assert data.u.chunks == ((1, 1, 1, 1), (2, 1), (5,))
    assert (data.u[0] == 0).all() and data.total[0] == 0
