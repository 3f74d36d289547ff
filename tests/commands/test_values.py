"""Values of a recipe: what YAML reads, and the types of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import xarray as xr
import yaml

from sdaxr.commands.values import Loader, typed
from sdaxr.posterior.methods import Method
from sdaxr.schema import OptionError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-2", 0.01), ("-1E3", -1000.0), (".5e+1", 5.0), ("1.e2", 100.0), ("0.5", 0.5), ("3", 3), ("'1e-2'", "1e-2"),
        ("e3", "e3"), ("1e", "1e"), ("1e-2x", "1e-2x"), (".inf", math.inf), ("{a: 1e-2}", {"a": 0.01}),
    ],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = yaml.load(text, Loader)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", "{[1]: 2, [1]: 3}", "{[1]: 2}"])
def test_keys_that_cannot_be_kept_are_yaml_errors(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        yaml.load(text, Loader)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [3, 4.0], [None, True, 0.5, math.inf, math.nan, "3", [3]]),
        (int | None, [3, None], ["3"]),
        (float, [3, 0.5], [math.inf, math.nan, "0.5", None, True]),
        (bool, [True], [1, "true"]),
        (str | None, ["a", None], [5, ["a"], {"a": 1}]),
        (float | Mapping[str, float | xr.DataArray] | xr.DataArray, [0.5, {"u": 0.5}], ["0.5", [0.5]]),
        (str | Method | Mapping[str, Any] | None, ["sda", {"name": "sda"}, None], [5, ["sda"]]),
        (str | Iterable[str], ["a", ["a", "b"]], [[5], 5]),
        (int | Sequence[Any], [4, [1, "a"]], ["4", {"a": 1}]),
        (Any, [object()], []),
    ],
)
def test_a_value_has_a_type_of_its_parameter(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert typed("key", value, annotation) == value
    for value in bad:
        with pytest.raises(OptionError, match=r"found key: .*, expected (a|true)"):
            typed("key", value, annotation)
    assert type(typed("key", 4.0, int)) is int
