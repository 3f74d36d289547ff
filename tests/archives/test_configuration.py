"""Configurations: the same hash whatever the order, differences entry by entry."""

from __future__ import annotations

from typing import Any

import pytest

from sdaxr.archives.configuration import HASH, config_attrs, difference


def test_the_hash_is_of_the_values_not_of_their_order() -> None:
    assert config_attrs({"a": 1, "b": {"c": 2, "d": 3}}) == config_attrs({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_attrs({"a": 1})[HASH] != config_attrs({"a": 2})[HASH]


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1, "b": "x"}, {"a": 2, "b": "y"}, "a: 1 -> 2; b: 'x' -> 'y'"),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "a.c: 2 -> 3"),
        ({}, {"a": 1}, "a: nothing -> 1"),
        ({"a": None}, {}, "a: None -> nothing"),
        ({"a": {"b": 1}}, {"a": 1}, "a: {'b': 1} -> 1"),
    ],
)
def test_differences_name_both_values(there: dict[str, Any], here: dict[str, Any], expected: str) -> None:
    assert difference(there, here) == expected
