"""Processes that are forked from one that has imported everything, so that each is there at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import dask.config
import distributed

_MODULES = [
    "distributed", "distributed.nanny", "torch._dynamo", "cf_xarray.units", "sdaxr.commands.cli",
    "sdaxr.commands.steps", "sdaxr.prior.training", "sdaxr.inference.assimilate", "sdaxr.inference.continuation",
]  # fmt: skip


@functools.cache
def forked() -> ForkServerContext:
    """The context whose processes are forked from the one process, which runs from now on and starts no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    forkserver.ensure_running()
    return context


@contextlib.contextmanager
def worker_processes(count: int, **options: Any) -> Iterator[distributed.LocalCluster]:
    """A Dask cluster of so many processes of one thread, without a client."""
    forked()  # before Dask, which would have it import other modules
    how = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"} | options
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(n_workers=count, **how) as cluster,
    ):
        yield cluster


def serve(kind: str, where: str) -> None:
    """The ``scheduler`` or a ``worker`` of a cluster of the scheduler file ``where``, until it is stopped."""

    async def run() -> None:
        if kind == "scheduler":
            server = distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False, scheduler_file=where)
        else:
            server = distributed.Worker(scheduler_file=where, nthreads=1, dashboard=False)
        async with server:
            await server.finished()

    asyncio.run(run())


def command(words: list[str], environment: dict[str, str], log: Path) -> None:
    """The command ``sdaxr`` with these arguments; what it says on standard error is in the file ``log``."""
    from sdaxr.commands.cli import main

    os.environ.update(environment)
    with open(log, "w") as said, contextlib.redirect_stderr(said):
        main(words)
