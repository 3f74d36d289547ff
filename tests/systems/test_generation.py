"""Trajectories: the same numbers whoever computes them, split and labelled, failures said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import distributed
import numpy as np
import pytest
import xarray as xr
from processes import worker_processes

from sdaxr.archives.archive import Archive
from sdaxr.archives.format import COMPLETE
from sdaxr.archives.reading import open_archive
from sdaxr.archives.seeds import unit_seed
from sdaxr.archives.workers import map_units
from sdaxr.schema import SPLITS, TRAJECTORY, ArchiveError, OptionError
from sdaxr.systems import generation
from sdaxr.systems.base import System
from sdaxr.systems.generation import generate, simulate, split_labels
from sdaxr.systems.lorenz96 import Lorenz96
from sdaxr.systems.registry import open_system

SMALL = {"trajectories": 10, "steps": 6, "seed": 4, "spin_up": 5, "progress": False}


@dataclass(frozen=True)
class Brittle(System):
    """A system that breaks in some trajectories, or takes its worker with it once."""

    name: ClassVar[str] = "brittle"

    step: float = 1.0
    marker: str = ""

    def template(self):
        return xr.Dataset({"x": ((), np.zeros((), np.float32), {"units": "1", "long_name": "anything"})})

    def trajectory(self, steps, seed):
        if self.marker and not os.path.exists(self.marker):
            open(self.marker, "w").close()
            os._exit(1)
        x = np.full(steps, seed % 1000, np.float32)
        if not self.marker and seed % 3 == 0:
            x[-1] = np.nan
        return {"x": x}

    def advance(self, state, steps, seed=0):
        raise NotImplementedError


@pytest.mark.parametrize("system", ["lorenz63", "lorenz96"])
def test_the_archive_holds_the_systems_trajectories(tmp_path, system):
    data = generate(system, tmp_path / "a.zarr", **SMALL)
    model = open_system(system, spin_up=5)
    assert dict(data.sizes) == {"trajectory": 10, "time": 6} | dict(model.template().sizes)
    np.testing.assert_allclose(data.time, np.arange(6) * model.step)
    for index in (0, 7):
        for name, values in model.trajectory(6, unit_seed(4, index)).items():
            np.testing.assert_array_equal(data[name][index], values)
            assert data[name].attrs == model.template()[name].attrs
    assert data.attrs["sdaxr_system"] == system
    assert json.loads(data.attrs["sdaxr_options"]) == model.options()
    assert data.attrs["sdaxr_seed"] == 4
    assert {"units", "long_name"} <= set(data.time.attrs)


def test_kolmogorov_end_to_end(tmp_path):
    data = generate(
        "kolmogorov",
        tmp_path / "a.zarr",
        trajectories=3,
        steps=2,
        resolution="32",
        coarsen=2,
        spin_up=1,
        progress=False,
    )
    assert data.u.dims == ("trajectory", "time", "y", "x") and data.u.shape == (3, 2, 16, 16)
    assert data.split.values.tolist() == ["train", "valid", "test"]
    assert data.x.attrs["period"] == data.y.attrs["period"] == 2 * np.pi
    data.to_netcdf(tmp_path / "a.nc")
    xr.testing.assert_identical(open_archive(tmp_path / "a.nc").load(), data.load())


def test_the_same_call_returns_the_archive_without_work(tmp_path, monkeypatch):
    first = generate("lorenz96", tmp_path / "a.zarr", **SMALL)
    monkeypatch.setattr(Lorenz96, "trajectory", lambda *args: pytest.fail("it was computed again"))
    xr.testing.assert_identical(generate("lorenz96", tmp_path / "a.zarr", **SMALL).load(), first.load())
    with pytest.raises(ArchiveError, match="steps: 6 -> 7"):
        generate("lorenz96", tmp_path / "a.zarr", **SMALL | {"steps": 7})


def test_overwrite_starts_anew(tmp_path):
    first = generate("lorenz96", tmp_path / "a.zarr", **SMALL).load()
    other = generate("lorenz96", tmp_path / "a.zarr", **SMALL | {"seed": 5}, overwrite=True)
    assert not np.allclose(other.x, first.x)


@pytest.mark.parametrize("order", [range(10), range(9, -1, -1), [5, 0, 9, 1, 8, 2, 7, 3, 6, 4]])
def test_the_order_of_the_units_does_not_matter(tmp_path, monkeypatch, order):
    ran = []

    def in_order(function, pending, *arguments, **options):
        assert sorted(pending) == sorted(order)
        for number, outcome in map_units(function, order, *arguments, **options):
            ran.append(number)
            yield number, outcome

    monkeypatch.setattr(generation, "map_units", in_order)
    found = generate("lorenz96", tmp_path / "a.zarr", **SMALL)
    assert ran == list(order)
    model = Lorenz96(spin_up=5)
    for index in range(10):
        np.testing.assert_array_equal(found.x[index], model.trajectory(6, unit_seed(4, index))["x"])


def test_an_archive_that_is_gone_is_no_failure_of_the_system(tmp_path):
    with pytest.raises(ArchiveError, match="is gone or replaced; run the job again"):
        simulate(0, [[0]], Archive(str(tmp_path / "b.zarr"), TRAJECTORY, "no digest"), Lorenz96(spin_up=5), 6, 4)


@pytest.mark.parametrize("batch", [3, 100])
def test_batches_hold_every_trajectory_once(batch, tmp_path):
    here = generate("lorenz96", tmp_path / "a.zarr", **SMALL)
    batched = generate("lorenz96", tmp_path / "b.zarr", **SMALL, batch=batch)
    xr.testing.assert_identical(batched.load(), here.load())
    broken = [i for i in range(12) if unit_seed(0, i) % 3 == 0]
    with pytest.raises(ArchiveError, match=rf"{len(broken)} failed"):
        generate(Brittle(), tmp_path / "c.zarr", trajectories=12, steps=2, progress=False, batch=batch)
    rest = open_archive(tmp_path / "c.zarr", allow_incomplete=True)
    assert rest.trajectory.values.tolist() == [i for i in range(12) if i not in broken]
    with pytest.raises(OptionError, match="found batch=0"):
        generate("lorenz96", tmp_path / "d.zarr", **SMALL, batch=0)


def test_worker_processes_give_the_same_numbers_and_may_die(tmp_path):
    here = generate("lorenz96", tmp_path / "here.zarr", **SMALL)
    brittle = Brittle(marker=str(tmp_path / "died"))
    with worker_processes(2) as cluster, distributed.Client(cluster):
        there = generate("lorenz96", tmp_path / "there.zarr", **SMALL)
        xr.testing.assert_identical(there.load(), here.load())
        survived = generate(brittle, tmp_path / "brittle.zarr", trajectories=4, steps=2, progress=False)
    assert (tmp_path / "died").exists()
    assert (survived.status == COMPLETE).all()


def test_failed_trajectories_are_listed_after_the_rest_is_done(tmp_path, caplog):
    broken = [i for i in range(12) if unit_seed(0, i) % 3 == 0]
    assert 0 < len(broken) < 6
    with pytest.raises(ArchiveError, match=rf"{len(broken)} failed \({broken[0]}: DivergenceError: 'x' of traj"):
        generate(Brittle(), tmp_path / "a.zarr", trajectories=12, steps=2, progress=False)
    assert f"trajectory {broken[-1]} failed" in caplog.text
    rest = open_archive(tmp_path / "a.zarr", allow_incomplete=True)
    assert rest.trajectory.values.tolist() == [i for i in range(12) if i not in broken]


def test_a_full_disk_stops_the_run_and_is_no_failure_of_the_system(tmp_path, monkeypatch):
    def write(self, index, arrays):
        raise ArchiveError("cannot write: No space left on device")

    monkeypatch.setattr(Archive, "write", write)
    with pytest.raises(ArchiveError, match="No space left"):
        generate("lorenz96", tmp_path / "a.zarr", **SMALL)
    monkeypatch.undo()
    assert (generate("lorenz96", tmp_path / "a.zarr", **SMALL).status == COMPLETE).all()


@pytest.mark.parametrize(
    ("number", "split", "counts"),
    [
        (1024, (0.8, 0.1, 0.1), (820, 102, 102)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (2, (0.8, 0.1, 0.1), (2, 0, 0)),
        (4, (1, 0, 0), (4, 0, 0)),
        (4, (0, 0, 1), (0, 0, 4)),
        (5, (0.5, 0, 0.5), (3, 0, 2)),
        (1, (0, 0.5, 0.5), (0, 1, 0)),
        (2, (0, 0.5, 0.5), (0, 1, 1)),
        (3, (0, 0.5, 0.5), (0, 2, 1)),
        (5, (0, 0.5, 0.5), (0, 3, 2)),
        (5, (0, 0.3, 0.7), (0, 2, 3)),
        (3, (0.01, 0.49, 0.5), (1, 1, 1)),
        (3, (0.01, 0.99, 0), (1, 2, 0)),
    ],
)
def test_split_is_in_blocks(number, split, counts):
    labels = split_labels(number, split)
    assert labels.tolist() == ["train"] * counts[0] + ["valid"] * counts[1] + ["test"] * counts[2]
    assert labels.dtype == object


def test_no_trajectory_is_in_a_split_of_fraction_zero():
    fractions = [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]
    for tenths in fractions:
        for number in range(1, 13):
            labels = split_labels(number, np.array(tenths) / 10).tolist()
            assert len(labels) == number
            for tenth, name in zip(tenths, SPLITS, strict=True):
                assert labels.count(name) <= number * tenth
                assert labels.count(name) > 0 or tenth == 0 or number < 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": (0.5, 0.5)}, "expected three fractions"),
        ({"split": (0.5, 0.6, 0.1)}, "add up to 1"),
        ({"trajectories": 0}, "trajectories=0, expected a whole number of at least 1"),
        ({"steps": 1.5}, "steps=1.5, expected"),
        ({"seed": -1}, "seed=-1, expected a whole number of at least 0"),
        ({"site": 3}, "unknown option of lorenz96: 'site'.*Did you mean 'sites'"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, change, message):
    with pytest.raises(OptionError, match=message):
        generate("lorenz96", tmp_path / "a.zarr", **SMALL | change)
    assert not list(tmp_path.iterdir())


def test_generating_a_small_system_needs_neither_jax_nor_torch(tmp_path):
    code = (
        "import sys; from sdaxr.systems.generation import generate; "
        f"generate('lorenz96', {str(tmp_path / 'a.zarr')!r}, trajectories=1, steps=2, spin_up=1, progress=False); "
        "found = {'jax', 'torch', 'matplotlib'} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
