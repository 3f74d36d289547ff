"""The memory of this machine, within the limits of the container."""

from __future__ import annotations

from sdaxr.schema import OptionError


def free_here() -> float:
    """Bytes that this process may still take, within the limits of its container (cgroups)."""
    import psutil
    from distributed import system

    allowed = system.memory_limit() - psutil.Process().memory_info().rss
    return float(max(0, min(psutil.virtual_memory().available, allowed)))


def taken_here() -> float:
    """Bytes that this process has."""
    import psutil

    return float(psutil.Process().memory_info().rss)


def check_room(
    needed: float, free: float | None, what: str, remedy: str, *, on: object = None, error: float = 0.0
) -> None:
    """Raise `OptionError` if fewer bytes are free than are needed; ``free`` is None where there is no limit.

    Parameters
    ----------
    needed, free
        Bytes.
    what, remedy
        What takes them, up to the verb, and what to do, for the message.
    on
        The device whose bytes they are. Default: this machine, which need not be named.
    error
        Relative error of what is needed: what may fit is not refused.
    """
    if free is not None and (1 - error) * needed > free:
        there = "free" if on is None else f"free on {on}"
        raise OptionError(
            f"{what} {needed / 1e9:.2g} GB, found {free / 1e9:.2g} GB {there}, expected as much; {remedy}"
        )
