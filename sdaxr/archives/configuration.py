"""The configuration of a result: canonical JSON with its hash, and what differs between two configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sdaxr.schema import ArchiveError

CONFIG = "sdaxr_config"
HASH = "sdaxr_config_sha256"
# Characters of a difference that is cut.
_LONGEST = 300


def config_attrs(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as attributes of a file: canonical JSON (`CONFIG`), and its SHA-256 (`HASH`)."""
    text = json.dumps(dict(config), sort_keys=True)
    return {CONFIG: text, HASH: hashlib.sha256(text.encode()).hexdigest()}


def difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str:
    """What differs between two configurations, for an error message: ``seed: 0 -> 1; options.step: nothing -> 2``.

    Mappings are compared entry by entry; the text is empty where nothing differs.
    """
    parts = []
    for key in sorted(set(there) | set(here)):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            parts.append(difference(old, new, f"{prefix}{key}."))
        elif old != new or (key in there) != (key in here):
            parts.append(f"{prefix}{key}: {_shown(there, key)} -> {_shown(here, key)}")
    return "; ".join(part for part in parts if part)


def brief_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """`difference`, cut where it is long: other data differ in every statistic."""
    return difference(there, here)[:_LONGEST]


def made_otherwise(where: object, changes: str) -> ArchiveError:
    """The error where something was made with another configuration, with its `difference` from that of this run."""
    return ArchiveError(
        f"'{where}' was made with another configuration (there -> in this run): {changes}. Use the same configuration "
        "to resume or reuse it, choose another store, or pass overwrite=True"
    )


def _shown(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "nothing"
