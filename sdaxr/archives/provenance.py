"""Global attributes that every result of sdaxr carries."""

from __future__ import annotations

from typing import Any

from sdaxr.schema import VERSION

CONVENTIONS = "CF-1.11"


def provenance_attrs(title: str, source: str, **about: Any) -> dict[str, Any]:
    """Where a result comes from, as attributes (strings, numbers or lists).

    Parameters
    ----------
    title
        What is in the file, in one line (CF attribute ``title``).
    source
        The method that made it (CF attribute ``source``).
    **about
        What else determines the result, such as ``seed``, ``method``, ``prior_sha256``; entries that are None are left
        out.

    Returns
    -------
    dict
        ``Conventions``, ``title``, ``source``, what else is given, and ``sdaxr_version``.
    """
    given = {key: value for key, value in about.items() if value is not None}
    return {"Conventions": CONVENTIONS, "title": title, "source": source, **given, "sdaxr_version": VERSION}
