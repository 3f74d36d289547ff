"""Several processes on one GPU: a posterior of a small network waits for its launches, not for the device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

from phase import Phase

PROCESSES = 8


def together(phase: Phase, what: str, keys: Iterable[dict[str, Any]], compute: Callable[..., dict[str, Any]]) -> None:
    """Record ``compute(device=..., **key)`` for every key that has no record yet, until the time is over.

    Keys are begun in their order. What is not finished when the time is over is lost.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1 if phase.tenth else PROCESSES, mp_context=context)
    device = str(phase.device)
    missing = [key for key in keys if phase.missing(what, **key)]
    waiting = {pool.submit(compute, device=device, **key): key for key in missing}
    while waiting and phase.left > 0:
        done, _ = wait(waiting, timeout=phase.left, return_when=FIRST_COMPLETED)
        for future in done:
            phase.record(what, **waiting.pop(future), **future.result())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        process.terminate()
