"""How long a computation takes, said after its first part."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)

# Fraction of the work that is done when it is said; the first evaluations, in which much is set up, do not count.
_SAID, _SETTING_UP = 0.05, 0.01


def telling(tick: Callable[[int], Any], total: int, *, what: str, unit: str = "evaluations") -> Callable[[int], Any]:
    """``tick``, which is called with the work that is done, and says once how many seconds are to go.

    Parameters
    ----------
    tick
        Is called with each number of units.
    total
        Number of all units.
    what
        What is computed.
    unit
        What is counted.
    """
    done, begun, said = 0, (0, time.monotonic()), False

    def counted(number: int) -> Any:
        nonlocal done, begun, said
        now, done = time.monotonic(), done + number
        if done <= max(number, _SETTING_UP * total):
            begun = done, now
        elif not said and done < total and done - begun[0] >= _SAID * total:
            seconds = (now - begun[1]) / (done - begun[0]) * max(0, total - done)
            _log.info("%s: %d of %d %s are done, about %.0f s to go", what, done, total, unit, seconds)
            said = True
        return tick(number)

    return counted
