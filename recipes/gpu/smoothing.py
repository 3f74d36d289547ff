"""Phase `smoothing`: windows of Lorenz 1996 smoothed by the priors of the phases `lorenz96` and `forcing`.

The scenarios and scores are those of `recipes/lorenz96/windows.py`, which takes the rows over
(``--take smoothing.jsonl``) and has the ensemble smoothers beside them. Where the results have no prior yet, the
shipped one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from phase import Phase
from priors import neighbour
from together import together

MEMBERS = 16
# Methods of `windows.py`, the scenarios, and the numbers of windows. Of each the first windows come first: a budget
# that ends early has some of all.
TASKS = (
    ("sda, unknown forcing", "forcing", 8), ("sda, unknown forcing", "sparse-forcing", 8),
    ("mmps, unknown forcing", "forcing", 4), ("mmps, unknown forcing", "sparse-forcing", 4),
    ("sda", "spantini2019", 8), ("sda, 32 levels", "sparse-forcing", 8), ("sda, 32 levels", "forcing", 8),
    ("mmps below 1, 32 levels", "sakov2008", 16), ("mmps below 1, 32 levels", "bocquet2010", 16),
    ("sda, 32 levels", "sakov2008", 16), ("sda, 32 levels", "bocquet2010", 16), ("mmps below 1", "spantini2019", 77),
)  # fmt: skip


def run(phase: Phase) -> None:
    """Smooth many windows side by side until the time is over."""
    priors = prior_of(phase.out, "lorenz96"), prior_of(phase.out, "lorenz96-forcing")
    keys = _windows(1 if phase.tenth else None, 2 if phase.tenth else MEMBERS)
    together(phase, "window", keys, partial(smoothed, priors=priors))


def prior_of(folder: Path, name: str) -> str:
    """The prior of that name among the results, else the shipped one."""
    path = folder / f"{name}.safetensors"
    return str(path) if path.exists() else name


def smoothed(
    *, scenario: str, method: str, members: int, window: int, priors: tuple[str, str], device: str
) -> dict[str, Any]:
    """Scores of one window."""
    recipe = neighbour("lorenz96", "windows")
    found = recipe.row(scenario, window, recipe.methods(*priors)[method][0], members, device)
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


def _windows(most: int | None, members: int) -> Iterator[dict[str, Any]]:
    """Scenario, method, members and number of each window, once; at most so many of each task."""
    seen = set()
    for method, scenario, count in TASKS:
        for number in range(count if most is None else min(count, most)):
            if (method, scenario, number) not in seen:
                seen.add((method, scenario, number))
                yield {"scenario": scenario, "method": method, "members": members, "window": number}
