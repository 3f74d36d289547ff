"""One function over many units of work: on the active Dask client, else in this process.

A cluster is never started silently: whoever wants one creates a `distributed.Client` first. Functions and their
arguments travel to the workers, so pass paths and indices, not arrays or models.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from sdaxr.schema import ArchiveError, ClusterError, PriorError

__all__ = ["active_client", "free_on_workers", "map_units", "send", "worker_count"]

_LOST = (
    "the Dask cluster is gone: its scheduler was lost, restarted or closed; units that are complete stay in the "
    "archive, so start a cluster and run the same job again"
)
_KILLED = (
    "the workers that computed it died, {} of them; look at their logs, and where memory was short compute fewer "
    "members at once (batch, --batch), or give workers more"
)

# Rounds in which workers died and nothing was done. In one round the same unit has seen the end of four workers.
_IDLE = 2


def active_client() -> Any | None:
    """The running `distributed.Client` of this process, or None; does not import ``distributed``.

    Raises
    ------
    ClusterError
        If its scheduler is lost.
    """
    client_module = sys.modules.get("distributed.client")
    if client_module is None:
        return None
    try:
        client = client_module.default_client()
    except ValueError:
        return None
    if client.status == "connecting":
        # Work that was meant for a cluster does not go on in this process.
        raise ClusterError(_LOST)
    return client if client.status == "running" else None


def worker_count(client: Any) -> float:
    """Number of workers that are there, or that are asked for and may come; infinite where no limit is known."""
    there, cluster = len(client.nthreads()), client.cluster
    asked = len(getattr(cluster, "plan", ()))
    adaptive = getattr(cluster, "_adaptive", None)
    most = 0.0 if adaptive is None else float(adaptive.maximum)
    return max(1, there, asked, most)


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
    with _cluster_errors(client), warnings.catch_warnings():
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
    """Rounds of units: those whose workers died too often for Dask are done again, as long as others get done."""
    from distributed import KilledWorker

    idle = 0
    while units:
        killed: dict[int, Exception] = {}
        for index, outcome in _round(client, function, units, args, resource):
            if isinstance(outcome, KilledWorker):
                killed[index] = outcome
            else:
                yield index, outcome
        idle = idle + 1 if len(killed) == len(units) else 0
        if idle == _IDLE:
            # Nothing else was done in between, so that it is the units that end their workers.
            for index, error in killed.items():
                yield index, ClusterError(_KILLED.format(_IDLE * (getattr(error, "allowed_failures", 0) + 1)))
            return
        units = list(killed)


def _round(
    client: Any, function: Callable[..., Any], units: list[int], args: tuple[Any, ...], resource: str | None
) -> Iterator[tuple[int, Any]]:
    from distributed import as_completed

    with _cluster_errors(client):
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        declared = resource is not None and any(resource in worker.get("resources", {}) for worker in workers)
        needed = {resource: 1} if declared else None
        arguments = [[argument] * len(units) for argument in args]
        # Not pure: units act by what they write, so a remembered result would be no result. `function` is safe to
        # repeat.
        futures = client.map(
            _on_worker, [function] * len(units), units, *arguments, pure=False, retries=2, resources=needed
        )
    index_of = {future.key: index for index, future in zip(units, futures, strict=True)}
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            with _cluster_errors(client):
                if future.cancelled():
                    raise ClusterError(_LOST)
                outcome = future.exception() or future.result()
            yield index_of[future.key], outcome
            future.release()
    finally:
        # Reached early when the caller stops on an error: do not leave the cluster working for nobody.
        if client.status == "running":
            client.cancel([future for future in futures if not future.done()])


@contextlib.contextmanager
def _cluster_errors(client: Any) -> Iterator[None]:
    """Turn what ``distributed`` raises of a cluster that is gone into `ClusterError`."""
    from concurrent.futures import CancelledError

    try:
        yield
    except CancelledError as error:
        raise ClusterError(_LOST) from error
    except Exception as error:  # a comm that is closed has several
        if isinstance(error, ClusterError) or (client.status == "running" and not isinstance(error, OSError)):
            raise
        raise ClusterError(_LOST) from error
