"""Posteriors that are drawn by the worker processes of a Dask cluster, some of which die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import xarray as xr
from object_stores import BUCKET, S3Server
from processes import forked, serve, worker_processes

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.stores import save
from sdaxr.inference.assimilate import assimilate
from sdaxr.prior.opening import open_prior
from sdaxr.schema import ClusterError, DivergenceError

SAMPLER: dict[str, Any] = {"steps": 8, "corrections": 0, "mixing": False}
# With a variance that is given, no process has to measure one.
FEW: dict[str, Any] = {"batch": 2, "sampler": SAMPLER, "method": {"variance": 0.1}, "progress": False}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    store = tmp_path_factory.mktemp("chain") / "t.zarr"
    made = sdaxr.generate("lorenz63", store, trajectories=1, steps=9, split=(0, 0, 1), progress=False)
    return made.isel(trajectory=0).load()


@pytest.fixture(scope="module")
def seen(chain: xr.Dataset) -> xr.Dataset:
    return sdaxr.observe(chain, op.select("a"), every=4, error=1.0, seed=1)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the shipped prior that does not know its symmetries, and has few windows to measure variances with."""
    prior = open_prior("lorenz63").with_symmetries()
    states, context = prior.reference
    path = tmp_path_factory.mktemp("own") / "lorenz63.safetensors"
    replace(prior, reference=(states[:8], context)).save(path)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with worker_processes(2) as found:
        yield found


def assert_close(one: xr.Dataset, other: xr.Dataset) -> None:
    """A batch on another process may be one of another size, which changes rounding."""
    for name in "abc":
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-3)


def test_members_are_drawn_by_worker_processes(
    cluster: distributed.LocalCluster, seen: xr.Dataset, own: Path, tmp_path: Path
) -> None:
    options = FEW | {"members": 5, "seed": 3}
    here = assimilate(seen, "lorenz63", **options)
    measured = options | {"method": "sda"}
    expected = assimilate(seen, own, **measured)
    with distributed.Client(cluster):
        there = assimilate(seen, "lorenz63", **options)
        stored = assimilate(seen, own, store=tmp_path / "p.zarr", **measured)
        exact = seen.assign(a_error=(1e-5 * seen.a_error).assign_attrs(seen.a.attrs))
        with pytest.raises(DivergenceError, match="diverged at noise level"):
            assimilate(exact, "lorenz63", **(options | {"method": {"variance": 0.0}}))
    assert_close(there, here)
    assert_close(stored, expected)


def test_members_that_disagree_about_the_mode_are_drawn_together_by_workers(
    cluster: distributed.LocalCluster, chain: xr.Dataset, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third component of Lorenz 1963 does not tell the sign of the others."""
    monkeypatch.setattr("sdaxr.inference.drawing.ENOUGH", 16)
    seen = sdaxr.observe(chain, op.select("c"), every=4, error=2.0, seed=1)
    options = {"members": 22, "batch": 8, "sampler": {"steps": 8, "corrections": 0}, "progress": False}
    here = assimilate(seen, own, **options)
    with distributed.Client(cluster):
        there = assimilate(seen, own, store=tmp_path / "p.zarr", **options)
    assert here.attrs["mixing_sampler"] == "twisted"
    assert {key: there.attrs[key] for key in here.attrs} == here.attrs
    assert_close(there, here)


def when(there: Callable[[], bool], act: Callable[[], Any]) -> None:
    """Do something in a thread as soon as something is there."""

    def wait() -> None:
        while not there():
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_worker_that_is_killed_takes_no_member_with_it(
    cluster: distributed.LocalCluster, seen: xr.Dataset, tmp_path: Path
) -> None:
    store = tmp_path / "p.zarr"
    here = assimilate(seen, "lorenz63", members=16, **FEW)
    with distributed.Client(cluster):
        first, killed = cluster.workers[0].pid, list[int]()

        def kill() -> None:
            os.kill(first, signal.SIGKILL)
            killed.append(first)

        when(lambda: any(tmp_path.glob("p.zarr.partial/status/c/*")), kill)
        there = assimilate(seen, "lorenz63", members=16, store=store, **FEW)
    assert killed
    np.testing.assert_array_equal(there.a, here.a)


def test_a_scheduler_that_is_lost_leaves_an_archive_that_resumes(tmp_path: Path, seen: xr.Dataset) -> None:
    store, where = tmp_path / "p.zarr", str(tmp_path / "scheduler.json")
    begun = {kind: forked().Process(target=serve, args=(kind, where)) for kind in ("scheduler", "worker")}
    for process in begun.values():
        process.start()
    try:
        with distributed.Client(scheduler_file=where) as client:
            client.wait_for_workers(1)
            when(lambda: any(tmp_path.glob("p.zarr.partial/status/c/*")), begun["scheduler"].kill)
            with pytest.raises(ClusterError, match="^the Dask cluster is gone: .*run the same job again$"):
                assimilate(seen, "lorenz63", members=64, store=store, **FEW)
    finally:
        for process in begun.values():
            process.kill()
            process.join()
    there = sdaxr.open_archive(store, allow_incomplete=True).sizes["member"]
    resumed = assimilate(seen, "lorenz63", members=64, store=store, **FEW)
    assert 0 < there < 64
    np.testing.assert_array_equal(resumed.a, assimilate(seen, "lorenz63", members=64, **FEW).a)


ON_S3 = """
import distributed, json, sys, xarray, sdaxr

if __name__ == "__main__":
    seen, store, options = xarray.load_dataset(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    # Neither is closed, as in a script that simply ends.
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    client = distributed.Client(cluster)
    found = sdaxr.assimilate(
        seen, "lorenz63", members=4, store=store, storage_options=options, **json.loads(sys.argv[4])
    )
"""


def test_workers_write_to_s3_and_the_process_ends(tmp_path: Path, seen: xr.Dataset, server: S3Server) -> None:
    (tmp_path / "script.py").write_text(ON_S3)
    save(seen, tmp_path / "seen.nc")
    store, options = f"s3://{BUCKET}/p.zarr", server.options | {"config_kwargs": {"retries": {"max_attempts": 5}}}
    command = [
        sys.executable,
        str(tmp_path / "script.py"),
        str(tmp_path / "seen.nc"),
        store,
        json.dumps(options),
        json.dumps(FEW),
    ]
    paths = os.pathsep.join(filter(None, sys.path))
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONPATH": paths}, cwd=tmp_path)
    there = sdaxr.open_archive(store, storage_options=options)
    np.testing.assert_array_equal(there.a, assimilate(seen, "lorenz63", members=4, **FEW).a)
