"""Which observations are used, which are left out, and why.

Every single value has one status. `sdaxr.assimilate` counts the values of each status, `sdaxr.observations.report`
gives the status of each value; both come from the same decisions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from sdaxr.schema import OptionError, nearest
from sdaxr.states.registry import Options

USED, MISSING, OUTSIDE, OFF_STEP, LAND, FLAGGED, DUPLICATE, GROSS_ERROR, IMPLAUSIBLE = range(9)

STATUS = {
    USED: "used",
    MISSING: "missing",
    OUTSIDE: "outside",
    OFF_STEP: "off_step",
    LAND: "land",
    FLAGGED: "flagged",
    DUPLICATE: "duplicate",
    GROSS_ERROR: "failed_background_check",
    IMPLAUSIBLE: "implausible",
}
"""Names of the statuses: the value is used, there is none, or the reason why it is not used."""

REJECTIONS = {code: name for code, name in STATUS.items() if code not in (USED, MISSING, IMPLAUSIBLE)}
"""Statuses of values that are left out and counted. An implausible value is an error."""

_CHOICES = {"outside": ("error", "drop"), "duplicates": ("error", "drop", "keep"), "time": ("linear", "nearest")}


@dataclass(frozen=True)
class Screening(Options):
    r"""Options that say which observations are used.

    Parameters
    ----------
    good
        Quality flags of values that are good, where the attributes of ``<variable>_qc`` do not say so: values such as
        ``(1, 2)``, or words of ``flag_meanings``; or a mapping of variables to these. See `sdaxr.observations.quality`.
    duplicates
        What happens to a variable that is there twice at one time and place, in one network or, as a measurement, in
        two: ``"error"``; ``"drop"`` uses the first value and counts the others; ``"keep"`` uses all, as measurements
        with independent errors.
    gross_error
        Background check: a value y is left out and counted where
        :math:`|y - H(x_b)| > k \sqrt{B + R}` (Lorenc & Hammon 1988, doi:10.1002/qj.49711448012), with the error
        variance R of y, and with the mean :math:`H(x_b)` and the variance B of the observed quantity under the prior,
        at the place of y; of the first state under the background, where there is one. The number k, or a mapping of
        variables to k. Default: no check.
    time
        Measurements in the point form between the steps of the prior: ``"linear"``, H interpolates between the two
        steps; ``"nearest"``, H takes the nearest step.
    tolerance
        With ``time="nearest"``: largest distance of a measurement from its step, in seconds or as a text such as
        ``"30min"``, or in model time where time is a number.
    outside
        What happens to values outside the window or the grid, off the steps, or on land: ``"error"`` or ``"drop"``. The
        parameter ``outside`` of `sdaxr.assimilate` is this option; one of the two is enough.
    """

    good: Any = None
    duplicates: str = "error"
    gross_error: Any = None
    time: str = "linear"
    tolerance: Any = None
    outside: str = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} is {nearest(getattr(self, name), choices)}")
        if self.gross_error is not None:
            numbers = self.gross_error.values() if isinstance(self.gross_error, Mapping) else [self.gross_error]
            found = all(isinstance(k, Real) and not isinstance(k, bool) and 0 < float(k) < np.inf for k in numbers)
            self.expect("gross_error", found, "a number above 0, or a mapping of variables to numbers, such as 5")
        if (self.time == "nearest") != (self.tolerance is not None):
            raise OptionError(
                f"found time={self.time!r} and tolerance={self.tolerance!r}, expected time='nearest' with a largest "
                "distance from the step, such as tolerance='30min', or time='linear' without"
            )
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", _seconds(self.tolerance))

    @classmethod
    def asked(cls, screening: Screening | Mapping[str, Any] | None, outside: str) -> Screening:
        """``screening`` as an object, with the parameter ``outside`` of a function where it is not ``"error"``."""
        found = cls.of(screening)
        return found if outside == "error" else replace(found, outside=outside)

    def to_json(self) -> str:
        """The options as JSON, for the provenance of a posterior."""
        return json.dumps(self.to_dict(), sort_keys=True, default=str)

    def good_of(self, name: str) -> Sequence[Any] | None:
        """Flags of the variable ``name`` that are good; None where none are given."""
        given = self.good.get(name) if isinstance(self.good, Mapping) else self.good
        return None if given is None else [given] if isinstance(given, str) or not np.iterable(given) else list(given)

    def gross_error_of(self, name: str) -> float | None:
        """The factor k of the background check of the variable ``name``; None for no check."""
        given = self.gross_error.get(name) if isinstance(self.gross_error, Mapping) else self.gross_error
        return None if given is None else float(given)


def counts(status: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Number of values of each of `REJECTIONS` in a network, by name.

    Parameters
    ----------
    status
        Status of the values of each variable, int8.
    """
    number = sum((np.bincount(s.ravel(), minlength=len(STATUS)) for s in status.values()), np.zeros(len(STATUS), int))
    return {name: int(number[code]) for code, name in REJECTIONS.items()}


def flag_attrs(name: str) -> dict[str, Any]:
    """CF attributes of the status of the variable ``name``."""
    return {
        "long_name": f"status of the observations of {name}",
        "standard_name": "status_flag",
        "flag_values": np.array(list(STATUS), np.int8),
        "flag_meanings": " ".join(STATUS.values()),
    }


def _seconds(tolerance: Any) -> float:
    try:
        plain = isinstance(tolerance, Real) and not isinstance(tolerance, bool)
        found = float(tolerance) if plain else pd.Timedelta(tolerance).total_seconds()
    except (TypeError, ValueError):
        found = np.nan
    if not 0 <= found < np.inf:
        raise OptionError(
            f"found tolerance={tolerance!r}, expected a duration such as '30min' or 1800 (seconds, or model time)"
        )
    return found
