"""Units that follow from others, in every spelling."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import DataError, UnitsError
from sdaxr.states.units import check_given, check_values, conversion, power, quotient


@pytest.mark.parametrize(
    ("found", "expected", "scale", "offset"),
    [
        ("K", "K", 1.0, 0.0),
        ("degC", "K", 1.0, 273.15),
        ("degF", "K", 5 / 9, 459.67 * 5 / 9),
        ("hPa", "Pa", 100.0, 0.0),
        ("km h-1", "m/s", 1 / 3.6, 0.0),
        ("%", "1", 0.01, 0.0),
        ("g kg**-1", "kg kg-1", 1e-3, 0.0),
        ("psu", "1", 1.0, 0.0),
    ],
)
def test_conversion(found: str, expected: str, scale: float, offset: float):
    assert conversion("v", found, expected) == pytest.approx((scale, offset), rel=1e-12)


@pytest.mark.parametrize("found", ["m", "degrees_celsius?", "0.001", "dB", "some nonsense"])
def test_units_that_cannot_be_converted(found: str):
    with pytest.raises(UnitsError, match="'v' has units .*, which (cannot be converted to|are not linear in) 'K'"):
        conversion("v", found, "K")


def test_units_that_are_not_linear():
    with pytest.raises(UnitsError, match="'z' has units 'dBZ?', which are not linear in '1'"):
        conversion("z", "dB", "1")


@pytest.mark.parametrize("attrs", [{}, {"units": ""}])
def test_missing_units(attrs: dict):
    check_given("t", {"units": "1"}, "the data")
    with pytest.raises(UnitsError, match=r"'t' has no units in the data.*'1' for a number without dimension; set them"):
        check_given("t", attrs, "the data")


@pytest.mark.parametrize("key", ["scale_factor", "add_offset", "_FillValue", "missing_value"])
def test_packed_values(key: str):
    check_values("t", xr.DataArray(1.0, attrs={"units": "K"}), "the data")
    with pytest.raises(DataError, match=f"'t' has the attribute '{key}' .0.01. in the data, expected decoded values"):
        check_values("t", xr.DataArray(1.0, attrs={key: 0.01}), "the data")


@pytest.mark.parametrize("values", ["a", b"a", 1j, True, None, np.datetime64(0, "ns"), np.timedelta64(0, "ns")])
def test_values_that_are_no_numbers(values: object):
    with pytest.raises(DataError, match="'t' has values of type .* in the data, expected real numbers; convert them"):
        check_values("t", xr.DataArray(values), "the data")


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
