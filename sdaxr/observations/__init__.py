"""Observations: reading, preparation, and what they say of their errors.

====================  ============================================================================================
`superob`             average observations within the cells and steps of a grid
`thin`                leave out observations that are closer to each other than a distance
`drop_duplicates`     leave out second reports of one measurement
`buddy_check`         leave out observations that do not fit their neighbours (titanlib)
`inflate`             larger errors for some networks
`split`               withhold stations for verification
`estimate_errors`     errors from innovations and analysis residuals (Desroziers et al. 2005)
`with_bias`           biases of sources, which the assimilation allows for; `draw_bias` draws them with the members
`report`              the status of every observation: used, or why not
====================  ============================================================================================

`sdaxr.read_observations` reads files of other software, `sdaxr.observe` makes synthetic observations.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdaxr.inference.report import report
    from sdaxr.observations.bias import draw_bias, with_bias
    from sdaxr.observations.desroziers import estimate_errors
    from sdaxr.observations.duplicates import drop_duplicates
    from sdaxr.observations.inflation import inflate
    from sdaxr.observations.neighbours import buddy_check
    from sdaxr.observations.splitting import split
    from sdaxr.observations.superobbing import superob
    from sdaxr.observations.thinning import thin

__all__ = [
    "superob",
    "thin",
    "drop_duplicates",
    "buddy_check",
    "inflate",
    "split",
    "estimate_errors",
    "with_bias",
    "draw_bias",
    "report",
]

# Where each name is defined; the files have other names, because a module hides a function of its name.
_HOMES = {
    "superob": "sdaxr.observations.superobbing",
    "thin": "sdaxr.observations.thinning",
    "drop_duplicates": "sdaxr.observations.duplicates",
    "buddy_check": "sdaxr.observations.neighbours",
    "inflate": "sdaxr.observations.inflation",
    "split": "sdaxr.observations.splitting",
    "estimate_errors": "sdaxr.observations.desroziers",
    "with_bias": "sdaxr.observations.bias",
    "draw_bias": "sdaxr.observations.bias",
    "report": "sdaxr.inference.report",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdaxr.observations' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
