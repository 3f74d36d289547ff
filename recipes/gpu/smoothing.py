"""Phase `smoothing`: windows of Lorenz 1996 smoothed by the priors of the phase `lorenz96`.

The scenarios and scores are those of `recipes/lorenz96/windows.py`, whose windows.csv has the ensemble smoothers beside
them. Where the results have no prior yet, the shipped one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from phase import Phase
from priors import neighbour

MEMBERS = 16
# What is tried beside the default, on the first windows.
TRIALS = {
    "sda": {},
    "sda, 64 levels": {"sampler": {"steps": 64}},
    "sda, no corrections": {"sampler": {"corrections": 0}},
    "mmps": {"method": "mmps"},
    "float32": {"precision": "float32"},
}
# The first windows of each scenario come first, so that a budget which ends early has some of each.
ROUNDS = {"sakov2008": 4, "spantini2019": 6, "forcing": 4, "bocquet2010": 4, "sparse-forcing": 6}
REPEATED = 5


def run(phase: Phase) -> None:
    """Smooth one window after another until the time is over."""
    recipe = neighbour("lorenz96", "windows")
    known, unknown = (_prior(phase, name) for name in ("lorenz96", "lorenz96-forcing"))
    for scenario, method, options, number in _tasks(phase):
        if phase.missing("window", scenario=scenario, method=method, window=number):
            draw = recipe.with_prior(unknown if "unknown" in method else known, **options)
            members = 2 if phase.tenth else MEMBERS
            found = recipe.row(scenario, number, draw, members, str(phase.device))
            found = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
            phase.record("window", scenario=scenario, method=method, members=members, window=number, **found)


def _prior(phase: Phase, name: str) -> str:
    path = phase.out / f"{name}.safetensors"
    return str(path) if path.exists() else name


def _tasks(phase: Phase) -> Iterator[tuple[str, str, dict[str, object], int]]:
    """Scenario, method, its options, and number of the window."""
    repeated = 1 if phase.tenth else REPEATED
    for turn in range(repeated):
        for scenario, count in ROUNDS.items():
            names = ["sda", "sda, unknown forcing"] if "forcing" in scenario else ["sda"]
            for number in range(1 if phase.tenth else count):
                for name in names:
                    yield scenario, name, {}, turn * count + number
        for scenario in ("sakov2008", "spantini2019") if turn == 0 else ():
            for number in range(1 if phase.tenth else 2):
                for name, options in TRIALS.items():
                    yield scenario, name, options, number
