"""Units of work, in this process and on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.config
import distributed
import pytest
from processes import worker_processes

from sdaxr.archives.workers import active_client, free_on_workers, map_units, send, worker_count
from sdaxr.schema import ArchiveError, ClusterError


def reciprocal(index, numerator):
    return numerator / index


@pytest.fixture
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=":0", memory_limit="64GiB"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def check(outcomes):
    results = dict(outcomes)
    assert set(results) == {0, 1, 2, 4}
    assert isinstance(results.pop(0), ZeroDivisionError)
    assert results == {1: 8.0, 2: 4.0, 4: 2.0}


def test_units_run_here_without_a_client():
    assert active_client() is None
    check(map_units(reciprocal, [0, 1, 2, 4], 8, progress=False))


def test_units_run_on_the_active_client(client):
    assert active_client() is client
    before = len(client.scheduler_info()["workers"])
    check(map_units(reciprocal, [0, 1, 2, 4], 8, progress=False))
    assert before == 2
    # Not pure: the same call is made again, not remembered.
    check(map_units(reciprocal, [0, 1, 2, 4], 8, progress=False))


def where(index):
    from distributed import get_worker

    return get_worker().name


def test_units_that_need_a_resource_run_where_it_is():
    options = {"host": "127.0.0.1", "resources": {"GPU": 1}, "nthreads": 1, "dashboard": False}
    spec = {
        "with": {"cls": distributed.Worker, "options": options},
        "without": {"cls": distributed.Worker, "options": options | {"resources": {}}},
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    with distributed.SpecCluster(workers=spec, scheduler=scheduler) as cluster, distributed.Client(cluster):
        chosen = dict(map_units(where, range(6), progress=False, resource="GPU"))
        assert set(chosen.values()) == {"with"}
        # Nobody has this one, so it is not asked for.
        assert len(dict(map_units(where, range(6), progress=False, resource="TPU"))) == 6


def test_stopping_early_leaves_nothing_running(client):
    outcomes = map_units(reciprocal, range(1, 50), 8, progress=False)
    next(outcomes)
    outcomes.close()
    client.run_on_scheduler(lambda dask_scheduler: None)
    assert not client.futures


def test_memory_of_workers_is_that_of_the_smallest():
    def client(*workers: tuple[int, int, int]) -> Any:
        found = {
            str(i): {"memory_limit": limit, "metrics": {"memory": taken}, "nthreads": threads}
            for i, (limit, taken, threads) in enumerate(workers)
        }
        return SimpleNamespace(scheduler_info=lambda n_workers: {"workers": found})

    assert free_on_workers(client((100, 20, 1), (90, 10, 2))) == 40
    assert free_on_workers(client((100, 120, 1))) == 0
    assert free_on_workers(client((0, 20, 1))) is None


def test_workers_of_a_cluster_tell_their_memory(client):
    assert 0 < free_on_workers(client) < 2**36


def test_progress_bar_counts_units(capsys):
    list(map_units(reciprocal, [1, 2], 8, description="dividing"))
    error = capsys.readouterr().err
    assert "dividing" in error and "2/2" in error
    list(map_units(reciprocal, [1, 2], 8, progress=False))
    assert capsys.readouterr().err == ""


def test_distributed_is_not_imported_for_local_work():
    code = (
        "import sys; from sdaxr.archives.workers import active_client, free_on_workers, map_units; "
        "assert active_client() is None; assert dict(map_units(abs, [-1], progress=False)) == {-1: 1}; "
        "assert 'distributed' not in sys.modules, 'distributed was imported'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def refused(index):
    raise ArchiveError("'/here/a.zarr' is gone.")


def test_an_error_about_a_file_says_on_which_worker(client):
    (error,) = dict(map_units(refused, [0], progress=False)).values()
    (address,) = {worker for worker in client.scheduler_info()["workers"] if worker in str(error)}
    assert type(error) is ArchiveError
    assert str(error) == (
        f"on the worker {address}: '/here/a.zarr' is gone; prior and store have to be on a file system that all "
        "workers share, or have URLs"
    )


def kill_once(index, values, folder):
    """Kill the process of the first worker that gets here."""
    try:
        (Path(folder) / "killed").mkdir()
    except FileExistsError:
        return values[index]
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_is_sent_outlives_the_worker_that_holds_it(tmp_path):
    with worker_processes(1) as cluster, distributed.Client(cluster) as client:
        values = send(client, list("abc"))
        distributed.wait(values)
        assert dict(map_units(kill_once, [0, 1, 2], values, tmp_path, progress=False)) == {0: "a", 1: "b", 2: "c"}


def kill_always(index):
    os.kill(os.getpid(), signal.SIGKILL)


def test_units_whose_workers_die_are_done_again_as_long_as_others_get_done(tmp_path):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),  # Dask gives up at the first death.
        worker_processes(1) as cluster,
        distributed.Client(cluster),
    ):
        found = dict(map_units(kill_once, [0, 1, 2], "abc", tmp_path, progress=False))
        (error,) = dict(map_units(kill_always, [0], progress=False)).values()
    assert found == {0: "a", 1: "b", 2: "c"}
    assert type(error) is ClusterError
    assert "the workers that computed it died, 2 of them" in str(error) and "\n" not in str(error)


def test_a_cluster_that_is_gone_is_one_error_and_nothing_goes_on_here():
    """In a process of its own, which ends."""
    code = """
import distributed, pytest, threading, time
from sdaxr.archives.workers import active_client, map_units, send
from sdaxr.schema import ClusterError
how = {"processes": False, "host": "127.0.0.1", "protocol": "tcp", "dashboard_address": ":0"}
cluster = distributed.LocalCluster(n_workers=1, **how)
client = distributed.Client(cluster.scheduler_address)
threading.Timer(0.5, cluster.close).start()
with pytest.raises(ClusterError, match="^the Dask cluster is gone: .*run the same job again$"):
    list(map_units(lambda index: time.sleep(3), range(4), progress=False))
with pytest.raises(ClusterError):
    send(client, 1)
    active_client()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_workers_that_are_asked_for_are_counted():
    def client(there: int, **cluster: Any) -> Any:
        return SimpleNamespace(nthreads=lambda: dict.fromkeys(range(there), 1), cluster=SimpleNamespace(**cluster))

    assert worker_count(client(2)) == 2
    assert worker_count(client(0)) == 1
    assert worker_count(client(1, plan={"a", "b", "c"}, _adaptive=None)) == 3
    assert worker_count(client(0, plan=set(), _adaptive=SimpleNamespace(maximum=8))) == 8
    assert worker_count(client(0, plan=set(), _adaptive=SimpleNamespace(maximum=float("inf")))) == float("inf")


def test_a_cluster_that_adapts_grows_for_the_units():
    options = {"n_workers": 0, "processes": False, "host": "127.0.0.1", "protocol": "tcp", "dashboard_address": ":0"}
    with distributed.LocalCluster(threads_per_worker=1, **options) as cluster, distributed.Client(cluster) as client:
        assert worker_count(client) == 1
        cluster.adapt(minimum=0, maximum=2, interval="100ms")
        assert worker_count(client) == 2
        assert dict(map_units(reciprocal, [1, 2], 8, progress=False)) == {1: 8.0, 2: 4.0}
