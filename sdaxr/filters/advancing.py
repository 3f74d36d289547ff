"""Forecasts of the members of an ensemble: in this process, or on the workers of the active Dask client."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdaxr.archives.workers import active_client, map_units, send, worker_count
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import DivergenceError
from sdaxr.systems.base import System

# Values that are computed, from which on it pays to send states to workers and back: a hundredth of a second each.
_WORTH = 20_000


def advanced(
    model: StateSpaceModel, states: np.ndarray, steps: int, random: np.random.Generator, time: int
) -> np.ndarray:
    """The next ``steps`` states of each member after the state ``time``, (members, n) to (steps, members, n).

    With a Dask client, members of a large deterministic system are computed on its workers. Their rounding may depend
    on how many there are on one worker.

    Raises
    ------
    DivergenceError
        If a member is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        later = _later(model.system, states, steps, random)
    # States are kept in single precision; what this cannot hold has diverged. The comparison is false for NaN, too.
    finite = (np.abs(later) < np.finfo(np.float32).max).all(-1)
    if not finite.all():
        step, member = (int(i) for i in np.argwhere(~finite)[0])
        raise DivergenceError(
            f"member {member} is not finite at {model.times.values[time + 1 + step]} in the forecast by "
            f"{model.system.name}; take more members, localisation or other inflation, or check the errors"
        )
    return later


def _later(system: System, states: np.ndarray, steps: int, random: np.random.Generator) -> np.ndarray:
    client = active_client()
    # Random numbers of a stochastic system follow from one source for all members.
    if client is None or system.stochastic or steps * states.size < _WORTH:
        return system.advance_ensemble(states, steps, random)
    parts = np.array_split(states, int(min(len(states), worker_count(client))))
    shared = send(client, parts)
    found = dict(map_units(_part, range(len(parts)), system, shared, steps, progress=False))
    for outcome in found.values():
        if isinstance(outcome, Exception):
            raise outcome
    return np.concatenate([found[number] for number in range(len(parts))], axis=1)


def _part(number: int, system: System, parts: list[np.ndarray], steps: int) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return system.advance_ensemble(parts[number], steps, np.random.default_rng(0))
