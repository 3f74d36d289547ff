"""Attributes of other people's Datasets, as files hold them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sdaxr.states.attributes import plain, plain_attrs

CASES: dict[str, tuple[Any, Any]] = {
    "timestamp": (pd.Timestamp("2020-01-01 06:00"), "2020-01-01T06:00:00"),
    "date": (datetime.date(2020, 1, 1), "2020-01-01"),
    "datetime64": (np.datetime64("2020-01-01"), "2020-01-01"),
    "cftime": (cftime.DatetimeNoLeap(2020, 1, 1), "2020-01-01T00:00:00"),
    "timedelta": (datetime.timedelta(hours=6), "6:00:00"),
    "true": (True, 1),
    "false of numpy": (np.False_, 0),
    "truth values": ([True, False], [1, 0]),
    "mapping": ({"a": 1, "b": {5: datetime.date(2020, 1, 1)}}, '{"a": 1, "b": {"5": "2020-01-01"}}'),
    "bytes": (b"K", "K"),
    "type": (float, "float"),
    "path": (Path("/a"), "/a"),
    "mixed list": ([1, "a", None], '[1, "a", null]'),
    "empty list": ([], "[]"),
    "numbers": (np.array([1, 2], np.int8), [1, 2]),
    "texts": (np.array(["a", "b"]), ["a", "b"]),
    "table": (np.eye(2), "[[1.0, 0.0], [0.0, 1.0]]"),
    "objects": (np.array([pd.Timestamp("2020-01-01"), 1], object), '["2020-01-01T00:00:00", 1]'),
    "large number": (2**70, str(2**70)),
    "complex number": (1 + 2j, "(1+2j)"),
    "number of numpy": (np.float32(1.5), 1.5),
    "text": ("K", "K"),
    "number": (7, 7),
}


@pytest.mark.parametrize(("found", "expected"), CASES.values(), ids=CASES)
def test_every_attribute_becomes_text_number_or_list(found: Any, expected: Any) -> None:
    (value,) = plain_attrs({"a": found}).values()
    assert value == expected and type(value) is type(expected)
    assert plain_attrs({"a": value}) == {"a": value}


def test_none_is_left_out_and_names_are_texts() -> None:
    assert plain_attrs({"a": None, 5: 1}) == {"5": 1}


def test_all_files_hold_them(tmp_path: Path) -> None:
    attrs = {name: found for name, (found, _) in CASES.items()}
    given = xr.Dataset({"a": ("x", [1.0, 2.0], attrs)}, {"x": ("x", [0, 1], attrs)}, attrs)
    data = plain(given)
    assert given.attrs == given.a.attrs == attrs
    json.dumps([data.attrs, data.a.attrs])
    data.to_netcdf(tmp_path / "a.nc")
    data.to_zarr(tmp_path / "a.zarr", consolidated=False)
    with xr.open_dataset(tmp_path / "a.nc") as netcdf:
        for name, value in data.a.attrs.items():
            np.testing.assert_array_equal(netcdf.a.attrs[name], value)
            np.testing.assert_array_equal(netcdf.x.attrs[name], value)
    assert xr.open_zarr(tmp_path / "a.zarr", consolidated=False).a.attrs == data.a.attrs


def test_flags_have_the_type_of_their_variable() -> None:
    attrs = {"flag_values": [0, 1], "flag_masks": np.array([1, 2]), "flag_meanings": "good bad"}
    data = plain(xr.Dataset({"q": ("x", np.zeros(2, np.int8), attrs), "f": ("x", np.zeros(2), attrs)}))
    assert data.q.attrs["flag_values"].dtype == data.q.attrs["flag_masks"].dtype == np.int8
    assert data.q.attrs["flag_values"].tolist() == data.f.attrs["flag_values"] == [0, 1]
