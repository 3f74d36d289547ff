"""Modules of a recipe, which find their neighbours as if they were run, and are gone afterwards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@contextmanager
def recipe_modules(recipe: str, names: Sequence[str]) -> Iterator[SimpleNamespace]:
    folder, before = RECIPES / recipe, set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(RECIPES) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
