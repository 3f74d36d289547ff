"""Parts of an ensemble as texts, and numbers as texts."""

from __future__ import annotations

import pytest

from sdaxr.archives.members import Part, listed
from sdaxr.schema import OptionError


@pytest.mark.parametrize(
    ("members", "part"),
    [(16, Part(0, 16, 16)), ("16", Part(0, 16, 16)), ("0:16/64", Part(0, 16, 64)), (" 63:64/64", Part(63, 64, 64))],
)
def test_members_are_all_or_some(members: int | str, part: Part) -> None:
    found = Part.read(members)
    assert found == part
    assert found.whole is (":" not in str(members))
    assert Part.read(str(found)) == found
    assert list(found.numbers) == list(range(part.start, part.stop))


@pytest.mark.parametrize(
    "members", [0, -1, True, "0", "", "0:16", "16:0/64", "4:4/64", "0:65/64", "0:0/0", "-1:4/8", "a"]
)
def test_members_that_cannot_be_are_refused(members: int | str) -> None:
    with pytest.raises(OptionError, match="^found members=") as caught:
        Part.read(members)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 7, 9, 10], "0-2, 7, 9-10"), (list(range(64)), "0-63")]
)
def test_numbers_are_listed_by_their_ranges(numbers: list[int], text: str) -> None:
    assert listed(numbers) == text
