"""Two processes that run one cycle, and what each leaves of the windows."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from chains import truth_of
from linear_ensembles import Turning

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.paths import located
from sdaxr.archives.remote import Remote
from sdaxr.filters.etkf import ETKF
from sdaxr.inference import place
from sdaxr.inference.place import Place
from sdaxr.schema import ArchiveError


@pytest.fixture(scope="module")
def observations() -> xr.Dataset:
    return sdaxr.observe(truth_of(Turning(), 4, 1), op.coarsen(2), error=0.4, seed=2)


def _cycle(observations: xr.Dataset, store: Any, **changes: Any) -> xr.Dataset:
    options = {"system": Turning(), "window": 2, "members": 3, "store": store, "progress": False} | changes
    return sdaxr.cycle(observations, **options)


def _beside(store: str) -> list[str]:
    """The names in the folder of a store."""
    folder = located(store)
    if isinstance(folder, Remote):
        fs, path = folder.fs()
        return [key.rpartition("/")[2] for key in fs.ls(path.rpartition("/")[0], detail=False)]
    return [each.name for each in folder.parent.iterdir()]


@pytest.mark.parametrize(
    ("at", "scheme", "overwrite"),
    [
        ("the folder", "", False),
        ("the folder", "memory:/", False),
        ("a window", "", True),
        ("the middle of a window", "", False),
        ("the middle of a window", "memory:/", False),
        ("the middle of a window", "memory:/", True),
        ("the end", "", True),
        ("the end", "memory:/", False),
    ],
)
def test_a_cycle_that_another_process_finishes_first_has_its_result(
    observations: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, scheme: str, overwrite: bool
) -> None:
    store = f"{scheme}{tmp_path / uuid.uuid4().hex}/c.zarr"
    whole = _cycle(observations, None)
    if overwrite:
        _cycle(observations, store, seed=1)
    calls, others = [], []

    def other() -> None:
        _cycle(observations, store, overwrite=overwrite)

    def before(owner: Any, name: str, number: int) -> None:
        real = getattr(owner, name)

        def first_the_other(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == number:
                others.append(threading.Thread(target=other))
                others[0].start()
                # Where there are locks, it waits for the end of the window.
                others[0].join(0.5 if at == "the middle of a window" and not scheme else None)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, first_the_other)

    before(*{
        "the folder": (place, "parts_folder", 1),
        "a window": (Place, "in_use", 2),
        "the middle of a window": (ETKF, "draw", 2),
        "the end": (Place, "in_use", 3),
    }[at])  # fmt: skip
    found = _cycle(observations, store, overwrite=overwrite)
    others[0].join()
    np.testing.assert_array_equal(found.x, whole.x)
    np.testing.assert_array_equal(sdaxr.open_archive(store).x, whole.x)
    assert _beside(store) == ["c.zarr"]


def test_windows_that_another_cycle_is_at_are_not_removed(observations: xr.Dataset, tmp_path: Path) -> None:
    store = tmp_path / "c.zarr"
    old = _cycle(observations, store, seed=1).load()
    other = Place.open(store, {"seed": 2}, True)
    assert isinstance(other, Place)
    xr.testing.assert_identical(_cycle(observations, store, seed=1).load(), old)
    with other.in_use():
        assert (tmp_path / "c.zarr.windows" / "settings.json").exists()
    _cycle(observations, store, seed=3, overwrite=True)
    with pytest.raises(place.Overtaken), other.in_use():
        pass
    replaced = place.shared(lambda: (_ for _ in ()).throw(place.Overtaken(other)))
    with pytest.raises(ArchiveError, match="another configuration"):
        replaced()
    store.rename(tmp_path / "moved.zarr")
    with pytest.raises(ArchiveError, match=r"c.zarr.windows' is gone or replaced; run the same job again"):
        replaced()
