"""Phase `parameters`: forcings of Lorenz 1996, estimated with the prior of the phase `forcing`, or the shipped one.

`recipes/lorenz96/parameters.py` has the settings, takes the rows over (``--take parameters.jsonl``), and has the
ensemble smoothers beside them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from phase import Phase
from priors import neighbour
from smoothing import prior_of
from together import together

MEMBERS, LEVELS, STATES, TRUTHS = 32, 32, 64, 32


def run(phase: Phase) -> None:
    """Estimate the forcings of many truths side by side; the first truths of every method come first."""
    truths, members = (1, 2) if phase.tenth else (TRUTHS, MEMBERS)
    keys = [
        {"setting": setting, "states": STATES, "method": method, "levels": LEVELS, "members": members, "seed": seed}
        for seed in range(truths)
        for setting in ("sakov2008", "bocquet2010")
        for method in ("sda", "mmps")
    ]
    together(phase, "truth", keys, partial(estimated, path=prior_of(phase.out, "lorenz96-forcing")))


def estimated(
    *, setting: str, states: int, method: str, levels: int, members: int, seed: int, path: str, device: str
) -> dict[str, Any]:
    """Scores of one truth."""
    recipe = neighbour("lorenz96", "parameters")
    found = recipe.estimate_one(path, setting, states, method, levels, members, seed, device)
    return {key: round(value, 5) for key, value in found.items()} | {"device": device}
