"""Quality flags of the conventions of the field, and of nobody's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from sdaxr.observations.quality import CONVENTIONS, flags_of, good_values
from sdaxr.schema import DataError


def flagged(flags: Any, name: str = "t_qc", **attrs: Any) -> xr.Dataset:
    """As many values as flags; further attributes of the flags."""
    flags = np.asarray(flags)
    return xr.Dataset({"t": ("obs", np.arange(float(flags.size))), name: ("obs", flags, attrs)})


OCEANSITES = (
    "unknown good_data probably_good_data potentially_correctable_bad_data bad_data value_changed not_used "
    "nominal_value interpolated_value missing_value"
)
QARTOD = "PASS NOT_EVALUATED SUSPECT FAIL MISSING"


@pytest.mark.parametrize(
    ("flags", "attrs", "good"),
    [
        ([1, 4], {"flag_values": np.array([1, 4], "i1"), "flag_meanings": "good bad"}, [1, 0]),
        (range(10), {"flag_values": range(10), "flag_meanings": OCEANSITES}, [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]),
        ([1, 2, 3, 4, 9], {"flag_values": "1, 2, 3, 4, 9", "flag_meanings": QARTOD}, [1, 0, 0, 0, 0]),
        ([0, 1], {"flag_values": [0, 1], "flag_meanings": "no_problems_noted no_qc_performed"}, [1, 0]),
        # Bits: 0 has no complaint; two complaints; a good word and a complaint.
        ([0, 1, 3, 4, 5], {"flag_masks": [1, 2, 4], "flag_meanings": "cloud bad_pixel valid"}, [1, 0, 0, 1, 0]),
        # Two enumerations in one byte: the lower two bits, and the upper two.
        (
            [0b0101, 0b0110, 0b1001],
            {"flag_masks": [3, 3, 12, 12], "flag_values": [1, 2, 4, 8], "flag_meanings": "good bad passed failed"},
            [1, 0, 0],
        ),
        ([0, 1, 2, 3, 4], {"conventions": "Argo reference table 2"}, [0, 1, 1, 0, 0]),
        (["1", "4", " ", "2"], {"conventions": "Argo reference table 2"}, [1, 0, 0, 1]),
        (np.array([b"1", b"4"]), {"conventions": "Argo reference table 2"}, [1, 0]),
        ([1, 2, 3], {"long_name": "QARTOD aggregate quality flag"}, [1, 0, 0]),
        ([1, 2, 3], {"references": "IOOS manual for real-time quality control"}, [1, 0, 0]),
        ([0, 1, 4], {"long_name": "WMO quality control indication of the following value"}, [1, 0, 0]),
        ([1.0, np.nan, 2.0], {"conventions": "SeaDataNet"}, [1, 0, 1]),
        (np.array([1, -127, 4], "i1"), {"conventions": "OceanSITES", "_FillValue": np.int8(-127)}, [1, 0, 0]),
        ([2, 6, 3], {"conventions": "WOCE bottle flags"}, [1, 1, 0]),
        ([5, 4, 3], {"long_name": "GHRSST quality level"}, [1, 1, 0]),
    ],
)
def test_the_words_and_conventions_of_the_field(flags: Any, attrs: dict[str, Any], good: list[int]) -> None:
    found = good_values(flagged(list(flags) if isinstance(flags, range) else flags, **attrs), "t")
    assert found is not None and found.values.astype(int).tolist() == good


def test_the_convention_of_a_file_is_that_of_its_flags() -> None:
    data = flagged([1, 2, 4]).assign_attrs(Conventions="Argo-3.1 CF-1.6")
    assert good_values(data, "t").values.tolist() == [True, True, False]
    assert all(not set(good) & set(bad) for good, bad in CONVENTIONS.values())


@pytest.mark.parametrize(
    ("attrs", "good", "expected"),
    [
        ({}, [1, 3], [1, 0, 1]),
        ({}, ["1"], [1, 0, 0]),
        ({"flag_values": [1, 2, 3], "flag_meanings": "fine odd bad"}, ["fine", "odd"], [1, 1, 0]),
        ({"conventions": "QARTOD"}, (1, 2), [1, 1, 0]),
    ],
)
def test_what_is_good_can_be_said(attrs: dict[str, Any], good: list[Any], expected: list[int]) -> None:
    assert good_values(flagged([1, 2, 3], **attrs), "t", good).values.astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({}, r"'t_qc' has the flags 1, 7, not known .*screening=\{'good': \{'t': \[1, 2\]\}\}"),
        ({"conventions": "of our institute"}, "the flags 1, 7"),
        ({"conventions": "QARTOD"}, "the flags 7, not known"),
        ({"flag_values": [1, 7], "flag_meanings": "good blue"}, r"the flags 7 \(blue\)"),
        ({"flag_values": [1, 2], "flag_meanings": "good bad"}, "the flags 7, not known"),
        ({"flag_values": [1, 2, 3], "flag_meanings": "good bad"}, "2 flag_meanings, 3 flag_values and 0 flag_masks"),
        ({"flag_meanings": "good bad"}, "2 flag_meanings, 0 flag_values and 0 flag_masks"),
    ],
)
def test_unknown_flags_are_refused(attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        good_values(flagged([1, 7], **attrs), "t")
    missing = flagged([1, 7], **attrs).assign(t=("obs", [np.nan, np.nan]))
    if "flag_meanings" not in attrs:
        assert not good_values(missing, "t").all(), "flags of values that are missing need not be known"


def test_flags_are_found_by_name_and_by_standard_name() -> None:
    data = flagged([1, 1]).assign(tests=("obs", np.array([1, 4]), {"standard_name": "air_temperature status_flag"}))
    assert flags_of(data, "t") == ["t_qc"]
    data = data.assign(t=data.t.assign_attrs(ancillary_variables="tests t_error"))
    assert flags_of(data, "t") == ["t_qc", "tests"]
    for name in ("t_qc", "tests"):
        data[name].attrs["conventions"] = "QARTOD"
    assert good_values(data, "t").values.tolist() == [True, False], "all flags have to be good"
    assert flags_of(flagged([1], name="T_QC"), "t") == ["T_QC"]
    assert good_values(data[["t"]].drop_attrs(), "t") is None
    with pytest.raises(DataError, match=r"'t_qc' has the dimensions \['z'\]"):
        good_values(data.assign(t_qc=("z", [1, 1, 1])), "t")
