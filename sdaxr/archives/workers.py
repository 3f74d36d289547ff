"""One function over many units of work: on the active Dask client, else in this process.

A cluster is never started silently: whoever wants one creates a `distributed.Client` first. Functions and their
arguments travel to the workers, so pass paths and indices, not arrays or models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

__all__ = ["active_client", "map_units"]


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
    futures = client.map(function, units, *arguments, pure=False, retries=2, resources=needed)
    index_of = {future.key: index for index, future in zip(units, futures, strict=True)}
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield index_of[future.key], future.exception() or future.result()
            future.release()
    finally:
        # Reached early when the caller stops on an error: do not leave the cluster working for nobody.
        client.cancel([future for future in futures if not future.done()])
