"""Statistics of data in pieces: the same numbers, and the bytes that they take."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from sdaxr.states import pieces
from sdaxr.states.pieces import climatology_bytes, in_pieces, moments_bytes


def series(steps: int, chunk: int | None = None) -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((3, steps, 4), np.float32)
    found = xr.Dataset({"a": (("trajectory", "time", "x"), values)})
    return found if chunk is None else found.chunk(trajectory=1, time=chunk)


@pytest.mark.parametrize(("chunk", "expected"), [(None, (2, 2, 2, 1)), (5, (5, 2)), (7, (6, 1)), (1, (1,) * 7)])
def test_pieces_hold_few_values(monkeypatch: pytest.MonkeyPatch, chunk: int | None, expected: tuple[int, ...]) -> None:
    monkeypatch.setattr(pieces, "_PIECE", 24)
    data = series(7, chunk).a
    found = in_pieces(data)
    assert found.chunksizes["time"] == expected
    xr.testing.assert_identical(found.compute(), data.compute())


def test_what_is_small_or_has_no_times_stays_as_it_is() -> None:
    data = series(7)
    assert in_pieces(data.a).chunks is None and in_pieces(data.a.isel(time=0, drop=True)).chunks is None


def test_bytes_grow_with_threads_and_chunks_and_not_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    with dask.config.set(num_workers=1):
        one = moments_bytes(series(64, 8))
        assert moments_bytes(series(6400, 8)) == one < moments_bytes(series(64, 16))
    with dask.config.set(num_workers=4):
        assert moments_bytes(series(64, 8)) == 4 * one and moments_bytes(series(8, 8)) == 3 * one
    held = climatology_bytes(series(64, 8)) - climatology_bytes(series(64))
    assert held == series(64).a.nbytes
    monkeypatch.setattr(pieces, "HELD", 100)
    assert climatology_bytes(series(64, 8)) == climatology_bytes(series(64))
