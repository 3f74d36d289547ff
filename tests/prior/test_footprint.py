"""The memory that a training takes, against what was said before it was taken."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from footprints import check_footprint, on_linux
from small_training import autoregressive, trained

from sdaxr.prior.training import train
from sdaxr.schema import OptionError

SMALL, USUAL = ({"name": "space-time-unet", "widths": widths} for widths in ((8, 16), (16, 32)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Where so many states of a size are in chunks of so many, written once; read only."""

    @functools.cache
    def written(states: int, size: int, chunk: int) -> Path:
        store = tmp_path_factory.mktemp("data") / "data.zarr"
        _fields(states, size).chunk(trajectory=1, time=chunk).to_zarr(store, consolidated=False)
        return store

    return written


@on_linux
@pytest.mark.parametrize(
    ("states", "size", "chunk", "options"),
    [
        (32, 64, 8, {"network": USUAL, "batch": 8}),  # most is a step
        (8_000, 64, 100, {"network": SMALL, "batch": 1}),  # the data, in memory
        (8_000, 64, 100, {"network": SMALL, "batch": 1, "memory": 5e7}),  # and streamed
        (8_000, 64, 2_000, {"network": SMALL, "batch": 1, "memory": 1e6}),  # their statistics, in large chunks
        (8_000, 64, None, {"network": SMALL, "batch": 1, "memory": 1e6}),  # and without chunks
        (1_000, 40, 100, {"network": SMALL, "batch": 1, "parameterisation": "eof"}),  # the EOFs
    ],
    ids=["step", "data", "streamed", "chunks", "whole", "eofs"],
)
def test_the_peak_is_known_within_a_fifth(
    states: int, size: int, chunk: int | None, options: dict[str, Any], stored: Callable[..., Path], tmp_path: Path
) -> None:
    optimisation = {"precision": "float32"} | {k: v for k, v in options.items() if k in ("batch", "memory")}
    chosen = {k: v for k, v in options.items() if k not in optimisation} | {"optimisation": optimisation}
    data = _fields(states, size) if chunk is None else stored(states, size, chunk)
    check_footprint(_train, data, tmp_path / "p.safetensors", chosen)


def _fields(states: int, size: int) -> xr.Dataset:
    random, sizes = np.random.default_rng(0), (4, states // 4, size, size)
    axis = {d: (d, np.arange(float(n)), {"period": float(n)}) for d, n in zip("yx", sizes[2:], strict=True)}
    values = random.standard_normal(sizes, np.float32)
    data = xr.Dataset({"a": (("trajectory", "time", "y", "x"), values, {"units": "m"})}, axis)
    return data.assign_coords(time=np.arange(float(sizes[1])))


def _train(data: xr.Dataset | Path, store: Path, options: dict[str, Any]) -> None:
    train(data, store, window=4, steps=2, progress=False, **options)


def test_what_cannot_fit_is_told_before_it_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sdaxr.prior.budget.free_bytes", lambda _: 1e6)
    with pytest.raises(OptionError, match=r"takes about .* GB free on cpu, .* take fewer windows in a step"):
        trained(autoregressive(6, 20), tmp_path / "p.safetensors", network={"width": 64})
    assert not list(tmp_path.iterdir())
