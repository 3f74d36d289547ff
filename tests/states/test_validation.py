"""Declared types and bounds: what fits, what means the same, and what is refused with one line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sdaxr.schema import OptionError, SdaxrError
from sdaxr.states.validation import (
    Count,
    Few,
    Natural,
    NotNegative,
    Number,
    Positive,
    Share,
    Width,
    Widths,
    checked,
    fields_of,
    options_checked,
    plain,
    words,
)

KINDS = [Count, Few, Natural, NotNegative, Number, Positive, Share, Width, Widths, int, float, bool, str,
         int | None, float | str, tuple[float, float], tuple[Positive, ...], Mapping[str, Any]]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 64.0, 64), (int, "64", 64), (int, np.int64(3), 3), (float, 1, 1.0), (float, "1e-3", 1e-3),
        (float, np.float32(0.5), 0.5), (bool, "true", True), (float | str, "0.5", 0.5), (float | str, "auto", "auto"),
        (tuple[int, ...], [1, "2", 3.0], (1, 2, 3)), (tuple[str, ...], "a", ("a",)),
        (tuple[float, float], (1, 2), (1.0, 2.0)),
        (tuple[int, ...], np.array([1, 2]), (1, 2)), (tuple[str, ...], {"a": 1}.keys(), ("a",)),
        (int | None, None, None),
        (tuple[Mapping[str, Any], ...], {"flip": ["x"]}, ({"flip": ["x"]},)), (Share, 1, 1.0),
        (Widths, [8, 16], (8, 16)),
    ],
)  # fmt: skip
def test_what_means_the_same_is_one_value(kind: Any, value: Any, expected: Any) -> None:
    found = checked("key", value, kind)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Count, 0, "found key=0, expected a whole number of at least 1"),
        (Count, 10**15, "expected a whole number of at least 1"),
        (Positive, -0.5, "found key=-0.5, expected a number above 0"),
        (Positive, math.inf, "found key=inf"), (float, math.nan, "found key=nan"),
        (Number, -math.inf, "found key=-inf"),
        (float, 10**400, "found key=10000"), pytest.param(int, 10**5000, "found key=<int>", id="5000 digits"),
        (int, True, "found key=True"),
        (int, 4.5, "expected a whole number"), (float, 1 + 0j, "found key=.1.0j., expected a number"),
        (float, np.complex128(1), "expected a number"), (float, np.datetime64("NaT"), "expected a number"),
        (Share, 2, "a number of at least 0 and of at most 1"), (Width, 20_000_000, "of at most 32768"),
        (Widths, [], "a length of at least 1"), (Widths, [8, 0], "a list of a whole number of at least 1"),
        (tuple[float, float], [1.0], "2 values, a number each"), (tuple[float, float], [1.0, math.nan], "2 values"),
        (str, 5, "a text"), (str, b"a", "a text"), (bool, 7, "true or false"), (Mapping[str, Any], [1], "a mapping"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        checked("key", value, kind)


@pytest.mark.parametrize(("kind", "value"), [(int, "3"), (bool, "true"), (bool, 1), (tuple[str, ...], "a")])
def test_texts_are_no_numbers_where_these_are_told_apart(kind: Any, value: Any) -> None:
    checked("key", value, kind)
    with pytest.raises(OptionError):
        checked("key", value, kind, strict=True)
    assert checked("key", 4.0, int, strict=True) == 4


def test_a_number_is_infinite_only_where_that_is_meant() -> None:
    assert checked("below", math.inf, float, infinite=True) == math.inf
    with pytest.raises(OptionError):
        checked("below", math.nan, float, infinite=True)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=3)
    | st.complex_numbers() | st.decimals() | st.fractions() | st.dates()
    | st.sampled_from([np.float64("nan"), np.int8(3), np.complex64(1j), np.array([1.5]), np.datetime64("NaT"), len]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(value=ANYTHING, kind=st.sampled_from(KINDS), strict=st.booleans())
def test_any_value_fits_or_is_refused_with_one_short_line(value: Any, kind: Any, strict: bool) -> None:
    try:
        found = checked("key", value, kind, strict=strict)
    except SdaxrError as error:
        assert "\n" not in str(error) and len(str(error)) < 500 and words(kind) in str(error)
    else:
        # What fits is of the type, in its bounds, and stays what it is.
        assert checked("key", found, kind, strict=True) == found
        for number in [found] if isinstance(found, int | float) else found if isinstance(found, tuple) else []:
            assert not isinstance(number, float) or math.isfinite(number)
        assert not isinstance(value, complex | Decimal | Fraction | bytes) or isinstance(found, str)


class Holder:
    count: Count
    data: xr.Dataset
    both: str | xr.Dataset
    names: Sequence[str]


@options_checked
def function(data: Any, *, count: int = 1, share: float | None = None, names: Iterable[str] = ()) -> Any:
    return count, share, names


def test_types_of_other_libraries_are_left_to_who_reads_them() -> None:
    assert fields_of(Holder) == {"count": Count, "data": Any, "both": Any, "names": list[str]}
    assert (
        plain(str | Holder) is str and plain(Mapping[str, Holder] | Holder) is Any and plain(int | None) == (int | None)
    )
    data = xr.Dataset({"a": ("x", [1])})
    assert checked("data", data, Any) is data


def test_keyword_parameters_of_a_function_are_checked_by_their_annotations() -> None:
    assert function(None, count=2.0, share=np.float32(0.5), names=("a",)) == (2, 0.5, ["a"])
    assert list(inspect.signature(function).parameters) == ["data", "count", "share", "names"]
    for wrong in ({"count": 1.5}, {"share": 1j}, {"names": [5]}, {"count": "1"}, {"share": math.nan}):
        with pytest.raises(OptionError, match=r"found \w+=.*, expected"):
            function(None, **wrong)
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(None, zzz=1)
