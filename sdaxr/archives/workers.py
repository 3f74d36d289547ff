"""One function over many units of work: on the active Dask client, else in this process.

A cluster is never started silently: whoever wants one creates a `distributed.Client` first. Functions and their
arguments travel to the workers, so pass paths and indices, not arrays or models.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from sdaxr.schema import ArchiveError, PriorError

__all__ = ["active_client", "free_on_workers", "map_units", "send"]


def active_client() -> Any | None:
    """The running `distributed.Client` of this process, or None; does not import ``distributed``."""
    client_module = sys.modules.get("distributed.client")
    if client_module is None:
        return None
    try:
        client = client_module.default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None


def free_on_workers(client: Any) -> float | None:
    """Bytes that each of the tasks at once may take on the worker where fewest are free; None without limits."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limited = [worker for worker in workers if worker.get("memory_limit")]
    free = [(w["memory_limit"] - w["metrics"]["memory"]) / max(1, w["nthreads"]) for w in limited]
    return max(0.0, min(free)) if free else None


def send(client: Any, value: Any) -> Any:
    """A future of ``value`` for `map_units`, which the workers share.

    The scheduler keeps the value as a task, unlike one that is scattered: when the worker that holds the value dies,
    another gets it.
    """
    with warnings.catch_warnings():
        # Of values above 10 MB, which are to be scattered in its opinion.
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(_received, value, pure=False)


def _received(value: Any) -> Any:
    return value


def map_units(
    function: Callable[..., Any],
    indices: Iterable[int],
    *args: Any,
    progress: bool = True,
    description: str | None = None,
    resource: str | None = None,
) -> Generator[tuple[int, Any]]:
    """Call ``function(index, *args)`` for every index, in any order.

    Parameters
    ----------
    function
        Picklable when a client is active; must give the same result when it is called twice for one index.
    indices
        Units of work.
    *args
        Small further arguments, the same for all units.
    progress
        Show a progress bar on the driver.
    description
        Text beside the bar.
    resource
        What a unit takes one of, such as ``"GPU"``, if there are workers that declare it (``dask worker --resources
        "GPU=1"``): then only those are used, and no more units run on one than it has.

    Yields
    ------
    tuple
        The index, and the result or the `Exception` that was raised, as units finish.
    """
    from tqdm.auto import tqdm

    units = list(indices)
    client = active_client()
    outcomes = _local(function, units, args) if client is None else _remote(client, function, units, args, resource)
    with tqdm(total=len(units), desc=description, disable=not progress) as bar:
        for outcome in outcomes:
            bar.update()
            yield outcome


def _local(function: Callable[..., Any], units: list[int], args: tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    for index in units:
        try:
            result = function(index, *args)
        except Exception as error:
            result = error
        yield index, result


def _on_worker(function: Callable[..., Any], index: int, *args: Any) -> Any:
    """Call ``function``; an error about a file says on which worker, whose file system may be another one."""
    from distributed import get_worker

    try:
        return function(index, *args)
    except (ArchiveError, PriorError) as error:
        reason = str(error).rstrip(".")
        raise type(error)(
            f"on the worker {get_worker().address}: {reason}; prior and store have to be on a file system that all "
            "workers share, or have URLs"
        ) from error


def _remote(
    client: Any, function: Callable[..., Any], units: list[int], args: tuple[Any, ...], resource: str | None
) -> Iterator[tuple[int, Any]]:
    from distributed import as_completed

    # Not pure: units act by what they write, so a remembered result would be no result. Retries are for workers
    # that die; `function` is safe to repeat.
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = resource is not None and any(resource in worker.get("resources", {}) for worker in workers)
    needed = {resource: 1} if declared else None
    arguments = [[argument] * len(units) for argument in args]
    futures = client.map(
        _on_worker, [function] * len(units), units, *arguments, pure=False, retries=2, resources=needed
    )
    index_of = {future.key: index for index, future in zip(units, futures, strict=True)}
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield index_of[future.key], future.exception() or future.result()
            future.release()
    finally:
        # Reached early when the caller stops on an error: do not leave the cluster working for nobody.
        client.cancel([future for future in futures if not future.done()])
