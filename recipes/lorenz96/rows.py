"""Rows of the CSV files of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd


def save(row: dict[str, Any], keys: Sequence[str], output: Path) -> None:
    """Write and print a row, in the place of the one with the same ``keys``, or at the end."""
    named = dict.fromkeys(keys, str)
    new = pd.DataFrame([row]).astype(named)
    if output.exists():
        numbers = [name for name in pd.read_csv(output, nrows=0) if name not in named]
        # Without options, a key is an empty text.
        old = pd.read_csv(output, dtype=named, keep_default_na=False, na_values={key: [""] for key in numbers})
        same = (old[list(keys)] == new[list(keys)].iloc[0]).all(axis=1)
        new = pd.concat([old[~same], new], ignore_index=True)
    new.to_csv(output, index=False, float_format="%.4g")
    print(row, flush=True)
