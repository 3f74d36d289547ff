"""Commands in processes of their own, forked from one that has imported everything, with or without a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills_points import Log, watch

context = multiprocessing.get_context("fork")

BUCKET = "bucket"
# A command that takes longer than this hangs.
_SECONDS = 300
# Option of prctl: the signal that a process gets when its parent dies.
_DEATH_SIGNAL = 1


@dataclass
class Cluster:
    """A scheduler and its workers, in processes that stay when the driver dies; empty without workers."""

    address: str | None = None
    processes: list[Any] = field(default_factory=list)


@dataclass
class Run:
    """A command that runs: its processes, which are a group.

    Attributes
    ----------
    driver
        The process of the command.
    cluster
        Its cluster.
    started
        When the command began (`time.time`), after the cluster and the imports.
    output
        What it writes to standard error.
    """

    driver: Any
    cluster: Cluster
    started: float
    output: Path

    def kill(self, number: int, *, whole: bool) -> None:
        """Send a signal to the driver, or to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            if whole:
                os.killpg(self._group, number)
            else:
                os.kill(self.driver.pid, number)

    def wait(self, seconds: float = _SECONDS) -> int | None:
        """The exit code of the driver, negative for a signal; None if it has not ended within ``seconds``."""
        self.driver.join(seconds)
        return self.driver.exitcode

    def end(self) -> None:
        """End what is left of the run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        for process in (self.driver, *self.cluster.processes):
            process.join()

    @property
    def _group(self) -> int:
        return (self.cluster.processes or [self.driver])[0].pid


def cluster(workers: int, log: Log) -> Cluster:
    """A cluster on this machine whose workers report to ``log``."""
    if not workers:
        return Cluster()
    here, there = context.Pipe()
    processes = [context.Process(target=_schedule, args=(there,))]
    processes[0].start()
    address = here.recv()
    group = processes[0].pid
    processes += [context.Process(target=_work, args=(address, group, log)) for _ in range(workers)]
    for process in processes[1:]:
        process.start()
    return Cluster(address, processes)


def start(words: list[str], found: Cluster, workers: int, log: Log, folder: Path) -> Run:
    """Start a command."""
    here, there = context.Pipe()
    group = found.processes[0].pid if found.processes else 0
    output = folder / f"stderr-{time.time_ns()}"
    driver = context.Process(target=_drive, args=(words, found.address, workers, group, log, output, there))
    driver.start()
    there.close()
    return Run(driver, found, here.recv(), output)


def ask(function: Callable[..., Any], *args: Any) -> Any:
    """What ``function`` returns, in a process of its own: one that reads has threads and cannot be forked."""
    here, there = context.Pipe()

    def answer() -> None:
        there.send(function(*args))

    process = context.Process(target=answer)
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def import_everything(use: Callable[[], Any]) -> None:
    """Import what ``use`` imports, which is run in another process, so that kills hit the work and not the imports."""
    names = ask(lambda: (use(), sorted(sys.modules))[1])
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a bucket of an S3 server (moto) on this machine, a process of its own."""
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    os.environ |= {"AWS_ENDPOINT_URL": here.recv(), "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    try:
        ask(_make_bucket)
        yield f"s3://{BUCKET}/"
    finally:
        process.kill()
        process.join()


def _drive(words: list[str], address: str | None, workers: int, group: int, log: Log, output: Path, ready: Any) -> None:
    _begin(group, output)
    watch(log)
    from sdaxr.commands.cli import main

    if address is not None:
        from distributed import Client

        Client(address, set_as_default=True).wait_for_workers(workers)
    ready.send(time.time())
    main(words)


def _begin(group: int, output: Path) -> None:
    """Join a group of processes, die with the process that measures, and write to a file."""
    os.setpgid(0, group)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    _quiet(output)


def _quiet(output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # The file objects of the parent may be other ones, such as those of a test.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)


def _schedule(pipe: Any) -> None:
    _begin(0, Path(os.devnull))

    async def run() -> None:
        from distributed import Scheduler

        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(run())


def _work(address: str, group: int, log: Log) -> None:
    _begin(group, Path(os.devnull))
    watch(log)

    async def run() -> None:
        from distributed import Worker

        async with Worker(address, nthreads=1, host="127.0.0.1", dashboard=False, memory_limit=0) as worker:
            await worker.finished()

    asyncio.run(run())


def _serve(pipe: Any) -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    pipe.send(f"http://{host}:{port}")
    signal.pause()


def _make_bucket() -> None:
    import s3fs

    s3fs.S3FileSystem().mkdir(BUCKET)
