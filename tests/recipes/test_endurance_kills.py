"""Kills of the recipe: what counts as lost, when a process dies, and what a finished product is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from sdaxr.archives.creation import create_archive
from sdaxr.archives.stores import save
from tests.recipe_modules import RECIPES, recipe_modules

DATA = xr.Dataset({"a": (("member", "x"), np.arange(6.0).reshape(2, 3))})


@pytest.fixture(scope="module")
def recipe() -> Iterator[SimpleNamespace]:
    with recipe_modules("endurance", ("kills_points", "kills_process", "kills_jobs", "kills")) as modules:
        yield modules


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ([], [], 0),
        ([("done", "unit a 0")], [("begun", "unit a 1")], 0),
        ([("begun", "unit a 0")], [("begun", "unit a 0")], 0),
        ([("done", "unit a 0"), ("done", "unit a 1")], [("begun", "unit a 0"), ("begun", "unit a 1")], 2),
        ([("done", "step 5"), ("done", "step 10")], [("loaded", "step 10")], 0),
        ([("done", "step 5"), ("done", "step 10")], [("loaded", "step 5")], 1),
        ([("done", "observe")], [("begun", "observe")], 1),
    ],
)
def test_what_was_complete_and_is_computed_again_is_lost(recipe, before, after, lost: int) -> None:
    def events(found):
        return [recipe.kills_points.Event(0.0, kind, about) for kind, about in found]

    assert recipe.kills.lost(events(before), events(after)) == lost


def test_kills_are_the_same_for_a_seed_spread_over_the_run_and_within_it(recipe) -> None:
    case = SimpleNamespace(workers=2)
    passages = {"before marker": 5, "after chunk": 9}

    def drawn(seed: int):
        return list(recipe.kills.kills(case, passages, 12, np.random.default_rng(seed)))

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert [kill.number for kill in first] == [signal.SIGKILL] * 12 + [signal.SIGTERM]
    assert {kill.overwrite for kill in first} == {True, False}
    moments = [kill.moment for kill in first if kill.moment is not None]
    assert len(moments) > 3 and all(0 < moment < 1 for moment in moments) and max(moments) - min(moments) > 0.3
    points = [kill.point for kill in first if kill.point is not None]
    assert points and all(1 <= number <= passages[name] for name, number in points)


def test_a_process_dies_at_its_point_and_nowhere_before(tmp_path: Path) -> None:
    """Between the chunk of the second unit and its marker; the first passage is that of the template."""
    code = f"""
        import multiprocessing, os, sys
        sys.path.insert(0, {str(RECIPES / "endurance")!r})
        from pathlib import Path
        from kills_points import Log, watch
        os.setpgid(0, 0)
        watch(Log(Path("log"), ("before marker", 3), multiprocessing.Value("i", 0)))
        import numpy as np, xarray as xr
        from sdaxr.archives.creation import create_archive
        data = xr.Dataset({{"a": (("member", "x"), np.zeros((3, 4)))}})
        archive = create_archive("a.zarr", data, "member", {{}})
        for index in range(3):
            archive.write(index, {{"a": np.ones(4)}})
    """

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment, check=False)
    assert result.returncode == -signal.SIGKILL
    template = xr.Dataset({"a": (("member", "x"), np.zeros((3, 4)))})
    archive = create_archive(tmp_path / "a.zarr", template, "member", {})
    assert archive.status().tolist() == [1, 0, 0]
    assert (tmp_path / "a.zarr.partial" / "a" / "c" / "1").exists()


def test_a_product_is_finished_or_nothing(recipe, tmp_path: Path) -> None:
    content = recipe.kills_jobs.content
    assert content(tmp_path / "a.zarr") is None and content(tmp_path / "a.nc") is None
    for name in ("a.zarr", "a.nc"):
        save(DATA, tmp_path / name)
        save(DATA + 1, tmp_path / f"other-{name}")
        assert content(tmp_path / name) == content(tmp_path / name) != content(tmp_path / f"other-{name}")
    archive = create_archive(tmp_path / "u.zarr", DATA, "member", {})
    archive.write(0, {"a": DATA.a.values[0]})
    assert content(tmp_path / "u.zarr") is None
    # What sdaxr refuses, and other software finds, counts.
    (tmp_path / "u.zarr.partial").rename(tmp_path / "u.zarr")
    assert content(tmp_path / "u.zarr") is not None
    (tmp_path / "b.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:100])
    assert content(tmp_path / "b.nc") is not None
