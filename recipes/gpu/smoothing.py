"""Phase `smoothing`: windows of Lorenz 1996 smoothed by the priors of the phase `lorenz96`.

The scenarios and scores are those of `recipes/lorenz96/windows.py`, which takes the rows over
(``--take smoothing.jsonl``) and has the ensemble smoothers beside them. Where the results have no prior yet, the
shipped one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from phase import Phase
from priors import neighbour

MEMBERS = 16
# Methods of `windows.py`, or trials, the scenarios, and the numbers of windows. Of each the first windows come first:
# a budget that ends early has some of all.
TASKS = (
    ("sda, 32 levels", "sakov2008", 4), ("sda, 32 levels", "spantini2019", 6), ("sda, 32 levels", "forcing", 4),
    ("mmps, unknown forcing", "forcing", 4), ("sda, unknown forcing", "forcing", 4),
    ("sda, 32 levels", "half-observed", 4), ("sda, 32 levels", "sparse-forcing", 4),
    ("sda, unknown forcing", "sparse-forcing", 4), ("mmps, unknown forcing", "sparse-forcing", 4),
    ("mmps", "sakov2008", 2), ("mmps", "spantini2019", 2), ("sda, 64 levels", "spantini2019", 2),
    ("sda, 32 levels", "sakov2008", 16), ("sda, 32 levels", "spantini2019", 80),
    ("sda, 32 levels", "half-observed", 16),
)  # fmt: skip


def run(phase: Phase) -> None:
    """Smooth one window after another until the time is over."""
    recipe = neighbour("lorenz96", "windows")
    known, unknown = (_prior(phase, name) for name in ("lorenz96", "lorenz96-forcing"))
    draws = {name: draw for name, (draw, _) in recipe.methods(known, unknown).items()}
    draws["mmps"] = recipe.with_prior(known, method="mmps", sampler=recipe.QUICK)
    draws["sda, 64 levels"] = recipe.with_prior(known, sampler=recipe.QUICK | {"steps": 64})
    for name, scenario, number in _windows(1 if phase.tenth else None):
        if phase.missing("window", scenario=scenario, method=name, window=number):
            members = 2 if phase.tenth else MEMBERS
            found = recipe.row(scenario, number, draws[name], members, str(phase.device))
            found = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
            phase.record("window", scenario=scenario, method=name, members=members, window=number, **found)


def _prior(phase: Phase, name: str) -> str:
    path = phase.out / f"{name}.safetensors"
    return str(path) if path.exists() else name


def _windows(most: int | None) -> Iterator[tuple[str, str, int]]:
    """Method, scenario and number of each window; at most so many of each task."""
    for name, scenario, count in TASKS:
        for number in range(count if most is None else min(count, most)):
            yield name, scenario, number
