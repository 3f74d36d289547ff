"""Options that say which observations are used."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sdaxr.observations.screening import REJECTIONS, STATUS, Screening, counts, flag_attrs
from sdaxr.schema import OptionError


def test_options_are_those_of_each_variable() -> None:
    how = Screening.of({"good": {"t": [1, 2]}, "gross_error": {"t": 4}, "time": "nearest", "tolerance": "30min"})
    assert how.good_of("t") == [1, 2] and how.good_of("u") is None
    assert how.gross_error_of("t") == 4.0 and how.gross_error_of("u") is None
    assert how.tolerance == 1800.0 and Screening(time="nearest", tolerance=0.5).tolerance == 0.5
    for given, expected in ((1, [1]), ("good", ["good"]), ((1, 2), [1, 2])):
        assert Screening(good=given).good_of("t") == expected
    assert Screening(gross_error=3).gross_error_of("t") == 3.0
    assert Screening.of(how.to_dict()) == how
    assert json.loads(Screening(good=np.array([1])).to_json())["duplicates"] == "error"


@pytest.mark.parametrize(
    ("screening", "outside", "expected"),
    [(None, "error", "error"), (None, "drop", "drop"), ({"outside": "drop"}, "error", "drop")],
)
def test_outside_is_a_parameter_or_an_option(screening: dict[str, str] | None, outside: str, expected: str) -> None:
    assert Screening.asked(screening, outside).outside == expected
    with pytest.raises(OptionError, match="outside is 'keep'"):
        Screening.asked(screening, "keep")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duplicate": "drop"}, "unknown option of Screening: 'duplicate'.*Did you mean 'duplicates'"),
        ({"duplicates": "first"}, "duplicates is 'first'; expected one of drop, error, keep"),
        ({"time": "cubic"}, "time is 'cubic'; expected one of linear, nearest"),
        ({"time": "nearest"}, "found time='nearest' and tolerance=None, expected"),
        ({"tolerance": 3}, "found time='linear' and tolerance=3, expected"),
        ({"time": "nearest", "tolerance": "soon"}, "found tolerance='soon', expected a duration"),
        ({"time": "nearest", "tolerance": -1}, "found tolerance=-1, expected a duration"),
        ({"gross_error": 0}, "found gross_error=0 for Screening, expected a number above 0"),
        ({"gross_error": {"t": "5"}}, "gross_error=.* expected a number above 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Screening.of(options)


def test_statuses_are_counted_and_have_cf_attributes() -> None:
    status = {"t": np.array([0, 1, 2, 2, 8], np.int8), "u": np.array([[5, 0]], np.int8)}
    found = counts(status)
    assert found == dict.fromkeys(REJECTIONS.values(), 0) | {"outside": 2, "flagged": 1}
    attrs = flag_attrs("t")
    assert attrs["flag_values"].dtype == np.int8 and len(attrs["flag_values"]) == len(attrs["flag_meanings"].split())
    assert set(STATUS) == set(attrs["flag_values"].tolist())
