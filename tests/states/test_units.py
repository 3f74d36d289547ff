"""Units that follow from others, in every spelling."""

from __future__ import annotations

import pytest

from sdaxr.states.units import power, quotient


@pytest.mark.parametrize("spelling", ["m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "m / s", "m s+1/s2"])
def test_every_spelling_of_a_velocity(spelling: str):
    assert power(spelling, 2) == "m2 s-2"
    assert power(spelling, 1) == "m s-1"
    assert quotient(spelling, "m") == "s-1"
    assert quotient("1", spelling) == "m-1 s"


@pytest.mark.parametrize(
    ("units", "exponent", "expected"),
    [
        ("K", 2, "K2"),
        ("m2 s-1", 2, "m4 s-2"),
        ("1", 2, "1"),
        ("%", 2, "%2"),
        ("µm", 2, "µm2"),
        ("m", -1, "m-1"),
        ("1/s", -1, "s"),
        ("J/kg/K", 2, "J2 kg-2 K-2"),
        ("J/kg K", 2, "J2 kg-2 K2"),
        ("1.1 m", 2, "(1.1 m)2"),
        ("J/(kg K)", 2, "(J/(kg K))2"),
        ("", 2, ""),
    ],
)
def test_units_of_a_power(units: str, exponent: int, expected: str):
    assert power(units, exponent) == expected


@pytest.mark.parametrize(
    ("top", "bottom", "expected"),
    [
        ("1", "1", "1"),
        ("m s-1", "1", "m s-1"),
        ("km h-1", "m", "km h-1 m-1"),
        ("", "m", ""),
        ("K", "", ""),
        ("1e3 m", "m", "(1e3 m) (m)-1"),
    ],
)
def test_units_of_a_quotient(top: str, bottom: str, expected: str):
    assert quotient(top, bottom) == expected
