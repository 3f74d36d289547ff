"""Observations: drawn from a truth or anybody's own, checked, and matched with the labels of an operator.

``sdaxr.observations.report(observations, prior)`` is `sdaxr.inference.report.report`: the status of every observation.
"""

from __future__ import annotations

import importlib

# Functions for users that need a prior, which this room does not import. They are loaded when first used.
_HOMES = {"report": "sdaxr.inference.report"}

__all__ = ["report"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
