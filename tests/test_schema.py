"""Names, time axes and messages that every part shares."""

from __future__ import annotations

import pytest

from sdaxr import schema
from sdaxr.schema import DataError, OptionError, SdaxrError, UnitsError


def test_nearest_offers_the_right_name() -> None:
    assert schema.nearest("gama", ["gamma", "tau"]) == "'gama'; expected one of gamma, tau. Did you mean 'gamma'?"
    assert "Did you mean" not in schema.nearest("zzz", ["gamma", "tau"])


def test_errors_can_be_caught_as_the_usual_ones() -> None:
    assert issubclass(DataError, ValueError) and issubclass(DataError, SdaxrError)
    assert issubclass(schema.ArchiveError, OSError) and issubclass(OptionError, ValueError)


def test_units_are_those_that_are_expected() -> None:
    schema.check_units("t", None, None)
    schema.check_units("t", "K", "")
    schema.check_units("t", "K", "K")
    for missing in (None, ""):
        with pytest.raises(UnitsError, match=r"'t' has no units in the observations, expected 'K'; .* set ds\['t'\]"):
            schema.check_units("t", missing, "K")
    with pytest.raises(UnitsError, match=r"'t' has units 'degC' in the data, expected 'K'.*attrs\['units'\] = 'K'"):
        schema.check_units("t", "degC", "K", "the data")


@pytest.mark.parametrize("value", [-1, 0.5, 2.0, True, "2", None, float("nan")])
def test_what_is_no_count_is_refused(value: object) -> None:
    schema.check_least("members", 2, 2)
    with pytest.raises(OptionError, match="found members=.*, expected a whole number of at least 2"):
        schema.check_least("members", value, 2)


@pytest.mark.parametrize("value", [0, -0.5, True, "2", None, float("nan"), float("inf")])
def test_what_is_not_positive_is_refused(value: object) -> None:
    schema.check_positive("error", 1, " in K")
    with pytest.raises(OptionError, match="found error=.*, expected a positive number in K"):
        schema.check_positive("error", value, " in K")


def test_version_is_text() -> None:
    assert schema.VERSION
