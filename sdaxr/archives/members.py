"""Which members of an ensemble a process draws: all of them, or a part, which is written ``16:32/64``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdaxr.schema import OptionError, check_least, shown

_TEXT = re.compile(r"(\d+):(\d+)/(\d+)", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Consecutive members of an ensemble.

    Attributes
    ----------
    start, stop
        Number of the first member, and that after the last one, from 0.
    of
        Number of members of the ensemble.
    """

    start: int
    stop: int
    of: int

    @classmethod
    def read(cls, members: int | str) -> Part:
        """The members that an option means: a number of members is all of them, ``"16:32/64"`` is 16 of 64.

        Raises
        ------
        OptionError
            If there are no such members.
        """
        found = _TEXT.fullmatch(members.strip()) if isinstance(members, str) else None
        if found is None:
            number = int(members) if isinstance(members, str) and members.isdecimal() else members
            if isinstance(number, str):
                raise OptionError(
                    f"found members={shown(members)}, expected a number of members, or some of them, such as "
                    "0:16/64: the first 16 of 64"
                )
            check_least("members", number, 1)
            return cls(0, int(number), int(number))
        start, stop, of = map(int, found.groups())
        check_least("members", of, 1)
        if not start < stop <= of:
            raise OptionError(
                f"found members={shown(members)}, expected FIRST:STOP/ALL with FIRST < STOP <= ALL, from 0"
            )
        return cls(start, stop, of)

    @property
    def numbers(self) -> range:
        """The numbers of the members."""
        return range(self.start, self.stop)

    @property
    def whole(self) -> bool:
        """Whether these are all members."""
        return len(self.numbers) == self.of

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}/{self.of}"


def listed(numbers: list[int]) -> str:
    """Text for numbers in ascending order, ``0-15, 20``."""
    there = set(numbers)
    starts = [n for n in numbers if n - 1 not in there]
    stops = [n for n in numbers if n + 1 not in there]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))
