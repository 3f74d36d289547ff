"""Attributes that all results have."""

from __future__ import annotations

from sdaxr.archives.provenance import provenance_attrs
from sdaxr.schema import VERSION


def test_what_is_not_there_is_left_out() -> None:
    found = provenance_attrs("a title", "a method", seed=0, references=None)
    assert found == {
        "Conventions": "CF-1.11", "title": "a title", "source": "a method", "seed": 0, "sdaxr_version": VERSION,
    }  # fmt: skip
